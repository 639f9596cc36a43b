"""Parts of the HTML page of results, and how it is rendered.

Text from files (names of pedestrians and videos) is escaped: it is shown as text, whatever it
contains.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from vidreason import __version__
from vidreason.core.colours import COLOURS
from vidreason.core.files import write_atomic
from vidreason.results.scoring import format_interval

SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "vidreason"}
"""Matplotlib settings that make equal figures equal files."""


class Cell(NamedTuple):
    """Table cell: the text that is shown, and the value it is sorted by."""

    text: str
    value: float | str


class Sheet(NamedTuple):
    """Table with sortable columns."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    search: bool = False


class Plot(NamedTuple):
    """Figure, as a data URI, with a table of its numbers."""

    title: str
    image: str
    sheet: Sheet


class Section(NamedTuple):
    """Section of a page.

    Attributes:
        title: Heading.
        text: Introduction.
        sheets: Tables.
        plots: Figures.
        groups: Cards by group, as JSON values; see `vidreason.results.cases` and `strips`.
        kind: Kind of the cards: `case` or `strip`.
    """

    title: str
    text: str = ""
    sheets: Sequence[Sheet] = ()
    plots: Sequence[Plot] = ()
    groups: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    kind: str = ""


class Part(NamedTuple):
    """Sections about one intent task, one video or one decomposition model."""

    title: str
    sections: Sequence[Section]


def write_page(path: Path, title: str, parts: Sequence[Part]) -> None:
    """Renders the page; it contains everything it shows, and is written atomically."""
    templates = Environment(
        loader=PackageLoader("vidreason"), undefined=StrictUndefined, autoescape=True
    )
    page = templates.get_template("report.html").render(
        title=title, parts=parts, version=__version__, colours=COLOURS
    )
    with write_atomic(path) as temporary:
        temporary.write_text(page, "utf-8")


def number(value: float | None, digits: int = 3) -> Cell:
    """Cell of a number; an undefined one is a dash and sorts below all others."""
    if value is None or not np.isfinite(value):
        return Cell("–", -1e30)
    return Cell(f"{value:z.{digits}f}", float(value))


def count(value: float) -> Cell:
    """Cell of a whole number."""
    return Cell(f"{value:,.0f}", float(value))


def word(text: object) -> Cell:
    """Cell of text."""
    return Cell(str(text), str(text))


def interval(numbers: Mapping[str, Any]) -> Cell:
    """Cell of a value with its confidence interval."""
    value = numbers["value"]
    return Cell(format_interval(dict(numbers)), -1e30 if value is None else value)


def svg(path: Path) -> str:
    """Data URI of an SVG file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
