"""README, pages and cards: named files exist, commands and examples work, the site builds."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from make import pie_files

import vidreason
from vidreason import cli
from vidreason.commands import train
from vidreason.intent.features import GROUPS, feature_names
from vidreason.intent.metrics import roc_auc
from vidreason.intent.predictions import read_predictions
from vidreason.runs.configs import find_config
from vidreason.runs.weights import shipped
from vidreason.simulation.street import write_street

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.rst"))
PAGES = [ROOT / "README.md", *DOCS, *sorted(ROOT.glob("datasets/*/README.md"))]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
FOLDERS = "vidreason|tests|tools|configs|docs|datasets"


def named(page):
    return "card-" * (page.parent.parent.name == "datasets") + f"{page.parent.name}-{page.stem}"


def blocks(page, kind):
    """Returns the code blocks of a page, as pairs of a caption or None and the code."""
    text = page.read_text()
    if page.suffix == ".md":
        return [(None, code) for code in re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)]
    pattern = rf"^\.\. code-block:: {kind}\n(?:   :caption: (.*)\n)?\n((?:   .*\n|\n)*)"
    found = re.findall(pattern, text, re.MULTILINE)
    return [(name or None, re.sub(r"^   ", "", code, flags=re.MULTILINE)) for name, code in found]


def commands(page, inline=False):
    """Returns every shell command, in words; `inline` includes those in running text."""
    text = "\n".join(code for _, code in blocks(page, "console")).replace("\\\n", " ")
    lines = text.splitlines()
    if inline:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        lines += re.findall(r"`((?:vidreason|python|make)\s[^`…]+)`", prose)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_named_files_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text) if page.suffix == ".md" else []
    links += re.findall(r"^\.\. image:: (\S+)", text, re.MULTILINE)
    for link in links:
        assert "://" in link or (page.parent / link).is_file(), link
    for target in re.findall(r":doc:`(?:[^`<]*<)?(\w+)>?`", text):
        assert (ROOT / "docs" / f"{target}.rst").is_file(), target
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text):
        assert "NAME" in path or path == "docs/_build" or (ROOT / path).exists(), path
    for module, name in re.findall(r"`~?(vidreason(?:\.[a-z_]+)+)(?:\.([A-Z]\w*))?`", text):
        path = ROOT / module.replace(".", "/")
        known = (path / "__init__.py", path.with_suffix(".py"), path.parent.with_suffix(".py"))
        source = next((file for file in known if file.is_file()), None)
        assert source, module
        assert re.search(rf"\b{name or path.name}\b", source.read_text()) or not name, name


def test_every_page_is_in_the_index():
    listed = re.findall(r"^   (\w+)$", (ROOT / "docs/index.rst").read_text(), re.MULTILINE)
    assert sorted([*listed, "index"]) == [page.stem for page in DOCS]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_have_these_options(page):
    for first, *words in commands(page, inline=True):
        if first == "python" and words[0].startswith("tools/"):
            check_tool(words)
        elif first == "make":
            makefile = (ROOT / "Makefile").read_text()
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words
        elif first != "vidreason" or " ".join(words) in (*cli.COMMANDS, "--help", "COMMAND --help"):
            continue
        elif words[0] in train.VERBS and "--video" not in words:
            check_training(words)
        else:
            cli.parse(words)


def check_tool(words):
    """Checks that options occur in the source of the tools, and that configurations exist."""
    source = "\n".join(path.read_text() for path in (ROOT / "tools").glob("*.py"))
    assert (ROOT / words[0]).is_file(), words[0]
    for word in words[1 : words.index("--pass") if "--pass" in words else None]:
        option = word.removeprefix("--")
        assert option == word or re.search(f'"(--)?{option}"', source), (words, word)
        assert not word.startswith("configs/") or (ROOT / word).is_file(), word


def check_training(words):
    """Checks options against help pages and networks; configurations and weights exist."""
    if words[1:] == ["--help"]:
        return
    known = set(re.findall(r"--[\w.]+", train._page(words[0]) + train._page("fit")))
    train._check(words[0], words[1:])
    for option, value in train._options(words[0], words[1:]):
        if option.startswith("--model.net."):
            networks = [
                getattr(sys.modules[f"vidreason.{wing}.networks"], name)
                for wing in ("intent", "decomposition")
                for name in __import__(f"vidreason.{wing}.networks", fromlist=["x"]).__all__
            ]
            names = {name for net in networks for name in inspect.signature(net).parameters}
            assert option.removeprefix("--model.net.") in names, option
        else:
            assert option in {"-c", *known}, option
        if option in ("-c", "--config") and value != "NAME":
            assert find_config(value).is_file()
        if option == "--weights" and "NAME" not in value and "/" not in value:
            assert value in shipped(), value


def test_commands_need_no_files_of_a_checkout():
    for page in PAGES:
        for words in commands(page, inline=True):
            if words[0] == "vidreason":
                assert not any(word.startswith("configs/") for word in words), words


def test_the_reference_is_the_public_interface_and_the_classes_of_configurations():
    documented = re.findall(
        r"^\.\. auto(?:class|function|exception):: vidreason\.([\w.]+)$",
        (ROOT / "docs/reference.rst").read_text(),
        re.MULTILINE,
    )
    public = [name for name in documented if "." not in name]
    assert sorted(public) == sorted(vidreason.__all__)
    others = {name.rpartition(".")[2] for name in documented if "." in name} - {"Now"}
    used = " ".join(path.read_text() for path in ROOT.glob("configs/*/*.yaml"))
    assert others == set(re.findall(r"class_path: (\w+)", used))


def test_every_column_of_the_graphs_is_described():
    text = (ROOT / "docs/features.rst").read_text()
    for names in feature_names(GROUPS).values():
        for name in names:
            assert f"`{name}`" in text, name
    assert all(f"* - `{group}`" in text for group in GROUPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Working directory with simulated data where the examples expect them."""
    base = tmp_path_factory.mktemp("examples")
    write_street(base / "data/jaad", videos=6, frames=(110, 130), split=(3, 1, 2))
    pie_files.pie(base / "data/pie", people=4)
    return base


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VIDREASON_DATA", str(folder / "data"))
    return folder


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/own_video.rst", "docs/moving_mnist.rst", "docs/results_intent.rst"],
)
def test_python_examples_run(page, here, capsys):
    for name, code in blocks(ROOT / page, "python"):
        exec(compile(code, name or page, "exec"), {})
        assert capsys.readouterr().out.strip() or "print(" not in code


@pytest.mark.slow
def test_the_page_on_own_models_works_word_for_word(here, capsys):
    ((name, code),) = blocks(ROOT / "docs/own_model.rst", "python")
    (here / name).write_text(code)
    for first, *words in commands(ROOT / "docs/own_model.rst"):
        if first == "python":
            subprocess.run([sys.executable, *words], check=True)
        else:
            assert cli.main(words) == 0, words
    assert "box_gru" in capsys.readouterr().out
    assert len(read_predictions(here / "runs/box_gru/predictions.parquet").table)
    assert (here / "report.html").is_file()


@pytest.mark.slow
def test_the_page_on_own_datasets_works_word_for_word(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs/own_dataset.rst"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    for name, code in blocks(page, "python"):
        (tmp_path / name).write_text(code)
    lines = commands(page)
    for first, *words in lines:
        if first == "vidreason":
            assert cli.main(words) == 0, words
        else:
            assert first == "python"
            subprocess.run([sys.executable, *words], check=True)
    said = capsys.readouterr().out
    promised = re.findall(r"^   (\w+\.parquet: .*)$", page.read_text(), re.MULTILINE)
    assert len(promised) == 2 and all(line in said for line in promised)
    head, *rows = re.findall(r"^   │ ([^│]+?) +│", page.read_text(), re.MULTILINE)
    assert rows[0] == "mine" and all(re.search(rf"[│┃] {re.escape(row)} ", said) for row in rows)
    assert f"┃ {head} " in said
    found = read_predictions(tmp_path / "runs/mine/predictions.parquet")
    assert roc_auc(found["probability"], found["label"]) > 0.7
    assert {"report.html", "clip.mp4"} <= {path.name for path in tmp_path.iterdir()}

    # The page shows the error line of such a row.
    table = (tmp_path / "mydata/boxes.csv").read_text().splitlines()
    table[6] = re.sub(r",\d+,", ",180,", table[6], count=1)
    (tmp_path / "mydata/boxes.csv").write_text("\n".join(table))
    assert cli.main(next(words for _, *words in lines if "windows" in words)) == 1
    shown = re.search(r"^   (error: .*); …$", page.read_text(), re.MULTILINE)[1]
    assert shown in capsys.readouterr().err


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    out = tmp_path_factory.mktemp("site")
    # In its own process: sphinx and the option parsers modify modules.
    line = ["-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(out)]
    subprocess.run([sys.executable, *line], check=True)
    return out


class Loads(HTMLParser):
    """Collects the files that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in LOADED and given.get("rel") not in ("index", "search", "next", "prev"):
            self.found.append(given.get(LOADED[tag]) or "")


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_no_external_files(site):
    pages = list(site.glob("*.html"))
    assert {page.stem for page in DOCS} <= {page.stem for page in pages}
    for page in pages:
        loaded = Loads(page.read_text()).found
        assert loaded
        for address in loaded:
            path = address.partition("?")[0]
            assert not re.match(r"(\w+:)?//", address), (page.name, address)
            assert path.startswith("data:") or not path or (page.parent / path).is_file(), address
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(\w+:)?//", sheet.read_text()), sheet.name


@pytest.mark.slow
def test_the_site_shows_help_cards_and_the_public_interface(site):
    said = (site / "commands.html").read_text()
    for command in cli.COMMANDS:
        assert f"usage: vidreason {command}" in said, command
    weights = (site / "weights.html").read_text()
    assert all(name in weights for name in shipped())
    reference = (site / "reference.html").read_text()
    assert all(f'id="vidreason.{name}"' in reference for name in vidreason.__all__)


@pytest.mark.slow
def test_the_table_of_errors_is_filtered_in_a_browser(site):
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the page with")
    lines = yaml.safe_load((ROOT / "tests/make/bad_inputs.yaml").read_text())
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1280, "height": 900})
        page.goto((site / "errors.html").as_uri())
        assert page.evaluate("document.documentElement.scrollHeight") < 8_000
        rows = page.locator("table.errors tbody tr:not(.group)")
        texts = {" ".join(text.split()) for text in rows.all_inner_texts()}
        for name, line in lines.items():
            words = f"{name.partition(': ')[2]} {line.removeprefix('error: ')}"
            assert " ".join(words.split()) in texts
        page.fill(".filter input", "JAAD frame")
        wanted = [k for k, v in lines.items() if k.startswith("JAAD") and "frame" in f"{k} {v}"]
        assert 0 < len(wanted) < len(lines)
        assert page.locator("table.errors tbody tr:not(.group):visible").count() == len(wanted)
        assert page.inner_text(".filter output") == f"{len(wanted)} of {len(lines)}"
        opened.close()
