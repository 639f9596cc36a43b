"""`vidreason demo`: what it writes, and which folders it refuses."""

import csv
import json

import numpy as np
import pytest

from vidreason import cli
from vidreason import demo as module
from vidreason.intent.data import IntentData
from vidreason.intent.predictions import prediction_columns, write_predictions
from vidreason.perception.store import Prepared, with_instances
from vidreason.perception.video import Video
from vidreason.results.forecasts import read_forecasts
from vidreason.scenes.jaad import read_video
from vidreason.scenes.scene import KINDS
from vidreason.simulation.street import write_street

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert cli.main(["demo", "--out", str(out), "--videos", "20"]) == 0
    return out


@slow
def test_the_demo_evaluates_and_draws_its_predictions(demo):
    assert (demo / "forecasts.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((demo / "run" / "evaluation" / "metrics.json").read_text())
    scores = table["runs"]["run"]["splits"]["all"]["scores"]
    assert {"run", "majority", "box trees"} <= set(scores)


@slow
def test_the_demo_tracks_the_instances_of_a_film(demo):
    (clip,) = (demo / "streets" / "JAAD_clips").iterdir()
    prepared = Prepared(demo / "store" / f"{clip.stem}.arrow")
    assert Video(clip).length == prepared.length
    scene = prepared.scene()
    assert {"person", "vehicle"} <= {KINDS[k] for k in scene.kind}
    assert (demo / "instances.png").read_bytes().startswith(b"\x89PNG")
    # It matches the annotation: the same frames, and nearly all unoccluded pedestrians are found.
    annotated = read_video(demo / "streets", clip.stem)
    both = with_instances(annotated, prepared)
    shown = np.repeat(annotated.kind == 0, np.diff(annotated.offsets))
    shown &= annotated.cues["occlusion"] == 0
    assert (both.image[: len(shown)][shown] != 0).any(1).mean() > 0.95


@slow
def test_the_demo_learns_to_decompose_clips(demo):
    for name in ("clip_00000.png", "clip_00003.gif"):
        assert (demo / "digits" / "filmstrips" / name).stat().st_size > 1000
    with (demo / "digits" / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    # Static components in the centre are 5 px off, one that tracks either digit half of that.
    assert float(last["val/separation"]) < 2


@slow
def test_the_demo_predicts_with_the_shipped_weights(demo):
    (clip,) = (demo / "streets" / "JAAD_clips").iterdir()
    found = read_forecasts(demo / "shipped" / clip.stem / "forecasts.parquet")
    assert found.meta["model"] == "jaad_all_boxes" and len(found.table) > 50
    assert Video(demo / "shipped" / clip.stem / "overlay.mp4").length == Video(clip).length
    strips = demo / "shipped" / "digits" / "filmstrips"
    assert (strips / "clip_00000.png").read_bytes().startswith(b"\x89PNG")
    page = (demo / "report.html").read_text()
    assert all(word in page for word in ("highest probability", "box trees", "component"))


def test_the_demo_draws_the_most_confident_right_and_wrong_predictions(tmp_path, monkeypatch):
    root, file = write_street(tmp_path / "streets", 6, split=(1, 1, 4)), tmp_path / "p.parquet"
    data = IntentData(["box"], root=str(root))
    data.setup("predict")
    windows, scenes = data.windows["test"], data.scenes["test"]
    probability = np.random.default_rng(0).random((len(windows), 1)).astype(np.float32)
    meta = {"dataset": "jaad", "protocol": "benchmark", "subset": "all", "split": "test"}
    meta |= {"features": ["box"], "oracle": False, "threshold": 0.5, "n_expected": len(windows)}
    write_predictions(file, prediction_columns(windows, scenes, probability), meta)
    drawn = []
    monkeypatch.setattr(module, "draw_windows", lambda *arguments: drawn.append(arguments))
    module._draw_predictions(tmp_path / "x.png", file, root)
    ((_, _, _, rows, chances),) = drawn
    assert chances == probability[rows, 0].tolist()
    crosses = windows.label[:, -1] == 1
    assert crosses[rows].tolist() == [True, False, True, False]
    p = probability[:, 0]
    wanted = [p[crosses].max(), p[~crosses].min(), p[crosses].min(), p[~crosses].max()]
    assert chances == [float(value) for value in wanted]


def test_the_demo_replaces_nothing_but_a_demo(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "contains files that are not of a demo; give another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_the_demo_needs_enough_streets(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--videos", "3"]) == 1
    assert "--videos: must be at least 20, got 3; correct the option" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
