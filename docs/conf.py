"""The documentation site: `make docs`, then docs/_build/index.html."""

import contextlib
import io
import json
import os
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import vidreason
from vidreason import cli
from vidreason.runs.configs import SUBSYSTEMS, describe
from vidreason.runs.configs import shipped as shipped_configs
from vidreason.runs.weights import CARD, find_weights, shipped

project = "vidreason"
author = copyright = "the vidreason authors"
version = release = vidreason.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "vidreason"
# The site must work without a network: pages load nothing from elsewhere.
html_theme_options = {"footer_icons": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["filter.js"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
default_role = "code"


class Help(Directive):
    """Prints `vidreason COMMAND --help` for every command."""

    def run(self) -> list[nodes.Node]:
        """Returns a section per command."""
        found: list[nodes.Node] = []
        os.environ["COLUMNS"] = "88"
        for command in cli.COMMANDS:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
                cli.main([*command.split(), "--help"])
            block = nodes.literal_block(said.getvalue(), said.getvalue(), language="text")
            name = f"vidreason {command}"
            section = nodes.section("", nodes.title(name, name), block, names=[name])
            section["ids"] = [nodes.make_id(name)]
            found.append(section)
        return found


class Cards(Directive):
    """Prints a table of the shipped weights, from their cards."""

    def run(self) -> list[nodes.Node]:
        """Returns a row per evaluation of each."""
        head = ("weights", "parameters", "bytes", "test split", "metrics")
        rows = []
        for name in shipped():
            card = json.loads((find_weights(name) / CARD).read_text("utf-8"))
            size = f"{card['parameters']:,}", f"{card['bytes']:,}"
            for figure in card["figures"]:
                on = next(f"{count:,} {what}" for what, count in figure["on"].items())
                metrics = (f"{k.replace('_', ' ')} {v:.4g}" for k, v in figure["metrics"].items())
                rows.append(_row(name, *size, on, ", ".join(metrics)))
        return [_table(head, rows, (12, 10, 10, 14, 54))]


class Configs(Directive):
    """Prints a table of the shipped configurations, as `vidreason configs` does."""

    def run(self) -> list[nodes.Node]:
        """Returns a row per configuration."""
        rows = []
        for subsystem in SUBSYSTEMS:
            rows.append(_group(subsystem, 2))
            found = shipped_configs(subsystem)
            rows += [_row(name, describe(path)) for name, path in found.items()]
        return [_table(("configuration", "trains"), rows, (28, 72))]


class BadInputs(Directive):
    """Prints a table of invalid inputs, by source, with the line that each one is answered with."""

    def run(self) -> list[nodes.Node]:
        """Returns a box to filter the table and the table."""
        # The tests check these lines.
        path = Path(__file__).parents[1] / "tests" / "make" / "bad_inputs.yaml"
        sources: dict[str, list[nodes.row]] = {}
        for name, line in yaml.safe_load(path.read_bytes()).items():
            source, _, problem = name.partition(": ")
            row = _row(problem, line.removeprefix("error: "), code=True)
            sources.setdefault(source, []).append(row)
        rows = [row for source, of in sources.items() for row in (_group(source, 2), *of)]
        table = _table(("input", "line"), rows, (26, 74))
        table["classes"].append("errors")
        label = "words of an input or of a message"
        box = f"<input type='search' placeholder='{label}' aria-label='{label}'>"
        text = f"<div class='filter'>{box}<output></output></div>"
        return [nodes.raw("", text, format="html"), table]


def _table(head: tuple[str, ...], rows: list[nodes.row], widths: tuple[int, ...]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row(*head))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=["colwidths-given"])


def _row(*words: str, code: bool = False) -> nodes.row:
    """A row of text; with `code`, the last cell is shown as it is, quotes and dashes included."""
    cells = [nodes.paragraph(text=word) for word in words]
    if code:
        cells[-1] = nodes.paragraph("", "", nodes.literal(text=words[-1]))
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def _group(name: str, columns: int) -> nodes.row:
    """A row with one cell, above those that it names."""
    cell = nodes.entry("", nodes.paragraph(text=name), morecols=columns - 1)
    return nodes.row("", cell, classes=["group"])


def setup(app: Sphinx) -> None:
    """Declares the directives."""
    app.add_directive("help", Help)
    app.add_directive("cards", Cards)
    app.add_directive("configs", Configs)
    app.add_directive("bad-inputs", BadInputs)
