"""Whole runs of a tiny network."""

import csv
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

from make import groups, tiny_run
from make.tiny_run import CONFIG
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import HeteroData

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.predictions import read_predictions
from vidreason.runs.folder import CheckpointFiles

def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def refused(*arguments: object) -> str:
    """The one line with which a command fails."""
    code, _, err = run(*arguments)
    assert code in (1, 2) and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def write(path: Path, config: object) -> Path:
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return path


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def on_jaad(root: Path, **options: object) -> dict:
    """The same network on the data of a folder."""
    data = {"features": ["box"], "root": str(root), "subset": "all", "batch_size": 2, **options}
    return {**CONFIG, "data": {"class_path": "IntentData", "init_args": data}}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(tmp_path_factory.mktemp("config") / "tiny.yaml", CONFIG)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run of three epochs; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    options = ("--trainer.default_root_dir", folder, "--trainer.logger", "null")
    assert run("fit", "-c", config, *options)[0] == 0
    return folder


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run of eight epochs that nothing stopped; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    options = ("--trainer.default_root_dir", folder, "--trainer.max_epochs", 8)
    assert run("fit", "-c", config, *options)[0] == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """The same run, to be written to."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module `trap` that leaves a trace when it is imported."""
    trace = tmp_path / "trace"
    (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return trace


def test_run_folder_holds_everything_to_repeat_the_run(finished):
    files = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert any("tfevents" in name for name in events)
    assert files - events == {
        "config.yaml",
        "run.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
    }
    made = json.loads((finished / "run.json").read_text())
    assert made["seed"] == 3 and made["versions"]["torch"] == torch.__version__
    assert made["command"].startswith("vidreason fit -c ") and made["threads"] >= 1
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [(r["epoch"], r["step"]) for r in rows] == [("0", "6"), ("1", "12"), ("2", "18")]
    assert all(0 <= float(r["val/auc"]) <= 1 and float(r["train/loss"]) > 0 for r in rows)


def test_best_checkpoint_is_of_the_epoch_with_the_best_monitor(finished):
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    aucs = [float(row["val/auc"]) for row in rows]
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == aucs.index(max(aucs))


def test_checkpoints_have_no_hyper_parameters_to_build_from(finished):
    checkpoint = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert not {"hyper_parameters", "datamodule_hyper_parameters"} & set(checkpoint)
    assert checkpoint["vidreason"]["model.net"] == "vidreason.tiny.TinyNet"
    assert checkpoint["vidreason"]["data.features"] == ["box", "ego"]


def test_same_command_gives_the_same_weights(config, finished, tmp_path):
    assert run("fit", "-c", config, "--trainer.default_root_dir", tmp_path / "again")[0] == 0
    again, once = weights(tmp_path / "again"), weights(finished)
    assert all(torch.equal(again[name], once[name]) for name in once)
    other = ("--trainer.default_root_dir", tmp_path / "other", "--seed_everything", 4)
    assert run("fit", "-c", config, *other)[0] == 0
    assert not torch.equal(
        weights(tmp_path / "other")["net.first.weight"], once["net.first.weight"]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_at_any_time_a_run_resumes_to_the_same_weights(
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
    cut, once = weights(tmp_path / "cut"), weights(whole)
    assert all(torch.equal(cut[name], once[name]) for name in once)
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


def test_an_epoch_without_its_checkpoint_is_repeated(config, finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    cut_in_second_epoch(monkeypatch, "fit", "-c", config, "--trainer.default_root_dir", folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3

    # As if the first epoch had been the best that there can be.
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    with (folder / "metrics.csv").open() as file:
        auc = float(next(csv.DictReader(file))["val/auc"])
    assert checkpoint["callbacks"]["RunFolder"]["best"] == auc
    checkpoint["callbacks"]["RunFolder"]["best"] = 1.0
    torch.save(checkpoint, last)
    best = weights(folder, "best")
    # As if it had been stopped before the best checkpoint was brought up to date.
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert run("fit", "--run", folder, "--resume")[0] == 0
    assert (folder / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()
    again = weights(folder, "best")
    assert all(torch.equal(again[name], best[name]) for name in best)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_resumes_to_the_same_weights(
    workers, tiny_root, tmp_path, monkeypatch
):
    config = write(tmp_path / "c.yaml", on_jaad(tiny_root))
    command = ("fit", "-c", config, "--trainer.default_root_dir")
    assert run(*command, tmp_path / "whole")[0] == 0
    cut_in_second_epoch(monkeypatch, *command, tmp_path / "cut", "--data.workers", workers)
    assert run("fit", "--run", tmp_path / "cut", "--resume")[0] == 0
    cut, once = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(cut[name], once[name]) for name in once)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_that_load_data_end_with_the_run_and_none_is_missed_silently(
    number, tiny_root, tmp_path
):
    config = write(tmp_path / "c.yaml", on_jaad(tiny_root))
    options = ["--data.workers=2", "--trainer.max_epochs=10000"]
    options.append(f"--trainer.default_root_dir={tmp_path / 'run'}")
    process = groups.start([tiny_run.__file__, "fit", "-c", config, *options])
    while not (tmp_path / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    if number == signal.SIGKILL:
        # They come and go with each epoch, and one that is about to go does no harm.
        while process.poll() is None:
            for child in groups.children(process):
                with suppress(ProcessLookupError):
                    os.kill(child, number)
        want = (1, "error: data.workers: a process that loads data died; set --data.workers 0, ")
    else:
        os.killpg(process.pid, number)  # as a terminal and a scheduler do
        want = (128 + number, f"stopped by {number.name}; with --resume it goes on")
    said = process.communicate(timeout=60)[1]
    # Processes that are cut off may have a say of their own, before or after.
    assert process.returncode == want[0]
    assert sum(line.startswith(want[1]) for line in said.splitlines()) == 1
    assert groups.gone(process)


def test_fit_never_mixes_two_runs(config, folder, tmp_path):
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    assert "--resume" in refused("fit", "-c", config, "--trainer.default_root_dir", folder)
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert "default_root_dir" in refused("fit", "-c", config)
    file = write(tmp_path / "file", "")
    assert "is a file" in refused("fit", "-c", config, "--trainer.default_root_dir", file)
    # A run that ended before its first checkpoint has left nothing worth keeping.
    shutil.rmtree(folder / "checkpoints")
    assert "no such checkpoint" in refused("fit", "--run", folder, "--resume")
    assert run("fit", "--run", folder)[0] == 0


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
    assert run("fit", "--run", folder, "--resume", "--data.root", "elsewhere")[0] == 0


def test_predictions_are_those_of_the_best_weights(tiny_root, tmp_path):
    config = write(tmp_path / "c.yaml", on_jaad(tiny_root))
    assert run("fit", "-c", config, "--trainer.default_root_dir", tmp_path / "run")[0] == 0
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    code, out, _ = run("predict", "--run", moved)
    assert code == 0 and out.splitlines()[-1] == str(moved / "predictions.parquet")

    found = read_predictions(moved / "predictions.parquet")
    state = weights(moved, "best")
    net = TinyNet(["box"], 16, 1)
    prefix = "averaged.module."
    net.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    module = IntentData(["box"], root=str(tiny_root))
    module.setup("test")
    logits = torch.cat([net.eval()(graph)[:, -1] for graph in module.test_dataloader()])
    assert np.sort(found["probability"]) == pytest.approx(np.sort(logits.sigmoid().detach()))
    assert len(found.table) == len(module.windows["test"]) == found.meta["n_expected"]
    assert found.meta["threshold"] == float(state["threshold"]) and found.meta["seed"] == 3
    assert (found.meta["split"], found.meta["features"]) == ("test", ["box"])

    assert run("predict", "--run", moved, "--data.predict_split", "val")[0] == 0
    assert read_predictions(moved / "predictions-val.parquet").meta["split"] == "val"


def test_checkpoints_can_be_chosen(folder, tmp_path):
    other = shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "other.ckpt")
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt: no such checkpoint" in refused("test", "--run", folder)
    for choice in ("last", other):
        code, out, _ = run("test", "--run", folder, "--ckpt_path", choice)
        assert code == 0 and "test/auc" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--model.net.hiden", "3"],
            "model.net.hiden: no such option of TinyNet; did you mean 'hid",
        ),
        (["--model.lrr", "3"], "model.lrr: no such option of IntentTask; did you mean 'lr'?"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'?"),
        (["--trainer.max_epochs", "abc"], "trainer.max_epochs: is 'abc'; expected int"),
        (
            ["--model.schedule", "cos"],
            "model.schedule: is 'cos'; expected one of ['one_cycle', 'co",
        ),
        (["--model.lr", "-1"], "model.lr: -1.0 is not within"),
        (["--model.lr", ".nan"], "model.lr: nan is not within"),
        (["--seed_everything", "-1"], "seed_everything: "),
        (["--trainer.precision", "7"], "trainer.precision: is '7'"),
        (["--trainer.devices", "0"], "devices"),
        (["--model.net", "TinyNett"], "model.net: no class 'TinyNett'; did you mean 'TinyNet'?"),
        (["--model.net.features", "[a]"], "model.net.features: follows from data.features"),
        (["--data.init_args.seed=1"], "data.init_args.seed: follows from seed_everything"),
        (["-c", "/no.yaml"], "config: File does not exist: '/no.yaml'"),
        (["-c", "http://127.0.0.1:1/c.yaml"], "File does not exist"),
        (["--run", "nowhere"], "--run: 'nowhere' has no config.yaml"),
        (["--bogus"], "bogus: no such option"),
        (["bogus"], "unrecognized arguments: bogus"),
    ],
)
def test_wrong_option_is_named_in_one_line(arguments, words, config, tmp_path):
    folder = ("--trainer.default_root_dir", tmp_path / "run")
    assert words in refused("fit", "-c", config, *folder, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hidden:", "hiden:", "did you mean 'hidden'?"),
        ("max_epochs:", "max_epoch:", "did you mean 'trainer.max_epochs'?"),
        ("seed_everything:", "seed_everythin:", "did you mean 'seed_everything'?"),
        ("lr: 0.01", "lr: high", "model.lr: is 'high'; expected float"),
        ("lr: 0.01", "lr: 0.01\n    lr: 0.02", "model.init_args.lr: line 11: is given twice"),
        ("lr: 0.01", "horizon: 2", "follows from data.horizon"),
        ("hidden: 4", "observed: 4", "follows from data.protocol"),
        ("trainer:", "x: &x 1\ntrainer: *x\nz:", "is a YAML alias"),
        ("trainer:", "trainer: [", "c.yaml: line 18: is no YAML (expected"),
    ],
)
def test_wrong_configuration_is_named_in_one_line(old, new, words, tmp_path):
    text = yaml.safe_dump(CONFIG)
    assert old in text
    config = write(tmp_path / "c.yaml", text.replace(old, new))
    assert words in refused("fit", "-c", config, "--trainer.default_root_dir", tmp_path / "run")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "trap.Net"],
        ["--model.net", "trap.Net"],
        ["--model.net.class_path=trap.Net"],
        ["--model.net", '{"class_path": "trap.Net"}'],
        ["--trainer.callbacks+=trap.Net"],
        ["--trainer.logger", "trap.Net"],
        ["--model.help", "trap.Net"],
        ["--model.net.help", "trap.Net"],
        ["-c", "net.yaml"],
        ["--model.net", "only.yaml"],
    ],
)
def test_foreign_classes_are_refused_before_they_are_imported(
    arguments, config, trap, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.yaml", yaml.safe_dump(CONFIG).replace("TinyNet", "trap.Net"))
    write(tmp_path / "only.yaml", "class_path: trap.Net")
    refused("fit", "-c", config, "--trainer.default_root_dir", "run", *arguments)
    assert not trap.exists() and "trap" not in sys.modules


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_no_checkpoint_runs_code(folder, trap, tmp_path, monkeypatch):
    # This variable makes torch forget its default; only saying it aloud helps.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = folder / "checkpoints" / "best.ckpt"
    good = torch.load(path, weights_only=True)
    torch.save({**good, "evil": Evil(trap)}, path)
    assert "more than tensors" in refused("test", "--run", folder)
    path.write_bytes(pickle.dumps(Evil(trap)))
    assert "best.ckpt: is damaged or no checkpoint" in refused("test", "--run", folder)
    named = {"_class_path": "trap.Net", "_instantiator": "trap.Net", "class_path": "trap.Net"}
    torch.save({**good, "hyper_parameters": named}, path)
    assert run("test", "--run", folder, "--ckpt_path", path)[0] == 0
    assert not trap.exists() and "trap" not in sys.modules


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """One wrong bit in the first weight of the network; torch alone would not notice."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weight = max(archive.infolist(), key=lambda f: f.file_size if "/data/" in f.filename else 0)
        stored = archive.read(weight)
    place = data.index(stored)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def foreign(data: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "is damaged"),
        (flip, "wrong checksum"),
        (foreign, "is not a checkpoint of vidreason"),
        (lambda data: b"", "is damaged"),
        (lambda data: b"text", "is damaged"),
    ],
)
def test_damaged_checkpoint_is_named_in_one_line(damage, words, folder):
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    path.with_name("previous.ckpt").write_bytes(b"")
    line = refused("fit", "--run", folder, "--resume")
    assert words in line and f"{path}:" in line and "and so is previous.ckpt; restore it" in line
    assert words in refused("predict", "--run", folder, "--ckpt_path", path)
    path.with_name("previous.ckpt").unlink()
    assert "there is no other" in refused("fit", "--run", folder, "--resume")


def inside(member: str) -> Callable[[bytes], bytes]:
    """One wrong bit in a member of the archive, or in its list of members."""

    def wrong(data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            info = next((i for i in archive.infolist() if i.filename.endswith(member)), None)
            place = archive.start_dir + 20 if info is None else info.header_offset + 100
        return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]

    return wrong


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(folder, monkeypatch):
    last = folder / "checkpoints" / "last.ckpt"
    undisturbed, table = weights(folder), (folder / "metrics.csv").read_text()
    last.write_bytes(last.read_bytes()[:-9])
    (folder / "metrics.csv").unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Stopped where the next checkpoint was to be written.
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", stop)
    assert run("fit", "--run", folder, "--resume")[0] != 0
    monkeypatch.undo()
    last.write_bytes(last.read_bytes()[:-9])
    assert run("fit", "--run", folder, "--resume")[0] == 0
    again = weights(folder)
    assert all(torch.equal(again[name], undisturbed[name]) for name in again)
    assert (folder / "metrics.csv").read_text() == table
    weights(folder, "previous")


@pytest.mark.parametrize(
    "damage",
    [
        *(cut, flip, foreign, inside("data.pkl"), inside("no member")),
        *(lambda data: data[:0], lambda data: data[:1], lambda data: data[:-1]),
    ],
)
def test_a_damaged_checkpoint_costs_one_epoch_and_one_line(damage, folder):
    last = folder / "checkpoints" / "last.ckpt"
    shutil.copy(last, last.with_name("undisturbed.ckpt"))
    table = (folder / "metrics.csv").read_text()
    last.write_bytes(damage(last.read_bytes()))
    code, _, err = run("fit", "--run", folder, "--resume")
    assert code == 0
    (line,) = [text for text in err.splitlines() if text.startswith("warning")]
    assert line.startswith(f"warning: {last}: ") and line.endswith("; going on from previous.ckpt")
    assert (folder / "metrics.csv").read_text() == table
    again, once = weights(folder), weights(folder, "undisturbed")
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_checkpoint_of_another_model_is_refused(folder):
    assert "model.net.hidden=4, not 5" in refused("test", "--run", folder, "--model.net.hidden", 5)
    assert "data.features=" in refused("test", "--run", folder, "--data.features", "[box]")
    path = folder / "checkpoints" / "best.ckpt"
    good = torch.load(path, weights_only=True)
    state = good["state_dict"]
    for changed, words in (
        ({**state, "net.first.bias": torch.zeros(7)}, "weight net.first.bias is (7,)"),
        ({**state, "net.more": torch.zeros(7)}, "weight net.more is (7,), the model's is missing"),
        ({k: v for k, v in state.items() if k != "threshold"}, "weight threshold is missing"),
        ({**state, "net.first.bias": torch.full((4,), torch.nan)}, "net.first.bias is not finite"),
    ):
        torch.save({**good, "state_dict": changed}, path)
        assert words in refused("test", "--run", folder)


def test_training_stops_at_the_first_loss_that_is_not_finite(config, tmp_path):
    options = ("--model.net.break_at", 8, "--trainer.default_root_dir", tmp_path / "run")
    assert "epoch 1, step 7: the loss is nan" in refused("fit", "-c", config, *options)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_checkpoint_that_is_not_finite_replaces_nothing(tmp_path):
    model = pl.LightningModule()
    model.weight = nn.Parameter(torch.ones(2))
    files = CheckpointFiles(model, {}, set())
    path = tmp_path / "a" / "last.ckpt"
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2"}
    files.save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    model.weight.data[1] = torch.inf
    with pytest.raises(DataError, match="weight weight is not finite"):
        files.save_checkpoint({**checkpoint, "state_dict": model.state_dict()}, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["last.ckpt"]
    assert torch.equal(files.load_checkpoint(path)["state_dict"]["weight"], torch.ones(2))

