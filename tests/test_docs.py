"""The site builds and loads nothing from elsewhere; what it and the README tell to type works."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vidreason import cli
from vidreason.commands.train import VERBS
from vidreason.intent.metrics import roc_auc
from vidreason.intent.predictions import read_predictions

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst"))]
CLASSES = ("IntentData", "MovingMNISTData", "BallsData", "IntentTask", "DecomposeTask")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def blocks(page, kind):
    """Name and text of the code blocks of a page, (caption or None, lines)."""
    text = page.read_text()
    if page.suffix == ".md":
        return [(None, code) for code in re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)]
    pattern = rf"^\.\. code-block:: {kind}\n(?:   :caption: (.*)\n)?\n((?:   .*\n|\n)*)"
    found = re.findall(pattern, text, re.MULTILINE)
    return [(name or None, re.sub(r"^   ", "", code, flags=re.MULTILINE)) for name, code in found]


def commands(page):
    """Every line to be typed into a shell, in words."""
    text = "\n".join(code for _, code in blocks(page, "console")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    out = tmp_path_factory.mktemp("site")
    # In a process of its own: parsers of options don't survive how sphinx imports modules.
    line = ["-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(out)]
    subprocess.run([sys.executable, *line], check=True)
    return out


class Loads(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in LOADED and given.get("rel") not in ("index", "search", "next", "prev"):
            self.found.append(given.get(LOADED[tag]) or "")


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site):
    pages = list(site.glob("*.html"))
    assert {page.stem for page in PAGES if page.suffix == ".rst"} <= {page.stem for page in pages}
    for page in pages:
        loaded = Loads(page.read_text()).found
        assert loaded
        for address in loaded:
            path = address.partition("?")[0]
            assert not re.match(r"(\w+:)?//", address), (page.name, address)
            assert path.startswith("data:") or not path or (page.parent / path).is_file(), address
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(\w+:)?//", sheet.read_text()), sheet.name


def test_the_site_says_what_the_program_says(site):
    said = (site / "commands.html").read_text()
    for command in ("data windows", "report", "render", "export", "predict --video"):
        assert f"usage: vidreason {command}" in said
    cards = (site / "weights.html").read_text()
    assert all(name in cards for name in ("jaad_all", "jaad_all_boxes", "moving_mnist"))
    reference = (site / "reference.html").read_text()
    assert (
        "vidreason.results.live.Live" in reference and "vidreason.scenes.scene.Scene" in reference
    )


@cache
def options(*verb):
    """What a command takes, as its help says."""
    said = io.StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit):
        cli.main([*verb] if verb[-1] in CLASSES else [*verb, "--help"])
    return set(re.findall(r"--[\w.]+", said.getvalue()))


def options_of(name):
    """What a class takes."""
    return options("fit", f"--{'model' if name.endswith('Task') else 'data'}.help", name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_are_told_exist(page):
    told = commands(page)
    for first, *words in told:
        if first == "python" and words[0].startswith("tools/"):
            assert (ROOT / words[0]).is_file()
        if first != "vidreason" or words == ["--help"]:
            continue
        for config in (word for word in words if word.startswith("configs/")):
            assert (ROOT / config).is_file(), config
        if words[0] in VERBS and "--video" not in words:
            known = {"--weights", "--out"}.union(options(words[0]), *map(options_of, CLASSES))
            for word in words[1:]:
                if word.startswith("--") and not word.startswith("--model.net."):
                    assert word.partition("=")[0] in known, (words, word)
        elif "--video" in words and words[0] == "predict":
            assert {w for w in words if w.startswith("--")} <= options("predict", "--video")
        else:
            cli.parse(words)


@pytest.mark.parametrize("page", ["own_video", "moving_mnist"])
def test_python_that_is_told_runs(page, capsys):
    (code,) = [code for _, code in blocks(ROOT / "docs" / f"{page}.rst", "python")]
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_a_dataset_of_ones_own_is_trained_on_word_for_word(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs/own_dataset.rst"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, code in blocks(page, "python"):
        (tmp_path / name).write_text(code)
    lines = commands(page)
    assert lines[:2] == [["make", "setup"], ["source", ".venv/bin/activate"]]
    for first, *words in lines[2:]:
        if first == "vidreason":
            assert cli.main(words) == 0, words
        else:
            assert first == "python"
            subprocess.run([sys.executable, *words], check=True)
    said = capsys.readouterr().out
    promised = re.findall(r"^   (\w+\.parquet: .*)$", page.read_text(), re.MULTILINE)
    assert len(promised) == 2 and all(line in said for line in promised)
    assert "majority" in said and "box trees" in said
    found = read_predictions(tmp_path / "runs/mine/predictions.parquet")
    assert roc_auc(found["probability"], found["label"]) > 0.7
    assert {"report.html", "clip.mp4"} <= {path.name for path in tmp_path.iterdir()}

    # The error that the page shows, of a row that is wrong in that way.
    table = (tmp_path / "mydata/boxes.csv").read_text().splitlines()
    table[6] = re.sub(r",\d+,", ",180,", table[6], count=1)
    (tmp_path / "mydata/boxes.csv").write_text("\n".join(table))
    assert cli.main(next(words for _, *words in lines if "windows" in words)) == 1
    shown = re.search(r"^   (error: .*); …$", page.read_text(), re.MULTILINE)[1]
    assert shown in capsys.readouterr().err
