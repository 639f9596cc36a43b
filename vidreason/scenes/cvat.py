"""Parser for annotation XML exported by CVAT, nearly as fast as the XML tokeniser.

expat checks that a file is well formed and has no DOCTYPE. The text is then split with string
operations, which is correct for the plain subset of XML that CVAT and ElementTree write (double
quotes, one space between attributes, nothing but elements). Other well-formed files are first
rewritten into that subset by ElementTree.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from pyexpat import ExpatError, ParserCreate

import numpy as np

from vidreason.core.errors import DataError

MAX_BYTES = 256 << 20  # a video of PIE has tens of MiB
_CORRECT = "fix the file, or restore it as described in the dataset card"
_FIX = "restore the file, for example with `vidreason data get` into another folder"


def read_xml(path: Path) -> str:
    """Reads a well-formed XML file as text in the plain subset.

    Raises:
        DataError: The file is missing, too large, not well formed, or has a DOCTYPE.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(path, f"is larger than {MAX_BYTES >> 20} MiB", _FIX)
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _FIX) from None
    if not data:
        raise DataError(path, "is empty", _FIX)

    def refuse(*_: object) -> None:
        raise DataError(path, "has a DOCTYPE, which annotations must not have", _FIX)

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        if _is_plain(data):
            return data.decode("ascii")
        return ElementTree.tostring(ElementTree.fromstring(data), "unicode")
    except (ExpatError, ElementTree.ParseError) as error:
        # ElementTree also checks namespace prefixes, and stores the position elsewhere.
        line, column = getattr(error, "position", None) or (error.lineno, error.offset)
        place = f"line {line}, column {column}"
        raise DataError(path, f"is not well-formed XML ({error})", _FIX, place) from None
    except (LookupError, ValueError) as error:
        raise DataError(path, f"has an unsupported encoding ({error})", _FIX) from None


def _is_plain(data: bytes) -> bool:
    # Comparing arrays is several times faster than searching for each pair of characters.
    byte = np.frombuffer(data, np.uint8)
    space, equals, less, greater = (byte == ord(c) for c in " =<>")
    odd = space[:-1] & (space | equals | greater)[1:]  # " =", " >" and two spaces
    odd |= equals[:-1] & space[1:]
    odd |= less[:-1] & ((byte == ord("!")) | (byte == ord("?")))[1:]  # CDATA, comments, <?...?>
    return (
        data.isascii()
        and not any(c in data for c in b"'&\t\r\n\0")
        and not odd.any()
        and np.count_nonzero(less)
        == np.count_nonzero(greater)  # otherwise some ">" does not end a tag
    )


def start_tags(text: str, tag: str) -> Iterator[tuple[str, str]]:
    """Yields for each `tag` its attributes and the text up to the next start tag of that name."""
    pieces = iter(text.split(f"<{tag} "))
    next(pieces)
    for piece in pieces:
        head, _, rest = piece.partition(">")
        yield head, rest


def attributes(head: str) -> dict[str, str]:
    """Parses attributes such as `a="1" b="2"`."""
    parts = head.split('"')
    return {
        name.strip(" =/"): unescape(value)
        for name, value in zip(parts[0::2], parts[1::2], strict=False)
    }


def content(text: str, tag: str) -> str:
    """Returns the text of the first `<tag>…</tag>` without attributes; empty if there is none."""
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
    """Parses start tags that mostly differ only in a running number, each distinct one once.

    Returns:
        The running number of each of the n tags, the index of its other attributes, and the
        distinct attributes that are indexed.
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
    """Returns the number of frames of a video, and their width and height in pixels.

    Args:
        path: File, for errors.
        meta: Text before `</meta>`.

    Raises:
        DataError: A number is missing or not a positive integer.
    """
    try:
        found = [int(content(meta, tag)) for tag in ("size", "width", "height")]
    except ValueError:
        found = [0]
    if not all(0 < n < 1_000_000 for n in found):
        problem = "meta/task must have positive integers as size and original_size"
        raise DataError(path, problem, _CORRECT)
    length, width, height = found
    return length, width, height


def code_of(path: Path, name: str, value: str, known: Sequence[str], place: str) -> int:
    """Returns the index of a value in a vocabulary.

    Raises:
        DataError: The vocabulary does not contain it.
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
    """Converts the attributes of boxes to frames (L,) int32 and boxes (L, 4) float32 pixels.

    Args:
        path: File, for errors.
        layout: Text between the attribute values of a box, such as ` frame=`.
        numbers: Attribute values, box by box.
        ids: Names of the K tracks.
        offsets: (K + 1,) first box of each track.
        length: Number of frames of the video.

    Raises:
        DataError: A value is not a number, a box is degenerate, or frames do not increase.
    """
    names = [name.strip(" =") for name in layout[:-1]]  # the last text follows the last value
    if numbers and not {"frame", "xtl", "ytl", "xbr", "ybr"} <= set(names):
        raise DataError(path, f"box must have frame, xtl, ytl, xbr and ybr, has {names}", _CORRECT)

    def fail(bad: np.ndarray | np.bool, problem: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            track = int(np.searchsorted(offsets, row, side="right")) - 1
            seen = dict(zip(names, numbers[row * len(names) :], strict=False))
            place = f"track {ids[track]}, frame {seen['frame']}"
            corners = ", ".join(f"{name}={seen[name]}" for name in ("xtl", "ytl", "xbr", "ybr"))
            raise DataError(path, f"{problem} {corners}", _CORRECT, place)

    if not numbers:
        return np.empty(0, np.int32), np.empty((0, 4), np.float32)
    try:
        flat = np.fromiter(map(float, numbers), np.float64, len(numbers))
        every = "".join(numbers)
        fine = every.isascii() and "_" not in every  # Python parses 1_0 as ten
    except ValueError:
        fine = False
    if not fine:
        bad = np.array([not _is_number(number) for number in numbers])
        first = int(bad.argmax())
        problem = f"{names[first % len(names)]}={numbers[first]!r} is not a number, at box"
        fail(bad.reshape(-1, len(names)).any(1), problem)
    table = flat.reshape(-1, len(names))
    column = {name: table[:, i] for i, name in enumerate(names)}
    box = np.stack([column[name] for name in ("xtl", "ytl", "xbr", "ybr")], axis=1)
    fail(~np.isfinite(box).all(1), "box must have finite corners, got")
    fail((box[:, 2:] <= box[:, :2]).any(1), "box must have xtl < xbr and ytl < ybr, got")
    frame = column["frame"]
    fail(
        ~((frame >= 0) & (frame < length) & (frame == np.floor(frame))),
        f"frame must be an integer from 0 to {length - 1}, at box",
    )
    new_track = np.zeros(len(frame), bool)
    new_track[offsets[:-1]] = True
    fail(~new_track & (np.diff(frame, prepend=-1) <= 0), "frames must increase, at box")
    return frame.astype(np.int32), box.astype(np.float32)
