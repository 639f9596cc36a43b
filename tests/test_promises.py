"""The reproducibility guarantees D1 to D6 of docs/reproducibility.rst, one test each."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make import blobs

from vidreason import cli
from vidreason.decomposition import data as clips
from vidreason.decomposition.ball_data import BallsData
from vidreason.decomposition.data import MovingMNISTData
from vidreason.intent.data import IntentData
from vidreason.perception.prepare import prepare_video, run_jobs
from vidreason.simulation.street import write_street

MNIST = {"source": "drawn", "batch_size": 4, "epoch_clips": 8, "val_clips": 4}
BALLS = {"batch_size": 4, "epoch_clips": 8, "val_clips": 4, "trajectories": 8}
CONFIG = """\
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 4, members: 1}}}
data:
  class_path: IntentData
  init_args: {root: ROOT, features: [box, neighbours], batch_size: 8}
trainer:
  max_epochs: 3
  # Gradients accumulate across the batch at which D4 stops.
  accumulate_grad_batches: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("promises") / "jaad"
    return write_street(root, videos=3, seed=30, frames=(110, 130), split=(1, 1, 1))


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    few = {split: (count // 50, seed) for split, (count, seed) in clips._DRAWN.items()}
    monkeypatch.setattr(clips, "_DRAWN", few)


def modules(root, seed=0):
    features = ["box", "neighbours"]
    return [
        IntentData(features=features, root=str(root), batch_size=4, seed=seed),
        MovingMNISTData(**MNIST, seed=seed),
        BallsData(**BALLS, seed=seed),
    ]


def digest(batches) -> str:
    """Returns a digest of all tensors, in order."""
    found = hashlib.sha256()

    def take(value) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.numpy().tobytes())
        elif hasattr(value, "to_dict"):
            take(value.to_dict())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                take(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                take(part)

    take(list(batches))
    return found.hexdigest()


def train(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return loader


def validation(data):
    found = data.val_dataloader()
    return [list(one) for one in (found if isinstance(found, list) else [found])]


# Runs command lines; during the last, a training, it dies in epoch 1.
OTHER_PROCESS = """
import json, os, sys
from vidreason import cli
from vidreason.runs import folder as runs
*lines, last = json.loads(sys.argv[1])
for line in lines:
    assert cli.main(line) == 0
def start(self, trainer, module, batch, number):
    if (trainer.current_epoch, number) == (1, 1):
        os._exit(9)
    return kept(self, trainer, module, batch, number)
kept, runs.RunFolder.on_train_batch_start = runs.RunFolder.on_train_batch_start, start
cli.main(last)
"""


def fit_predict_evaluate(config: Path, root: Path, run: Path) -> list[list[str]]:
    """Returns the command lines of a run."""
    return [
        ["fit", "-c", str(config), f"--trainer.default_root_dir={run}"],
        ["predict", "--run", str(run)],
        ["evaluate", str(run), "--root", str(root), "--bootstrap", "20"],
    ]


@pytest.fixture(scope="module")
def config(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(CONFIG.replace("ROOT", str(root)))
    return path


@pytest.fixture(scope="module")
def whole(config, root, tmp_path_factory):
    """A run that nothing interrupted, with predictions and evaluation; read only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    for line in fit_predict_evaluate(config, root, run):
        assert cli.main(line) == 0
    return run


@pytest.fixture(scope="module")
def again_and_cut(config, root, tmp_path_factory):
    """The same run by another process, and a training killed in its second epoch."""
    # Results contain the path of the run: its name and its length must be those of `whole`.
    again, cut = tmp_path_factory.mktemp("again") / "run", tmp_path_factory.mktemp("cut") / "run"
    lines = fit_predict_evaluate(config, root, again) + fit_predict_evaluate(config, root, cut)[:1]
    threads = str(torch.get_num_threads())
    other = {"PYTHONHASHSEED": "1", "TZ": "UTC+1", "PL_GLOBAL_SEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, json.dumps(lines)],
        env={**os.environ, "OMP_NUM_THREADS": threads, **other},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 9, done.stderr
    return again, cut


def test_d1_the_same_command_gives_the_same_bytes(whole, again_and_cut):
    again, _ = again_and_cut
    checkpoints = [run / "checkpoints/last.ckpt" for run in (whole, again)]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in checkpoints)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for name in ("metrics.csv", "predictions.parquet", "evaluation/metrics.json"):
        texts = [(run / name).read_bytes().replace(bytes(run), b"") for run in (whole, again)]
        assert texts[0] == texts[1], name


def test_d2_samples_depend_on_seed_epoch_and_index_alone(root):
    for one, other in zip(modules(root), modules(root), strict=True):
        one.setup("fit")
        other.workers = 2
        other.setup("fit")
        list(train(other, 2))
        assert digest(train(one, 1)) == digest(train(other, 1)), type(one)
        data, order = train(one, 1).dataset, list(train(one, 1).sampler)
        items = [digest([data.__getitems__([n])]) for n in order]
        # Independent of other generators, and of the order of access.
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        again = [digest([data.__getitems__([n])]) for n in order[::-1]]
        assert items == again[::-1]
        assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
        assert torch.equal(states[2], torch.get_rng_state()), "draws from the generator of torch"


def test_d3_validation_batches_are_the_same_in_every_epoch_and_run(root):
    for one, other in zip(modules(root), modules(root, seed=5), strict=True):
        one.setup("fit")
        other.setup("fit")
        first = digest(validation(one))
        for epoch in range(2):
            list(train(one, epoch))
            torch.manual_seed(epoch)
            assert digest(validation(one)) == first
        assert digest(validation(other)) == first


def test_d4_a_resumed_run_equals_an_uninterrupted_one(whole, again_and_cut):
    _, cut = again_and_cut
    assert len((cut / "metrics.csv").read_text().splitlines()) == 2
    assert cli.main(["fit", "--run", str(cut), "--resume"]) == 0
    checkpoints = [run / "checkpoints/last.ckpt" for run in (whole, cut)]
    first, second = (torch.load(path, weights_only=True) for path in checkpoints)
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)


def test_d5_a_store_has_the_same_bytes(tmp_path, monkeypatch):
    clips, one, other = (tmp_path / name for name in ("clips", "one", "other"))
    clips.mkdir()
    for n in range(3):
        blobs.write(clips / f"c{n}.mp4", n, length=6)
    for job in blobs.jobs(clips, one):
        prepare_video(job)
    # Read by the processes of run_jobs when they start.
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    monkeypatch.setenv("TZ", "UTC+1")
    done = run_jobs(blobs.jobs(clips, other)[::-1], 2)
    assert set(done.values()) == {"prepared"}
    stores = [{path.name: path.read_bytes() for path in store.iterdir()} for store in (one, other)]
    assert stores[0] == stores[1] and len(stores[0]) == 4


# A change of the random draws changes all results: update the cards together with this table.
DRAWN = {
    "MovingMNISTData 0": "a450678ef002d835",
    "BallsData 0": "fae52561df4a00fd",
    "street 0": "7df06af9bcd7f713",
    "MovingMNISTData 1": "a157c0929f437eba",
    "BallsData 1": "39de1e64f40f406e",
    "street 1": "f210690786e0d150",
    "MovingMNISTData 2": "10c496c858f8ba2e",
    "BallsData 2": "a325458e62fb34b5",
    "street 2": "b998bc2dd14033e6",
}


def drawn(folder: Path) -> dict[str, str]:
    found = {}
    for seed in range(3):
        for data in (MovingMNISTData(**MNIST, seed=seed), BallsData(**BALLS, seed=seed)):
            data.setup("fit")
            found[f"{type(data).__name__} {seed}"] = digest(train(data))[:16]
        street = write_street(folder / str(seed), videos=3, seed=seed, split=(1, 1, 1))
        whole = hashlib.sha256()
        for path in sorted(street.rglob("*.xml")):
            whole.update(path.read_bytes())
        found[f"street {seed}"] = whole.hexdigest()[:16]
    return found


def test_d6_random_data_are_those_of_earlier_versions(tmp_path):
    assert drawn(tmp_path) == DRAWN
