import csv
import json

import numpy as np
import pytest

from vidreason import cli
from vidreason.perception.store import Prepared, with_instances
from vidreason.perception.video import Video
from vidreason.results.forecasts import read_forecasts
from vidreason.scenes.jaad import read_video
from vidreason.scenes.scene import KINDS


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert cli.main(["demo", "--out", str(out), "--videos", "20"]) == 0
    return out


def test_demo_leaves_a_picture_and_a_table(demo):
    assert (demo / "forecasts.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((demo / "run" / "evaluation" / "metrics.json").read_text())
    scores = table["runs"]["run"]["splits"]["all"]["scores"]
    assert {"run", "majority", "box trees"} <= set(scores)


def test_demo_follows_what_is_in_a_film(demo):
    (clip,) = (demo / "streets" / "JAAD_clips").iterdir()
    prepared = Prepared(demo / "store" / f"{clip.stem}.arrow")
    assert Video(clip).length == prepared.length
    scene = prepared.scene()
    assert {"person", "vehicle"} <= {KINDS[k] for k in scene.kind}
    assert (demo / "instances.png").read_bytes().startswith(b"\x89PNG")
    # It fits the annotation: the same frames, and nearly everybody who is seen whole is found.
    annotated = read_video(demo / "streets", clip.stem)
    both = with_instances(annotated, prepared)
    shown = np.repeat(annotated.kind == 0, np.diff(annotated.offsets))
    shown &= annotated.cues["occlusion"] == 0
    assert (both.image[: len(shown)][shown] != 0).any(1).mean() > 0.95


def test_demo_takes_clips_apart(demo):
    for name in ("clip_00000.png", "clip_00003.gif"):
        assert (demo / "digits" / "filmstrips" / name).stat().st_size > 1000
    with (demo / "digits" / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    # Components at rest in the middle are 5 px off; one that follows either digit half of it.
    assert float(last["val/separation"]) < 2


def test_demo_shows_forecasts_of_the_weights_that_ship(demo):
    (clip,) = (demo / "streets" / "JAAD_clips").iterdir()
    found = read_forecasts(demo / "shipped" / clip.stem / "forecasts.parquet")
    assert found.meta["model"] == "jaad_all_boxes" and len(found.table) > 50
    assert Video(demo / "shipped" / clip.stem / "overlay.mp4").length == Video(clip).length
    strips = demo / "shipped" / "digits" / "filmstrips"
    assert (strips / "clip_00000.png").read_bytes().startswith(b"\x89PNG")
    page = (demo / "report.html").read_text()
    assert all(word in page for word in ("likeliest to cross", "box trees", "component"))


def test_demo_replaces_a_demo_only(demo, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "holds something that is not a demo; give another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_demo_asks_for_enough_streets(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--videos", "3"]) == 1
    assert "--videos: 3 is too few to learn from; give 20 or more" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
