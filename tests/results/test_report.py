"""The report: sections, tables and cases of runs, decompositions and videos."""

import base64
import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from jinja2 import Environment
from make.forecasts import walkers

from vidreason import cli
from vidreason.intent.predictions import read_predictions
from vidreason.perception.video import Video
from vidreason.results import breakdown, cases, forecasts, report_intent
from vidreason.results.figures import Drawn
from vidreason.results.report_video import video_part
from vidreason.scenes.scene import KINDS

QUICK = ("--bootstrap", "20", "--cases", "2", "--clips", "4")


def sections(page):
    """Titles of the sections of a page."""
    return re.findall(r'data-title="([^"]*)"', page)


def cards(page):
    """Cards of a page: the JSON values of all groups."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [card for group in found for card in json.loads(group)]


def test_a_page_of_runs_has_every_section(page_of_runs, evil):
    page = page_of_runs.read_text()
    first = ["Summary", "Paired differences", "Curves"]
    assert sections(page) == [*first, "Metrics by subgroup", "Cases", "All pedestrians"]
    for text in ("run0", "run1", "majority", "box trees", "run1 minus run0", "false negatives"):
        assert f">{text}" in page
    assert page.count("<figure>") > 8 and page.count("data:image/svg+xml") == page.count("<figure>")
    assert evil not in page and html.escape(evil) in page
    shown = cards(page)
    assert any(evil in card["name"] for card in shown)
    assert any(other["change"] for card in shown for other in card["others"])
    assert all(set(card["runs"]) == {"run1", "box trees"} for card in shown)
    assert page_of_runs.stat().st_size < 8e6


def test_a_page_of_clips_has_metrics_and_cards(page_of_clips):
    page = page_of_clips.read_text()
    assert sections(page) == ["Summary", "Curves", "Clips"]
    shown = cards(page)
    assert len(shown) == 6 and page.count("<figure>") == 2
    for card in shown:
        assert len(card["components"]) == len(card["windows"]) == len(card["tints"]) == 2
        assert all(len(window) == card["length"] for window in card["windows"])
        assert card["truth"].startswith("data:image/png;base64,")


def test_cases_show_parts_of_the_video(filmed):
    base, name = filmed
    found = read_predictions(base / "run/predictions-train.parquet")
    matched = breakdown.find_windows(found, base / "jaad")
    rows = np.flatnonzero([video == name for video in found.table["video"].to_pylist()])[[0, -1]]
    clips = base / "jaad/JAAD_clips"
    frames = dict(Video(clips / f"{name}.mp4").frames())
    for case in cases.describe(found, rows.tolist(), {}, matched, None, clips):
        numbers = [int(number) for number in case["pictures"]]
        assert numbers == sorted(numbers) and len(numbers) == 4
        assert (numbers[0], numbers[-1]) == (case["frames"][0], case["frames"][-1])
        x, y, wide, tall = (round(v) for v in case["view"])
        for number, address in case["pictures"].items():
            data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            part = frames[int(number)][y : y + tall, x : x + wide]
            wanted = cv2.resize(part, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(picture.astype(int) - wanted).mean() < 5


def test_subgroups_contain_the_windows_they_describe(runs, streets):
    found = read_predictions(runs[0] / "predictions.parquet")
    matched = breakdown.find_windows(found, streets)
    windows, scenes = matched.windows, matched.scenes
    ids = [scenes[s].track_ids[k] for s, k in zip(windows.scene, windows.track, strict=True)]
    assert [ids[w] for w in matched.window] == found.table["pedestrian"].to_pylist()
    levels = {one.name: one for one in breakdown.factors(matched)}
    some = 0
    for row, w in enumerate(matched.window):
        scene = scenes[windows.scene[w]]
        last = windows.row[w] + windows.observed - 1
        frame = scene.frame[last]
        kind = np.repeat(scene.kind, np.diff(scene.offsets))
        here = (scene.frame == frame) & (kind <= KINDS.index("group"))
        others = ("none", "1 or 2", "1 or 2", "3 to 5", "3 to 5", "3 to 5", "6 or more")
        factor = levels["other pedestrians"]
        assert factor.levels[factor.code[row]] == others[min(here.sum() - 1, 6)]
        factor = levels["crosswalk"]
        assert factor.code[row] == scene.signals["ped_crossing"][frame]
        factor = levels["box height, px at 1080p"]
        tall = (scene.box[last, 3] - scene.box[last, 1]) / scene.height * 1080
        words = factor.levels[factor.code[row]]
        if "to" in words:
            low, high = map(float, words.split(" to "))
            assert low <= tall < high
            some += 1
    assert some


def test_cases_are_the_most_confident_ones_once_per_pedestrian(runs):
    found = read_predictions(runs[0] / "predictions.parquet")
    middle = float(np.median(found["probability"]))
    found = dataclasses.replace(found, meta={**found.meta, "threshold": middle})
    chosen = cases.choose(found, 3)
    cut, p, label = found.meta["threshold"], found["probability"], found["label"]
    for rows in chosen.values():
        assert len(set(found.cluster[rows])) == len(rows) <= 3
    stays = label == 0
    assert p[chosen["false positives"][0]] == p[stays].max()
    assert p[chosen["true negatives"][0]] == p[stays].min()
    for name, crosses, above in (
        ("false negatives", 1, False),
        ("false positives", 0, True),
        ("true positives", 1, True),
        ("true negatives", 0, False),
    ):
        assert all(label[row] == crosses for row in chosen[name])
        assert all((p[row] >= cut) == above for row in chosen[name])


def test_the_table_of_a_curve_has_its_points():
    label = np.array([0, 0, 1, 1])
    curves = {"a": (np.array([0.1, 0.4, 0.35, 0.8]), label)}
    drawn = Drawn(Path("x"), "roc", "t", curves, {}, np.array([0]))
    rows = report_intent._numbers(drawn).rows
    assert [row[0].text for row in rows[:2]] == ["0.00", "0.05"]
    at_half = next(row for row in rows if row[0].text == "0.50")
    assert at_half[1].value == 1.0 and rows[0][1].value <= 0.5
    rows = report_intent._numbers(drawn._replace(kind="calibration")).rows
    assert [(row[1].text, row[3].value, row[4].value) for row in rows] == [
        ("0.1 to 0.2", 0.0, 1.0),
        ("0.3 to 0.4", 1.0, 1.0),
        ("0.4 to 0.5", 0.0, 1.0),
        ("0.8 to 0.9", 1.0, 1.0),
    ]


def test_json_in_a_page_cannot_end_its_script():
    text = Environment(autoescape=True).from_string("{{ x|tojson }}").render(x="</script><b>")
    assert "<" not in text and json.loads(text) == "</script><b>"


def test_a_predictions_file_is_reported_without_the_dataset(runs, monkeypatch, tmp_path):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    copy = shutil.copy(runs[0] / "predictions.parquet", tmp_path / "theirs.parquet")
    out = tmp_path / "page.html"
    assert cli.main(["report", str(copy), "--out", str(out), *QUICK]) == 0
    text = out.read_text()
    assert "Needs the dataset: give --root" in text and "theirs" in text


def test_forecasts_are_reported_by_pedestrian(tmp_path):
    found = forecasts.read_forecasts(walkers(tmp_path / "f.parquet", "1"))
    part = video_part(found, 3, None)
    (sheet,) = part.sections[0].sheets
    assert [row[0].text for row in sheet.rows] == ["1", "2"]
    assert sheet.rows[0][4].value == pytest.approx(59 / 60, abs=1e-3)
    assert sheet.rows[0][6].value == pytest.approx(0.5)
    (group,) = part.sections[1].groups.values()
    assert [case["name"] for case in group] == ["1", "2"]
    assert len(group[0]["frames"]) == 30 and group[0]["target"][-1] == [159, 100, 199, 220]
    assert group[0]["others"][0]["box"][0] == [400, 120, 430, 200]


def test_bad_options_are_one_line(runs, tmp_path, capsys):
    run = str(runs[0])
    for words, problem in {
        (run, "--out", str(tmp_path / "x.pdf")): "does not end in .html",
        (run, "--cases", "0"): "--cases: 0 is too small",
        (str(tmp_path / "none"),): "no such file",
        (run, run): "is given twice",
    }.items():
        assert cli.main(["report", *words]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and problem in line
    assert not list(tmp_path.iterdir())


def test_a_damaged_predictions_file_leaves_no_page(runs, tmp_path, capsys):
    table = pq.read_table(runs[0] / "predictions.parquet")
    pq.write_table(table.drop_columns(["label"]), tmp_path / "bad.parquet")
    out = tmp_path / "page.html"
    assert cli.main(["report", str(tmp_path / "bad.parquet"), "--out", str(out)]) == 1
    assert "lacks column label" in capsys.readouterr().err
    assert not out.exists()
