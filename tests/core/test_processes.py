"""Training on two processes equals training on one, up to rounding."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make import process_group
from torch import multiprocessing

from vidreason.core import processes
from vidreason.core.loading import EpochSampler
from vidreason.intent.data import IntentData
from vidreason.simulation.street import write_street

CONFIG = Path(__file__).parents[2] / "configs" / "intent" / "jaad_all.yaml"


def of_two(monkeypatch, number):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: number)


@pytest.mark.parametrize("samples", [10, 11])
def test_two_processes_share_the_batches_of_one(monkeypatch, samples):
    sampler = EpochSampler(samples, seed=3)
    sampler.set_epoch(4)
    one = list(sampler)
    parts = []
    for number in (0, 1):
        of_two(monkeypatch, number)
        parts.append(list(sampler))
        assert len(sampler) == len(parts[-1]) == samples // 2
    for start in range(0, samples // 2, 3):
        batch = parts[0][start : start + 3] + parts[1][start : start + 3]
        assert sorted(batch) == sorted(one[2 * start : 2 * start + 6][: len(batch)])


SIZES = [3, 0, 2, 5, 1]  # rows of each sample of a batch


def test_two_processes_draw_the_random_numbers_of_one(tmp_path):
    # This process is the first of the two, which saves starting another.
    other = multiprocessing.get_context("spawn").Process(
        target=process_group.draw, args=(1, tmp_path, SIZES)
    )
    other.start()
    process_group.draw(0, tmp_path, SIZES)
    other.join()
    assert other.exitcode == 0
    torch.manual_seed(0)
    whole = torch.rand(2, sum(SIZES), 3)
    bounds = np.cumsum([0, *SIZES])
    for number in (0, 1):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert (found["every"], found["total"]) == (sum(SIZES), 3)
        ours = [whole[:, bounds[i] : bounds[i + 1]] for i in range(number, len(SIZES), 2)]
        assert torch.equal(found["drawn"], torch.cat(ours, 1))


def test_one_process_has_all_rows_and_its_own_sum():
    torch.manual_seed(0)
    drawn = processes.rows(torch.tensor([2, 1])).draw(torch.rand, (3, 2), 0)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3, 2))
    x = torch.ones(3, requires_grad=True)
    assert processes.total(x) is x


def fit(root, run, *options):
    words = ["fit", "-c", str(CONFIG), f"--data.root={root}", f"--trainer.default_root_dir={run}"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    words += ["--trainer.max_epochs=3", "--trainer.accelerator=cpu", *options]
    command = [sys.executable, "-m", "vidreason.cli", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), done


@pytest.mark.slow
def test_ddp_on_two_processes_equals_one_process_with_twice_the_batch(tmp_path):
    root = write_street(tmp_path / "jaad", videos=24, seed=3)
    data = IntentData(["box"], root=str(root))
    data.setup("fit")
    assert len(data.windows["train"]) % 2 == 0, "the sampler would drop one"
    one, _ = fit(root, tmp_path / "one", "--data.batch_size=64")
    distributed = ["--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=32"]
    two, done = fit(root, tmp_path / "two", *distributed)
    assert len(one) == len(two) == 3 and done.stdout.count("best val/auc") == 1
    for a, b in zip(one, two, strict=True):
        assert a["step"] == b["step"]
        assert float(b["train/loss"]) == pytest.approx(float(a["train/loss"]), rel=1e-4)
        assert float(b["val/auc"]) == pytest.approx(float(a["val/auc"]), abs=1e-3)
    assert float(two[-1]["train/loss"]) < float(two[0]["train/loss"])
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    for name, value in states[0].items():
        # In its first steps, Adam amplifies rounding errors of small gradients.
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=5e-3)
