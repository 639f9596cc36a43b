"""Interrupted runs resume to the same weights, whatever stopped them."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from make import groups, tiny_run
from make.command import refused, run
from make.tiny_run import on_jaad, weights, write

from vidreason import cli


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run of eight epochs that nothing stopped; read only."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    options = ("--trainer.default_root_dir", folder, "--trainer.max_epochs", 8)
    assert run("fit", "-c", config, *options)[0] == 0
    return folder


def same(one: Path, other: Path) -> bool:
    """Whether the last checkpoints of two runs have equal weights."""
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in second)


def test_same_command_gives_the_same_weights(config, finished, tmp_path):
    assert run("fit", "-c", config, "--trainer.default_root_dir", tmp_path / "again")[0] == 0
    assert same(tmp_path / "again", finished)
    other = ("--trainer.default_root_dir", tmp_path / "other", "--seed_everything", 4)
    assert run("fit", "-c", config, *other, "--trainer.max_epochs", 1)[0] == 0
    assert not same(tmp_path / "other", finished)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_stopped_at_any_time_resumes_to_the_same_weights(
    number, config, whole, tmp_path, capfd
):
    script = [sys.executable, tiny_run.__file__, "fit", "-c", config, "--trainer.max_epochs", "8"]
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), *sys.path])
    slow = {**os.environ, "PYTHONPATH": path, "TINY_DELAY": "0.02"}
    place = ["--trainer.default_root_dir", tmp_path / "cut"]
    with subprocess.Popen([*script, *place], env=slow) as process:
        last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
        while process.poll() is None and not last.exists():
            time.sleep(0.01)
        time.sleep(0.7 * random.random())
        process.send_signal(number)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert "Traceback" not in capfd.readouterr().err
    before = torch.load(last, weights_only=True)["epoch"]
    assert before < 7, "finished before it was stopped"

    assert run("fit", "--run", tmp_path / "cut", "--resume")[0] == 0
    assert same(tmp_path / "cut", whole)
    table = (tmp_path / "cut" / "metrics.csv").read_text()
    assert table == (whole / "metrics.csv").read_text() and table.count("\n") == 9


def cut_in_second_epoch(monkeypatch, *arguments: object) -> None:
    """Runs a command that stops before the second epoch's checkpoint is written."""
    save = pl.Trainer.save_checkpoint

    def fail(trainer: pl.Trainer, path: Path) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("cut")
        save(trainer, path)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="cut"):
        patch.setattr(pl.Trainer, "save_checkpoint", fail)
        run(*arguments)


def test_epoch_without_its_checkpoint_is_repeated(config, finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    cut_in_second_epoch(monkeypatch, "fit", "-c", config, "--trainer.default_root_dir", folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3

    # As if the first epoch had the best possible score.
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    with (folder / "metrics.csv").open() as file:
        auc = float(next(csv.DictReader(file))["val/auc"])
    assert checkpoint["callbacks"]["RunFolder"]["best"] == auc
    checkpoint["callbacks"]["RunFolder"]["best"] = 1.0
    torch.save(checkpoint, last)
    best = weights(folder, "best")
    # As if it had been stopped before the best checkpoint was written.
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert run("fit", "--run", folder, "--resume")[0] == 0
    assert (folder / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()
    again = weights(folder, "best")
    assert all(torch.equal(again[name], best[name]) for name in best)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_any_number_of_workers_resumes_to_the_same_weights(
    workers, tiny_root, tmp_path, monkeypatch
):
    config = write(tmp_path / "c.yaml", on_jaad(tiny_root))
    command = ("fit", "-c", config, "--trainer.default_root_dir")
    assert run(*command, tmp_path / "whole")[0] == 0
    cut_in_second_epoch(monkeypatch, *command, tmp_path / "cut", "--data.workers", workers)
    assert run("fit", "--run", tmp_path / "cut", "--resume")[0] == 0
    assert same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_data_workers_end_with_the_run_and_their_death_is_reported(number, tiny_root, tmp_path):
    config = write(tmp_path / "c.yaml", on_jaad(tiny_root))
    options = ["--data.workers=2", "--trainer.max_epochs=10000"]
    options.append(f"--trainer.default_root_dir={tmp_path / 'run'}")
    process = groups.start([tiny_run.__file__, "fit", "-c", config, *options])
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    if number == signal.SIGKILL:
        # Workers start and end with each epoch, and killing one that is about to end does nothing.
        while process.poll() is None:
            for child in groups.children(process):
                with suppress(ProcessLookupError):
                    os.kill(child, number)
        want = (1, "error: data.workers: a data loading worker died; set --data.workers 0, ")
    else:
        os.killpg(process.pid, number)  # as a terminal and a scheduler do
        want = (128 + number, f"stopped by {number.name}; with --resume it continues")
    said = process.communicate(timeout=60)[1]
    # Interrupted workers may print lines of their own, before or after.
    assert process.returncode == want[0]
    assert sum(line.startswith(want[1]) for line in said.splitlines()) == 1
    assert groups.gone(process)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--model.lr", "0.5"), "made with model.lr=0.01, not 0.5"),
        (("--trainer.max_epochs", "9"), "trainer.max_epochs=3, not 9"),
        (("--seed_everything", "9"), "seed_everything=3, not 9"),
        (("--data.horizon", "2"), "data.horizon=1, not 2"),
    ],
)
def test_resuming_with_other_settings_is_refused(option, words, folder):
    before = (folder / "config.yaml").read_text()
    assert words in refused("fit", "--run", folder, "--resume", *option)
    assert (folder / "config.yaml").read_text() == before


def test_resuming_with_data_that_moved_is_allowed(folder):
    assert run("fit", "--run", folder, "--resume", "--data.root", "elsewhere")[0] == 0


def test_damaged_checkpoint_costs_one_epoch_and_one_line(folder):
    last = folder / "checkpoints" / "last.ckpt"
    undisturbed, table = weights(folder), (folder / "metrics.csv").read_text()
    last.write_bytes(last.read_bytes()[:-1])
    (folder / "metrics.csv").unlink()
    code, _, err = run("fit", "--run", folder, "--resume")
    assert code == 0
    (line,) = [text for text in err.splitlines() if text.startswith("warning")]
    assert line.startswith(f"warning: {last}: ")
    assert line.endswith("; continuing from previous.ckpt")
    assert (folder / "metrics.csv").read_text() == table
    again = weights(folder)
    assert all(torch.equal(again[name], undisturbed[name]) for name in again)


def test_damaged_checkpoint_never_replaces_the_previous_one(folder, monkeypatch):
    last = folder / "checkpoints" / "last.ckpt"
    undisturbed = Path(shutil.copy(last, last.with_name("undisturbed.ckpt")))
    last.write_bytes(last.read_bytes()[:-9])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Stopped where the next checkpoint would be written.
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", stop)
    assert run("fit", "--run", folder, "--resume")[0] != 0
    monkeypatch.undo()
    last.write_bytes(last.read_bytes()[:-9])
    assert run("fit", "--run", folder, "--resume")[0] == 0
    again, once = weights(folder), weights(folder, undisturbed.stem)
    assert all(torch.equal(again[name], once[name]) for name in once)
    weights(folder, "previous")


def test_training_stops_at_the_first_loss_that_is_not_finite(config, tmp_path):
    options = ("--model.net.break_at", 8, "--trainer.default_root_dir", tmp_path / "run")
    assert "epoch 1, step 7: the loss is nan" in refused("fit", "-c", config, *options)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    assert all(value.isfinite().all() for value in last["state_dict"].values())
