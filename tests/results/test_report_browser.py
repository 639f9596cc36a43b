"""The report in a browser: tables, sliders, components, narrow screens; nothing is requested."""

import shutil

import pytest
from make.forecasts import walkers

from vidreason import cli
from vidreason.results.report import write_report

pytestmark = pytest.mark.slow


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
    """Opens pages; they must not raise errors, write to the console or request anything."""
    logged = []

    def visit(path, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("console", lambda message: logged.append(message.text))
        page.on("request", lambda request: _local(logged, request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=2000)
        return page

    yield visit
    assert not logged


def _local(logged, url):
    if not url.startswith(("file:", "data:")):
        logged.append(f"requested {url}")


def titles(page):
    return page.eval_on_selector_all("section", "all => all.map(one => one.dataset.title)")


def column(page, table, number):
    cells = f"{table} tbody tr:not([hidden]) td:nth-child({number})"
    return page.eval_on_selector_all(cells, "all => all.map(one => one.textContent)")


def test_a_page_of_runs_has_every_section(visit, page_of_runs):
    page = visit(page_of_runs)
    wanted = [
        "Summary",
        "Paired differences",
        "Curves",
        "Metrics by subgroup",
        "Cases",
        "All pedestrians",
    ]
    assert titles(page) == wanted
    summary = page.inner_text("section[data-title=Summary]")
    assert all(word in summary for word in ("run0", "run1", "majority", "box trees", "[0."))
    assert "run1 minus run0" in page.inner_text("section[data-title='Paired differences']")
    drawn = page.eval_on_selector_all("figure img", "all => all.map(one => one.naturalWidth)")
    assert len(drawn) > 8 and all(width > 0 for width in drawn)
    for figure in page.query_selector_all("figure"):
        assert len(figure.query_selector_all("details table tbody tr")) > 1
    assert page.query_selector_all("article svg line")


def test_cases_show_frames_of_the_video_if_there_is_one(visit, filmed):
    out = filmed[0] / "filmed.html"
    line = ["report", str(filmed[0] / "run/predictions-train.parquet"), "--out", str(out)]
    line += ["--root", str(filmed[0] / "jaad"), "--bootstrap", "20", "--cases", "50"]
    assert cli.main(line) == 0
    assert visit(out).query_selector("article svg image")


def test_tables_sort_by_number_and_by_text_and_can_be_filtered(visit, page_of_runs):
    page = visit(page_of_runs)
    table = "section[data-title='All pedestrians'] table"
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
    card = page.query_selector("article")
    target = "all => all[all.length - 1].getAttribute('x')"
    last = card.eval_on_selector_all("svg:not(.curve) rect", target)
    words = card.query_selector("label span").inner_text()
    slider = card.query_selector("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert card.eval_on_selector_all("svg:not(.curve) rect", target) != last
    assert card.query_selector("label span").inner_text() != words
    assert slider.get_attribute("aria-valuetext").endswith("-0.50 s")


def test_names_that_are_markup_are_shown_as_text(visit, page_of_runs, evil, tmp_path):
    page = visit(page_of_runs)
    names = column(page, "section[data-title='All pedestrians'] table", 2)
    assert any(evil in name for name in names)
    out = tmp_path / "video.html"
    write_report([walkers(tmp_path / "f.parquet", evil)], out)
    page = visit(out)
    assert evil in page.inner_text("article h5") and evil in page.inner_text("table")
    assert not page.query_selector("img[src=x]") and page.title().startswith("vidreason")


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
    assert "frame 2, observed" in card.inner_text()
    layers = "all => all.map(one => one.style.visibility)"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert card.eval_on_selector_all("i", layers) == ["", "", "hidden", ""]
    assert len(page.query_selector_all("figure")) == 2


@pytest.mark.parametrize("which", ["page_of_runs", "page_of_clips"])
def test_pages_fit_a_narrow_screen(visit, which, request):
    page = visit(request.getfixturevalue(which), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_page_on_real_data_is_small_and_loads_quickly(visit, real_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["report", "jaad_all", "--root", str(real_root), "--out", "real.html"]
    assert cli.main([*line, "--bootstrap", "50"]) == 0
    out = tmp_path / "real.html"
    assert out.stat().st_size < 8e6
    page = visit(out)  # within 2 seconds
    assert len(titles(page)) == 5 and len(page.query_selector_all("article")) >= 20
    assert "influence of neighbours" in page.inner_text("section[data-title=Cases]")
