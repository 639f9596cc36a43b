"""The page of results: in a browser where there is one, and what it is made of."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from jinja2 import Environment

from vidreason import cli
from vidreason.intent.predictions import read_predictions
from vidreason.results import breakdown, cases, forecasts, report
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import Film, write_film
from vidreason.simulation.street import write_street
from vidreason.simulation.world import simulate

ROOT = Path(__file__).parents[2]
EVIL = "<img src=x onerror=document.title=1>"
QUICK = ("--bootstrap", "20", "--cases", "2", "--clips", "4")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Streets, one of them on film, one with a pedestrian whose name is markup; two runs."""
    base = tmp_path_factory.mktemp("report")
    write_street(base / "streets", 24)
    config, data = ROOT / "configs/intent/demo_streets.yaml", f"--data.root={base / 'streets'}"
    test = (base / "streets/split_ids/default/test.txt").read_text().split()
    _rename(base / "streets", test)
    few = ("--trainer.max_epochs=1", "--model.net.init_args.hidden=8", "--data.batch_size=64")
    quiet = "--trainer.enable_progress_bar=false"
    for seed in (0, 1):
        out = f"--trainer.default_root_dir={base / f'run{seed}'}"
        line = ["fit", "-c", str(config), data, out, f"--seed_everything={seed}", *few, quiet]
        assert cli.main(line) == 0
    rows = read_predictions(predict(base / "run0"))
    video = rows.table["video"][int(rows["probability"].argmax())].as_py()
    write_film(
        base / f"streets/JAAD_clips/{video}.mp4", Film(simulate(0, int(video.rpartition("_")[2])))
    )
    return base


def predict(run):
    quiet = "--trainer.enable_progress_bar=false"
    assert cli.main(["predict", "--run", str(run), quiet]) == 0
    return run / "predictions.parquet"


def _rename(root, videos):
    """Gives the first tagged pedestrian of each of these videos a name that is markup."""
    for video in videos:
        found = re.search(r'id="(\w+b)"', (root / f"annotations/{video}.xml").read_text()) or (
            re.search(r">(0_\d+_\d+b)<", (root / f"annotations/{video}.xml").read_text())
        )
        if not found:
            continue
        evil = EVIL.replace("<", "&lt;").replace(">", "&gt;")
        for path in root.glob(f"*/{video}*.xml"):
            path.write_text(re.sub(rf"\b{found[1]}\b", f"{found[1]}{evil}b", path.read_text()))


@pytest.fixture(scope="module")
def page_of_runs(base):
    out = base / "runs.html"
    runs = [str(base / "run0"), str(base / "run1")]
    line = ["report", *runs, "--root", str(base / "streets"), "--out", str(out), *QUICK]
    assert cli.main(line) == 0
    return out


@pytest.fixture(scope="module")
def page_of_clips(base):
    out = base / "clips.html"
    config = ROOT / "configs/decomposition/demo_digits.yaml"
    few = ("--trainer.max_epochs=1", "--data.epoch_clips=32", "--data.val_clips=8")
    run = f"--trainer.default_root_dir={base / 'digits'}"
    assert cli.main(["fit", "-c", str(config), run, *few, "--data.test_clips=6"]) == 0
    assert cli.main(["report", str(base / "digits"), "--out", str(out), *QUICK]) == 0
    return out


def write_forecasts(path, length=60):
    meta = {"video": "clip.mp4", "fps": 30.0, "width": 640, "height": 360, "length": length}
    meta |= {"every": 1, "threshold": 0.5, "words": "crosses in 1 to 2 s", "model": "some"}
    with forecasts.write_forecasts(path, meta, np.array([0])) as writer:
        for frame in range(length):
            box = np.array([[100 + frame, 100, 140 + frame, 220], [400, 120, 430, 200]])
            writer.add(frame, [EVIL, "2"], box, np.array([[frame / length], [0.1]]))
    return path


# --- In the browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=quiet)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Opens a page, and afterwards sees that it had no errors and asked nobody for anything."""
    heard = []

    def visit(path, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("console", lambda said: heard.append(said.text))
        page.on("request", lambda request: _local(heard, request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=2000)
        return page

    yield visit
    assert not heard


def _local(heard, url):
    if not url.startswith(("file:", "data:")):
        heard.append(f"asked for {url}")


def titles(page):
    return page.eval_on_selector_all("section", "all => all.map(one => one.dataset.title)")


def column(page, table, number):
    cells = f"{table} tbody tr:not([hidden]) td:nth-child({number})"
    return page.eval_on_selector_all(cells, "all => all.map(one => one.textContent)")


def test_a_page_of_runs_has_all_that_was_asked_for(visit, page_of_runs, base):
    page = visit(page_of_runs)
    wanted = ["Summary", "Paired differences", "Curves", "Breakdown", "Cases", "Every pedestrian"]
    assert titles(page) == wanted
    summary = page.inner_text("section[data-title=Summary]")
    assert all(word in summary for word in ("run0", "run1", "majority", "box trees", "[0."))
    assert "run1 less run0" in page.inner_text("section[data-title='Paired differences']")
    drawn = page.eval_on_selector_all("figure img", "all => all.map(one => one.naturalWidth)")
    assert len(drawn) > 8 and all(width > 0 for width in drawn)
    for figure in page.query_selector_all("figure"):
        assert len(figure.query_selector_all("details table tbody tr")) > 1
    assert page.query_selector_all("article svg line") and page.query_selector("article svg image")
    assert page_of_runs.stat().st_size < 8e6


def test_tables_sort_by_number_and_by_word_and_can_be_searched(visit, page_of_runs):
    page = visit(page_of_runs)
    table = "section[data-title='Every pedestrian'] table"
    heads = page.query_selector_all(f"{table} th button")
    before = column(page, table, 4)
    heads[3].focus()
    page.keyboard.press("Enter")
    down = column(page, table, 4)
    assert down == sorted(before, key=float, reverse=True) != before
    heads[3].click()
    assert column(page, table, 4) == sorted(before, key=float)
    assert page.get_attribute(f"{table} th:nth-child(4)", "aria-sort") == "ascending"
    heads[0].click()
    videos = column(page, table, 1)
    assert videos == sorted(videos, reverse=True)
    page.fill("input[type=search]", videos[0])
    assert set(column(page, table, 1)) == {videos[0]}


def test_the_slider_moves_boxes_and_keys_move_the_slider(visit, page_of_runs):
    page = visit(page_of_runs)
    card = page.query_selector("article:not(:has(image))")
    target = "all => all[all.length - 1].getAttribute('x')"
    last = card.eval_on_selector_all("svg:not(.curve) rect", target)
    words = card.query_selector("label span").inner_text()
    slider = card.query_selector("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert card.eval_on_selector_all("svg:not(.curve) rect", target) != last
    assert card.query_selector("label span").inner_text() != words
    assert slider.get_attribute("aria-valuetext").endswith("-0.50 s")


def test_names_that_are_markup_are_shown_as_text(visit, page_of_runs, base):
    page = visit(page_of_runs)
    names = column(page, "section[data-title='Every pedestrian'] table", 2)
    assert any(EVIL in name for name in names)
    page = visit(_page(write_forecasts(base / "forecasts.parquet"), base / "video.html"))
    assert EVIL in page.inner_text("article h5")
    assert EVIL in page.inner_text("table")
    assert not page.query_selector("img[src=x]") and page.title().startswith("vidreason")


def _page(source, out):
    assert cli.main(["report", str(source), "--out", str(out), *QUICK]) == 0
    return out


def test_a_page_of_clips_plays_them_and_switches_components(visit, page_of_clips):
    page = visit(page_of_clips)
    assert titles(page) == ["Summary", "Curves", "Clips"]
    assert len(page.query_selector_all("article")) == 6
    card = page.query_selector("article")
    place = "all => all.map(one => one.style.backgroundPosition)"
    page.evaluate("one => one.scrollIntoView()", card)
    card.query_selector("input[type=range]").focus()
    page.keyboard.press("Home")
    first = card.eval_on_selector_all("i", place)
    page.keyboard.press("ArrowRight")
    assert card.eval_on_selector_all("i", place) != first
    assert "frame 2, seen" in card.inner_text()
    layers = "all => all.map(one => one.style.visibility)"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert card.eval_on_selector_all("i", layers) == ["", "", "hidden", ""]
    assert len(page.query_selector_all("figure")) == 2


@pytest.mark.parametrize("which", ["page_of_runs", "page_of_clips"])
def test_pages_fit_a_narrow_screen(visit, which, request):
    page = visit(request.getfixturevalue(which), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_real_run_is_small_and_quick(visit, real_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["report", "jaad_all", "--root", str(real_root), "--out", "real.html"]
    assert cli.main([*line, "--bootstrap", "50"]) == 0
    out = tmp_path / "real.html"
    assert out.stat().st_size < 8e6
    page = visit(out)  # which waits for 2 seconds at most
    assert len(titles(page)) == 5 and len(page.query_selector_all("article")) >= 20
    assert "points by neighbour" in page.inner_text("section[data-title=Cases]")


# --- What it is made of


def test_levels_share_out_the_windows_they_describe(base):
    found = read_predictions(base / "run0/predictions.parquet")
    asked = breakdown.find_windows(found, base / "streets")
    windows, scenes = asked.windows, asked.scenes
    ids = [scenes[s].track_ids[k] for s, k in zip(windows.scene, windows.track, strict=True)]
    assert [ids[w] for w in asked.window] == found.table["pedestrian"].to_pylist()
    levels = {one.name: one for one in breakdown.factors(asked)}
    some = 0
    for row, w in enumerate(asked.window):
        scene = scenes[windows.scene[w]]
        last = windows.row[w] + windows.observed - 1
        frame = scene.frame[last]
        kind = np.repeat(scene.kind, np.diff(scene.offsets))
        here = (scene.frame == frame) & (kind <= KINDS.index("group"))
        beside = ("nobody", "1 or 2", "1 or 2", "3 to 5", "3 to 5", "3 to 5", "6 or more")
        factor = levels["people beside"]
        assert factor.levels[factor.code[row]] == beside[min(here.sum() - 1, 6)]
        factor = levels["crosswalk"]
        assert factor.code[row] == scene.signals["ped_crossing"][frame]
        factor = levels["box height, px of 1080"]
        tall = (scene.box[last, 3] - scene.box[last, 1]) / scene.height * 1080
        words = factor.levels[factor.code[row]]
        if "to" in words:
            low, high = map(float, words.split(" to "))
            assert low <= tall < high
            some += 1
    assert some


def test_cases_are_the_worst_and_the_best_once_a_pedestrian(base):
    found = read_predictions(base / "run0/predictions.parquet")
    middle = float(np.median(found["probability"]))
    found = dataclasses.replace(found, meta={**found.meta, "threshold": middle})
    chosen = cases.choose(found, 3)
    cut, p, label = found.meta["threshold"], found["probability"], found["label"]
    for rows in chosen.values():
        assert len(set(found.cluster[rows])) == len(rows) <= 3
    stays = label == 0
    assert p[chosen["false alarms"][0]] == p[stays].max()
    assert p[chosen["rightly left"][0]] == p[stays].min()
    for name, crosses, above in (
        ("missed", 1, False),
        ("false alarms", 0, True),
        ("seen coming", 1, True),
        ("rightly left", 0, False),
    ):
        assert all(label[row] == crosses for row in chosen[name])
        assert all((p[row] >= cut) == above for row in chosen[name])


def test_the_numbers_of_a_curve_are_on_it():
    label = np.array([0, 0, 1, 1])
    curves = {"a": (np.array([0.1, 0.4, 0.35, 0.8]), label)}
    drawn = report.Drawn(Path("x"), "roc", "t", curves, {}, np.array([0]))
    rows = report._numbers(drawn).rows
    assert [row[0].text for row in rows[:2]] == ["0.00", "0.05"]
    at_half = next(row for row in rows if row[0].text == "0.50")
    assert at_half[1].value == 1.0 and rows[0][1].value <= 0.5
    rows = report._numbers(drawn._replace(kind="calibration")).rows
    assert [(row[1].text, row[3].value, row[4].value) for row in rows] == [
        ("0.1 to 0.2", 0.0, 1.0),
        ("0.3 to 0.4", 1.0, 1.0),
        ("0.4 to 0.5", 0.0, 1.0),
        ("0.8 to 0.9", 1.0, 1.0),
    ]


def test_data_cannot_end_the_script_that_holds_them():
    text = Environment(autoescape=True).from_string("{{ x|tojson }}").render(x="</script><b>")
    assert "<" not in text and json.loads(text) == "</script><b>"


def test_without_the_dataset_a_file_is_still_shown(base, monkeypatch, tmp_path):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    copy = shutil.copy(base / "run0/predictions.parquet", tmp_path / "theirs.parquet")
    out = tmp_path / "page.html"
    assert cli.main(["report", str(copy), "--out", str(out), *QUICK]) == 0
    text = out.read_text()
    assert "Needs the dataset: give --root" in text and "theirs" in text


def test_a_forecast_of_a_video_is_told_by_pedestrian(tmp_path):
    found = forecasts.read_forecasts(write_forecasts(tmp_path / "f.parquet"))
    part = report._video_part(found, 3, None)
    (sheet,) = part.sections[0].sheets
    assert [row[0].text for row in sheet.rows] == [EVIL, "2"]
    assert sheet.rows[0][4].value == pytest.approx(59 / 60, abs=1e-3)
    assert sheet.rows[0][6].value == pytest.approx(0.5)
    (group,) = part.sections[1].groups.values()
    assert [case["name"] for case in group] == [EVIL, "2"]
    assert len(group[0]["frames"]) == 30 and group[0]["target"][-1] == [159, 100, 199, 220]
    assert group[0]["others"][0]["box"][0] == [400, 120, 430, 200]


def test_bad_words_are_one_line(base, tmp_path, capsys):
    run = str(base / "run0")
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


def test_a_damaged_predictions_file_leaves_no_page(base, tmp_path, capsys):
    table = pq.read_table(base / "run0/predictions.parquet")
    pq.write_table(table.drop_columns(["label"]), tmp_path / "bad.parquet")
    out = tmp_path / "page.html"
    assert cli.main(["report", str(tmp_path / "bad.parquet"), "--out", str(out)]) == 1
    assert "lacks column label" in capsys.readouterr().err
    assert not out.exists()
