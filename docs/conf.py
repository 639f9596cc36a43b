"""The documentation site: `make docs`, then docs/_build/index.html."""

import contextlib
import io
import json
import os
import shlex
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import vidreason
from vidreason import cli
from vidreason.runs.weights import CARD, find_weights, shipped

project = "vidreason"
author = copyright = "the vidreason authors"
version = release = vidreason.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "vidreason"
# Pages are read where there is no network: nothing is loaded from elsewhere.
html_theme_options = {"footer_icons": []}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
default_role = "code"


class Help(Directive):
    """What `vidreason COMMAND --help` prints; several commands, a line each."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Makes a heading and a block for each."""
        found: list[nodes.Node] = []
        os.environ["COLUMNS"] = "88"
        for command in self.content:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
                cli.main([*shlex.split(command), "--help"])
            block = nodes.literal_block(said.getvalue(), said.getvalue(), language="text")
            name = f"vidreason {command}"
            section = nodes.section("", nodes.title(name, name), block, names=[name])
            section["ids"] = [nodes.make_id(name)]
            found.append(section)
        return found


class Cards(Directive):
    """A table of the weights that come with the package, as their cards say."""

    def run(self) -> list[nodes.Node]:
        """Makes a row for each figure of each."""
        head = ("weights", "parameters", "bytes", "measured on", "figures")
        rows = []
        for name in shipped():
            card = json.loads((find_weights(name) / CARD).read_text("utf-8"))
            size = f"{card['parameters']:,}", f"{card['bytes']:,}"
            for figure in card["figures"]:
                on = next(f"{count:,} {what}" for what, count in figure["on"].items())
                said = ", ".join(f"{k} {v:.4g}" for k, v in figure["metrics"].items())
                rows.append((name, *size, on, said))
        return [_table(head, rows)]


class BadInputs(Directive):
    """A table of inputs that cannot be used, and the line that each is answered with."""

    def run(self) -> list[nodes.Node]:
        """Reads the lines that the tests hold the program to."""
        path = Path(__file__).parents[1] / "tests" / "make" / "bad_inputs.yaml"
        return [_table(("input", "answer"), list(yaml.safe_load(path.read_bytes()).items()))]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    for _ in head:
        group += nodes.colspec(colwidth=1)
    body = nodes.tbody()
    for row in rows:
        body += _row(row)
    group += nodes.thead("", _row(head))
    group += body
    return nodes.table("", group)


def _row(words: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=word)) for word in words))


def setup(app: Sphinx) -> None:
    """Declares the directives."""
    app.add_directive("help", Help)
    app.add_directive("cards", Cards)
    app.add_directive("bad-inputs", BadInputs)
