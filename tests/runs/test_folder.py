"""The files of a run folder, and when a run may use one."""

import csv
import json
import shutil

import pytest
import torch
from make.command import refused, run
from make.tiny_run import TinyNet, on_jaad, weights, write

from vidreason.intent.data import IntentData
from vidreason.intent.predictions import read_predictions
from vidreason.runs.folder import check_free


def test_run_folder_has_everything_to_repeat_the_run(finished):
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


def test_checkpoints_have_options_but_no_hyper_parameters_to_build_from(finished):
    checkpoint = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert not {"hyper_parameters", "datamodule_hyper_parameters"} & set(checkpoint)
    assert checkpoint["vidreason"]["model.net"] == "vidreason.tiny.TinyNet"
    assert checkpoint["vidreason"]["data.features"] == ["box", "ego"]


def test_fit_never_mixes_two_runs(config, folder, tmp_path):
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    assert "--resume" in refused("fit", "-c", config, "--trainer.default_root_dir", folder)
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert "default_root_dir: is not set" in refused("fit", "-c", config)
    file = write(tmp_path / "file", "")
    assert "is a file" in refused("fit", "-c", config, "--trainer.default_root_dir", file)
    # A run that ended before its first checkpoint has left nothing worth keeping.
    shutil.rmtree(folder / "checkpoints")
    check_free(folder)
    assert "no such checkpoint" in refused("fit", "--run", folder, "--resume")


def test_fit_says_what_it_trains(config, tmp_path):
    place = ("--trainer.default_root_dir", tmp_path / "run", "--trainer.max_epochs", 1)
    _, out, _ = run("fit", "-c", config, *place)
    count = 3 * 4 + 4 + 4 * 17 + 17
    assert out.startswith(f"training TinyNet ({count} parameters), run folder {tmp_path / 'run'}\n")
    assert "FLOPs" not in out and "\nbest val/auc " in out


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
    expected = logits.sigmoid().detach().numpy()
    assert sorted(found["probability"]) == pytest.approx(sorted(expected))
    assert len(found.table) == len(module.windows["test"]) == found.meta["n_expected"]
    assert found.meta["threshold"] == float(state["threshold"]) and found.meta["seed"] == 3
    assert (found.meta["split"], found.meta["features"]) == ("test", ["box"])

    assert run("predict", "--run", moved, "--data.predict_split", "val")[0] == 0
    assert read_predictions(moved / "predictions-val.parquet").meta["split"] == "val"
