"""Weights for distribution: equal predictions, and no paths of the machine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.intent.predictions import read_predictions
from vidreason.runs import weights
from vidreason.runs.configs import find_config
from vidreason.runs.train import load_run, load_weights
from vidreason.simulation.street import write_street


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained on simulated streets."""
    base = tmp_path_factory.mktemp("weights")
    write_street(base / "streets", 12)
    root = f"--data.root={base / 'streets'}"
    out = f"--trainer.default_root_dir={base / 'run'}"
    few = ("--trainer.max_epochs=2", "--model.net.init_args.hidden=8", "--data.batch_size=64")
    quiet = "--trainer.enable_progress_bar=false"
    assert cli.main(["fit", "-c", "demo_streets", root, out, *few, quiet]) == 0
    return base / "run"


@pytest.fixture(scope="module")
def folder(run):
    """The exported weights of that run."""
    out = run.parent / "mine"
    root = str(run.parent / "streets")
    assert cli.main(["export", str(run), "--out", str(out), "--root", root]) == 0
    return out


@pytest.fixture
def broken(folder, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def test_weights_predict_as_the_run_does(run, folder, tmp_path):
    root = str(run.parent / "streets")
    quiet = "--trainer.enable_progress_bar=false"
    assert cli.main(["predict", "--run", str(run), "--data.root", root, quiet]) == 0
    out = tmp_path / "out"
    line = ["predict", "--weights", str(folder), "--out", str(out), "--data.root", root, quiet]
    assert cli.main(line) == 0
    one, two = (read_predictions(f / "predictions.parquet") for f in (run, out))
    assert np.array_equal(one["probability"], two["probability"])
    assert one.meta["threshold"] == two.meta["threshold"]
    ours, theirs = load_run(run), load_weights(folder)
    assert not torch.equal(ours.net.near.weight, ours.averaged.module.near.weight)
    assert torch.equal(theirs.net.near.weight, ours.averaged.module.near.weight)


def test_card_has_the_metrics_and_no_paths(run, folder, capsys):
    card = weights.read_card(folder)
    root = str(run.parent / "streets")
    line = ["test", "--weights", str(folder), "--out", str(run.parent / "t"), "--data.root", root]
    assert cli.main(line) == 0
    assert "mine agrees with its card" in capsys.readouterr().out
    assert card["figures"][0]["metrics"]["auc"] > 0.5 and card["figures"][0]["on"]["forecasts"]
    assert card["bytes"] == (folder / weights.MODEL).stat().st_size
    for name in (weights.CONFIG, weights.CARD, weights.README):
        assert str(run.parent) not in (folder / name).read_text()
    assert "--trainer.max_epochs=2" in card["train"]


def test_other_metrics_than_those_of_the_card_are_an_error(run, broken):
    card = json.loads((broken / weights.CARD).read_text())
    card["figures"][0]["metrics"]["auc"] -= 0.01
    (broken / weights.CARD).write_text(json.dumps(card))
    line = ["test", "--weights", str(broken), "--out", str(broken / "t")]
    assert cli.main([*line, "--data.root", str(run.parent / "streets")]) == 1


def test_metrics_are_compared_on_the_same_test_data_only():
    card = {"name": "some", "figures": [{"on": {"clips": 5}, "metrics": {"mse": 2.0}}]}
    assert weights.compare(card, {"on": {"clips": 9}, "metrics": {"mse": 3.0}}) == {}
    assert weights.compare(card, {"on": {"clips": 5}, "metrics": {"mse": 2.001}}) == {
        "mse": (2.001, 2.0)
    }
    lost = {"name": "some", "figures": [{"on": {}, "metrics": {"position_error": 1.0}}]}
    assert weights.compare(lost, {"on": {}, "metrics": {"position_error": 1.1}})
    with pytest.raises(DataError, match="position_error is 1.2000"):
        weights.compare(lost, {"on": {}, "metrics": {"position_error": 1.2}})
    with pytest.raises(DataError, match=r"some: mse is 2.0200, the card says 2.0000"):
        weights.compare(card, {"on": {"clips": 5}, "metrics": {"mse": 2.02}})


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "does not have the checksum": lambda f: _flip(f / weights.MODEL),
    "no such file": lambda f: (f / weights.MODEL).unlink(),
    "has no figures": lambda f: (f / weights.CARD).write_text('{"name": "a", "task": "b"}'),
    "cannot be read": lambda f: (f / weights.CARD).write_text("{"),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_damaged_weights_are_refused(broken, tiny_root, problem, capsys):
    DAMAGE[problem](broken)
    options = ["--out", str(broken / "o"), "--data.root", str(tiny_root)]
    assert cli.main(["predict", "--weights", str(broken), *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert problem in line and "broken" in line
    assert not (broken / "o").exists()


def test_unknown_weights_and_two_sources_are_refused(run, capsys):
    for options in (["--weights", "nobody"], ["--run", str(run), "--weights", "jaad_all"]):
        assert cli.main(["test", *options]) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "'nobody' not found; give a folder of weights, or one of jaad_all" in first
    assert "--run: excludes --weights" in second


def test_export_never_writes_among_other_files(run, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert cli.main(["export", str(run), "--out", str(tmp_path)]) == 1
    assert "give another --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_only_the_averaged_weights_are_stored():
    task = load_weights("moving_mnist")
    stored = weights.find_weights("moving_mnist")
    assert (stored / weights.MODEL).stat().st_size < 1.5e6
    names = set(task.state_dict())
    assert {"net.memory", "averaged.module.memory"} <= names  # only for training, made anew
    assert not task.net.memory.any()


def test_shipped_weights_are_a_few_megabytes():
    assert {"jaad_all", "jaad_all_boxes", "moving_mnist"} == set(weights.shipped())
    assert sum(p.stat().st_size for p in weights._SHIPPED.rglob("*")) < 4e6
    for name in weights.shipped():
        card = weights.read_card(weights.find_weights(name))
        assert card["name"] == name and card["about"] and card["licence"] == "MIT"
        assert find_config(card["train"].split()[3]).is_file()


@pytest.mark.parametrize("name", ["jaad_all", "jaad_all_boxes"])
def test_shipped_intent_weights_reproduce_their_card(name, real_root, tmp_path, capsys):
    line = ["test", "--weights", name, "--out", str(tmp_path), "--data.root", str(real_root)]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert f"{name} agrees with its card" in out and "auc: 0.9" in out


@pytest.mark.slow
def test_shipped_decomposition_reproduces_its_card(real_digits, tmp_path, capsys):
    line = ["test", "--weights", "moving_mnist", "--out", str(tmp_path), "--data.test_clips=500"]
    assert cli.main([*line, "--data.root", str(real_digits)]) == 0
    out = capsys.readouterr().out
    assert "moving_mnist agrees with its card" in out and "mse: 26.9" in out


def test_the_hubs_mixin_saves_and_loads_a_folder(folder, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from vidreason.runs.hub import Weights

    Weights(folder).save_pretrained(tmp_path / "copy")
    back = Weights.from_pretrained(tmp_path / "copy")
    for name in weights.FILES:
        assert (back.folder / name).read_bytes() == (folder / name).read_bytes()
    load_weights(back.folder)


def test_unreachable_hub_is_one_line(monkeypatch, capsys, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["predict", "--weights", "nobody/nothing", "--out", str(tmp_path / "o")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "'nobody/nothing' is not available from the hub" in line
