"""Annotation XML as exported by CVAT, read at close to the speed of the XML tokeniser.

expat checks that a file is well formed and has no DOCTYPE; then the text is cut with string
operations, which is sound for the plain subset of XML that CVAT and ElementTree write (double
quotes, one space between attributes, nothing but elements). A well-formed file outside that subset
is first rewritten into it by ElementTree.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from pyexpat import ExpatError, ParserCreate

import numpy as np

from vidreason.core.errors import DataError

MAX_BYTES = 256 << 20  # a video of PIE takes tens
_CORRECT = "correct the file, or restore it as the data set's card says"
_MEND = "restore the file, for example with `vidreason data get`"


def read_xml(path: Path) -> str:
    """Reads a well-formed XML file as text in the plain subset.

    Raises:
        DataError: The file is missing, too large, not well formed, or has a DOCTYPE.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(path, f"larger than {MAX_BYTES >> 20} MiB", _MEND)
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _MEND) from None
    if not data:
        raise DataError(path, "is empty", _MEND)

    def refuse(*_: object) -> None:
        raise DataError(path, "has a DOCTYPE, which annotations never have", _MEND)

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        if _is_plain(data):
            return data.decode("ascii")
        return ElementTree.tostring(ElementTree.fromstring(data), "unicode")
    except (ExpatError, ElementTree.ParseError) as error:
        # ElementTree minds prefixes of names too, and has another place for the place.
        line, column = getattr(error, "position", None) or (error.lineno, error.offset)
        place = f"line {line}, column {column}"
        raise DataError(path, f"is not well-formed XML ({error})", _MEND, place) from None
    except (LookupError, ValueError) as error:
        raise DataError(path, f"has an unusable encoding ({error})", _MEND) from None


def _is_plain(data: bytes) -> bool:
    # Comparing columns is several times faster than a search for each pair of characters.
    byte = np.frombuffer(data, np.uint8)
    space, equals, less, greater = (byte == ord(c) for c in " =<>")
    odd = space[:-1] & (space | equals | greater)[1:]  # " =", " >" and two spaces
    odd |= equals[:-1] & space[1:]
    odd |= less[:-1] & ((byte == ord("!")) | (byte == ord("?")))[1:]  # CDATA, comments, <?...?>
    return (
        data.isascii()
        and not any(c in data for c in b"'&\t\r\n\0")
        and not odd.any()
        and np.count_nonzero(less) == np.count_nonzero(greater)  # else some ">" ends no tag
    )


def start_tags(text: str, tag: str) -> Iterator[tuple[str, str]]:
    """Yields (attributes, what follows up to the next start tag of that name) for every `tag`."""
    pieces = iter(text.split(f"<{tag} "))
    next(pieces)
    for piece in pieces:
        head, _, rest = piece.partition(">")
        yield head, rest


def attributes(head: str) -> dict[str, str]:
    """Parses `a="1" b="2"`."""
    parts = head.split('"')
    return {
        name.strip(" =/"): unescape(value)
        for name, value in zip(parts[0::2], parts[1::2], strict=False)
    }


def content(text: str, tag: str) -> str:
    """Text of the first `<tag>…</tag>` without attributes; empty if there is none."""
    return unescape(text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]).strip()


def named_values(text: str) -> dict[str, str]:
    """Parses `<attribute name="a">1</attribute><attribute name="b">2</attribute>`."""
    pairs = (piece.partition('"') for piece in text.split('<attribute name="')[1:])
    return {
        name: unescape(rest.partition(">")[2].partition("<")[0]).strip() for name, _, rest in pairs
    }


def repeated_tags(
    text: str, tag: str, running: str
) -> tuple[list[str], list[int], list[dict[str, str]]]:
    """Parses start tags that are alike but for one running number, each distinct tag once.

    Returns:
        The running numbers of the n tags, for each the row of its other attributes, and those rows.
    """
    numbers: list[str] = []
    rows: list[int] = []
    distinct: list[dict[str, str]] = []
    known: dict[tuple[str, str], int] = {}
    mark = f'{running}="'
    for piece in text.split(f"<{tag} ")[1:]:
        before, _, rest = piece.partition(mark)
        number, _, after = rest.partition('"')
        after = after.partition(">")[0]
        row = known.get((before, after))
        if row is None:
            row = known[before, after] = len(distinct)
            distinct.append(attributes(before + after))
        numbers.append(number)
        rows.append(row)
    return numbers, rows, distinct


def sizes(path: Path, meta: str) -> tuple[int, int, int]:
    """Frames of a video, and their width and height in pixels, from what precedes `</meta>`.

    Raises:
        DataError: They are missing, or no positive whole numbers.
    """
    try:
        found = [int(content(meta, tag)) for tag in ("size", "width", "height")]
    except ValueError:
        found = [0]
    if not all(0 < n < 1_000_000 for n in found):
        problem = "meta/task lacks size or original_size as positive whole numbers"
        raise DataError(path, problem, _CORRECT)
    length, width, height = found
    return length, width, height


def code_of(path: Path, name: str, value: str, known: Sequence[str], place: str) -> int:
    """Index of a word among those known.

    Raises:
        DataError: It is none of them.
    """
    try:
        return known.index(value)
    except ValueError:
        problem = f"{name}={value!r} is not one of {', '.join(known)}"
        raise DataError(path, problem, _CORRECT, place) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def box_numbers(
    path: Path,
    layout: list[str],
    numbers: list[str],
    ids: list[str],
    offsets: np.ndarray,
    length: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (L,) int32 and boxes (L, 4) float32 px of tracks, from the attributes of their boxes.

    Args:
        path: Of the file, for errors.
        layout: What stands between the values of a box's attributes, such as ` frame=`.
        numbers: The values, box by box.
        ids: K names of tracks.
        offsets: (K + 1,) first box of each track.
        length: Frames of the video.

    Raises:
        DataError: Values that are no numbers, boxes without extent, frames that do not increase.
    """
    names = [name.strip(" =") for name in layout[:-1]]  # the last is what follows the last value
    if numbers and not {"frame", "xtl", "ytl", "xbr", "ybr"} <= set(names):
        raise DataError(path, f"box has attributes {names}", _CORRECT)

    def fail(bad: np.ndarray | np.bool, problem: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            track = int(np.searchsorted(offsets, row, side="right")) - 1
            seen = dict(zip(names, numbers[row * len(names) :], strict=False))
            place = f"track {ids[track]}, frame {seen['frame']}"
            corners = {name: seen[name] for name in ("xtl", "ytl", "xbr", "ybr")}
            raise DataError(path, f"{problem} {corners}", _CORRECT, place)

    if not numbers:
        return np.empty(0, np.int32), np.empty((0, 4), np.float32)
    try:
        flat = np.fromiter(map(float, numbers), np.float64, len(numbers))
        every = "".join(numbers)
        fine = every.isascii() and "_" not in every  # Python takes 1_0 for ten
    except ValueError:
        fine = False
    if not fine:
        bad = np.array([not _is_number(number) for number in numbers])
        first = int(bad.argmax())
        problem = f"{names[first % len(names)]}={numbers[first]!r} is not a number, box"
        fail(bad.reshape(-1, len(names)).any(1), problem)
    table = flat.reshape(-1, len(names))
    column = {name: table[:, i] for i, name in enumerate(names)}
    box = np.stack([column[name] for name in ("xtl", "ytl", "xbr", "ybr")], axis=1)
    fail(~np.isfinite(box).all(1), "box is not finite")
    fail((box[:, 2:] <= box[:, :2]).any(1), "degenerate box")
    frame = column["frame"]
    fail(
        ~((frame >= 0) & (frame < length) & (frame == np.floor(frame))),
        f"not a frame of {length}",
    )
    new_track = np.zeros(len(frame), bool)
    new_track[offsets[:-1]] = True
    fail(~new_track & (np.diff(frame, prepend=-1) <= 0), "frames do not increase")
    return frame.astype(np.int32), box.astype(np.float32)
