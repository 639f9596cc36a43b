import csv
import json

import pytest

from vidreason import cli


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


def test_demo_takes_clips_apart(demo):
    for name in ("clip_00000.png", "clip_00003.gif"):
        assert (demo / "digits" / "filmstrips" / name).stat().st_size > 1000
    with (demo / "digits" / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    # Components at rest in the middle are 5 px off; one that follows either digit half of it.
    assert float(last["val/separation"]) < 2


def test_demo_replaces_a_demo_only(demo, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "holds something that is not a demo; give another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_demo_asks_for_enough_streets(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--videos", "3"]) == 1
    assert "--videos: 3 is too few to learn from; give 20 or more" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
