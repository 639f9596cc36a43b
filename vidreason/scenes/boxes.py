"""Boxes of one's own: two tables, to `Scene`.

`boxes.csv` has a row for each box of each track, `videos.csv` a row for each video; the card in
`datasets/boxes` says what is in their columns. Whoever has annotations in another format writes
these tables, and gets windows, graphs, models and reports.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from vidreason.core.errors import DataError
from vidreason.core.tables import read_table
from vidreason.scenes.scene import KINDS, OCCLUSION, Scene, bare_scene

SPLITS = ("train", "val", "test")
TRACKS = tuple(kind for kind in KINDS if kind != "place")

_CORNERS = ("x1", "y1", "x2", "y2")
# Crossing is read as a number, since a column with gaps is written as 1.0 by many programs.
_BOXES = {"video": pa.string(), "pedestrian": pa.string(), "frame": pa.int64()} | dict.fromkeys(
    (*_CORNERS, "crossing"), pa.float64()
)
_BOXES_TOO = {"kind": pa.string(), "occlusion": pa.string()}
_VIDEOS = {
    "video": pa.string(),
    "split": pa.string(),
    "fps": pa.float64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "length": pa.int64(),
}
_RATE = 20, 35  # frames per second at which 30 frames are called a second
_MEND = "correct the table; datasets/boxes/README.md says what its columns hold"


class Table(NamedTuple):
    """A table that was read, with what is needed to say where it is wrong.

    Attributes:
        path: File.
        columns: Values of each column, (n,); "" and NaN where there is none.
    """

    path: Path
    columns: dict[str, np.ndarray]

    def text(self, name: str) -> np.ndarray:
        """A column of words that may be left out."""
        return self.columns.get(name, np.full(len(self.columns["video"]), "", object))

    def refuse(self, wrong: np.ndarray, problem: str) -> None:
        """Raises for the first row where `wrong` (n,) is; `problem` may name columns in braces."""
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        values = {name: column[row] for name, column in self.columns.items()}
        # Of a CSV the first line is the header.
        place = f"line {row + 2}" if self.path.suffix == ".csv" else f"row {row + 1}"
        raise DataError(self.path, problem.format(**values), _MEND, place)


def read_boxes(root: Path, protocol: str) -> tuple[list[Scene], dict[str, str]]:
    """Reads the tables under `root`.

    Args:
        root: Folder with `boxes.csv` or `boxes.parquet`, and `videos.csv`.
        protocol: What will be asked. The benchmark's counts frames as if 30 were a second.

    Returns:
        Scenes, and the split of each by its name, both in the order of `videos.csv`. Tracks come in
        the order of their first rows. Of a person whose boxes say so, `facts["behaviour"]` is 1,
        `facts["crossing"]` is whether any box is marked crossing, and `facts["crossing_point"]` the
        frame of the first that is, -1 if there is none.

    Raises:
        DataError: A table or a column is missing; or the first row that makes no sense.
    """
    videos = _read(root, "videos", (".csv",), _VIDEOS, None)
    boxes = _read(root, "boxes", (".csv", ".parquet"), _BOXES, _BOXES_TOO)
    number = _check_videos(videos, protocol)
    video = _check_boxes(boxes, videos, number)
    return _scenes(boxes, videos, video), dict(
        zip(videos.columns["video"].tolist(), videos.columns["split"].tolist(), strict=True)
    )


def _read(
    root: Path,
    name: str,
    suffixes: Sequence[str],
    needed: dict[str, pa.DataType],
    known: dict[str, pa.DataType] | None,
) -> Table:
    """Reads a table; columns beyond those needed are text, or refused where `known` lacks them."""
    paths = [path for suffix in suffixes if (path := root / f"{name}{suffix}").is_file()]
    if len(paths) != 1:
        problem = f"{name}{suffixes[0]} is missing" if not paths else f"has two files of {name}"
        raise DataError(root, problem, "datasets/boxes/README.md says what belongs there")
    (path,) = paths
    types = needed | (known or {})
    try:
        if path.suffix == ".csv":
            # In one thread, errors tell the row.
            found = pa.csv.read_csv(
                path,
                pa.csv.ReadOptions(use_threads=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types, strings_can_be_null=False, null_values=["", "nan", "NaN"]
                ),
            )
        else:
            found, _ = read_table(path, _MEND)
        names = found.column_names
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(path, " ".join(str(error).split()), _MEND) from None
    missing = [column for column in needed if column not in names]
    strange = [column for column in names if known is not None and column not in types]
    if missing or strange or len(set(names)) < len(names):
        problem = "has a column twice"
        if missing:
            problem = f"has no column {missing[0]!r}"
        elif strange:
            problem = f"has a column {strange[0]!r}, which means nothing here"
        raise DataError(path, problem, _MEND)
    table = Table(path, {})
    for column in names:
        kind = types.get(column, pa.string())
        try:
            values = found[column].cast(kind).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problem = f"column {column!r}: {' '.join(str(error).split())}"
            raise DataError(path, problem, _MEND) from None
        text = pa.types.is_string(kind)
        blank = "" if text else np.nan if pa.types.is_floating(kind) else 0
        empty = values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        filled = values.fill_null(blank).to_numpy(zero_copy_only=False)
        if column in needed and column != "crossing":
            table.refuse((filled == "") if text else empty, f"{column} is empty")
        table.columns[column] = filled
    return table


def _check_videos(videos: Table, protocol: str) -> dict[str, int]:
    """The row of each video."""
    column = videos.columns
    first = np.zeros(len(column["video"]), bool)
    first[np.unique(column["video"].astype(str), return_index=True)[1]] = True
    videos.refuse(~first, "video {video!r} is there twice")
    words = "split {split!r} is none of " + ", ".join(SPLITS)
    videos.refuse(~np.isin(column["split"].astype(str), SPLITS), words)
    for name, most in (("width", 100_000), ("height", 100_000), ("length", 10_000_000)):
        good = (column[name] >= 1) & (column[name] <= most)
        videos.refuse(~good, f"{name} {{{name}}} is not within 1 and {most}")
    fps = column["fps"]
    videos.refuse(~((fps > 0) & (fps <= 1000)), "fps {fps} is not within 0 and 1000")
    words = "fps {fps} is far from that of the first video, and windows count frames"
    videos.refuse(abs(np.log(fps / fps[:1])) > np.log(1.3), words)
    if protocol != "stip":
        # 16 boxes are half a second, and the crossing is 30 to 60 frames away.
        low, high = _RATE
        words = f"fps {{fps}} is not within {low} and {high}, "
        words += "and this protocol counts 30 frames as a second; "
        words += "keep every Nth frame, or take the protocol stip"
        videos.refuse((fps < low) | (fps > high), words)
    return {name: row for row, name in enumerate(column["video"].tolist())}


def _check_boxes(boxes: Table, videos: Table, number: dict[str, int]) -> np.ndarray:
    """(L,) the row in `videos` of each box."""
    column = boxes.columns
    # Each name once, not once for each of its boxes.
    names, code = _codes(column["video"])
    of = np.array([number.get(name, -1) for name in names], np.int64)
    video = of[code]
    boxes.refuse(video < 0, f"video {{video!r}} is not in {videos.path.name}")
    size = {name: videos.columns[name][video] for name in ("width", "height", "length")}
    out = (column["frame"] < 0) | (column["frame"] >= size["length"])
    boxes.refuse(out, "frame {frame} is outside of video {video!r}, whose frames count from 0")
    x1, y1, x2, y2 = (column[name] for name in _CORNERS)
    boxes.refuse(~np.isfinite(x1 + y1 + x2 + y2), "a corner of the box is no number")
    box = "box {x1:g}, {y1:g}, {x2:g}, {y2:g} "
    boxes.refuse((x1 >= x2) | (y1 >= y2), box + "is empty: x1 < x2 and y1 < y2 are needed")
    gone = (x2 <= 0) | (y2 <= 0) | (x1 >= size["width"]) | (y1 >= size["height"])
    boxes.refuse(gone, box + "is outside of the image, in pixels of videos.csv")
    crossing = column["crossing"]
    neither = ~np.isnan(crossing) & ~np.isin(crossing, (0, 1))
    boxes.refuse(neither, "crossing {crossing:g} is not 0, 1 or empty")
    for name, words in (("kind", TRACKS), ("occlusion", OCCLUSION)):
        good = np.isin(boxes.text(name).astype(str), ("", *words))
        boxes.refuse(~good, f"{name} {{{name}!r}} is none of " + ", ".join(words))
    return video


def _codes(names: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Distinct names in the order that they come in, and the index of each."""
    encoded = pa.array(names, pa.string()).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _scenes(boxes: Table, videos: Table, video: np.ndarray) -> list[Scene]:
    column = boxes.columns
    who, code = _codes(column["pedestrian"])
    # Tracks are pairs of video and name, numbered by their first rows.
    pair = video * max(len(who), 1) + code
    _, first, track = np.unique(pair, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    track = place[track]
    order = np.lexsort((column["frame"], track, video))
    track, video = track[order], video[order]
    frame = column["frame"][order]
    again = np.zeros(len(order), bool)
    again[order[1:]] = (np.diff(track) == 0) & (np.diff(frame) == 0)
    boxes.refuse(again, "pedestrian {pedestrian!r} of video {video!r} is twice in frame {frame}")

    word = boxes.text("kind")[order]
    kind = np.zeros(len(order), np.int8)
    for name in TRACKS:
        kind[word == name] = KINDS.index(name)
    changed = np.zeros(len(order), bool)
    changed[order[1:]] = (np.diff(track) == 0) & (np.diff(kind) != 0)
    boxes.refuse(changed, "kind {kind!r} differs from that of the same track before")

    box = np.stack([column[name] for name in _CORNERS], 1)[order]
    person = kind == KINDS.index("person")
    cross = np.where(person, np.nan_to_num(column["crossing"][order], nan=-1), -1).astype(np.int8)
    occlusion = np.full(len(order), -1, np.int8)
    for k, name in enumerate(OCCLUSION):
        occlusion[boxes.text("occlusion")[order] == name] = k
    scenes = []
    bounds = np.searchsorted(video, np.arange(len(videos.columns["video"]) + 1))
    extra = [name for name in videos.columns if name not in _VIDEOS]
    for v, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        rows = slice(int(start), int(stop))
        _, begin, count = np.unique(track[rows], return_index=True, return_counts=True)
        offsets = np.append(begin, stop - start).astype(np.int64)
        about = {name: values[v] for name, values in videos.columns.items()}
        bare = bare_scene(
            str(about["video"]),
            float(about["fps"]),
            (int(about["width"]), int(about["height"])),
            int(about["length"]),
            tuple(who[c] for c in code[order[start + begin]]),
            kind[rows][begin],
            offsets,
            frame[rows],
            box[rows],
            None,
        )
        scenes.append(
            replace(
                bare,
                attributes={name: str(about[name]) for name in extra},
                facts=bare.facts | _facts(offsets, frame[rows], cross[rows]),
                cues=bare.cues | {"occlusion": occlusion[rows]},
                labels=bare.labels | {"cross": cross[rows]},
            )
        )
    return scenes


def _facts(offsets: np.ndarray, frame: np.ndarray, cross: np.ndarray) -> dict[str, np.ndarray]:
    """What boxes say of K tracks as wholes, (K,) int32 each."""
    tracks = len(offsets) - 1
    crossing, point = np.full((2, tracks), -1, np.int32)
    track = np.repeat(np.arange(tracks), np.diff(offsets))
    marked = np.flatnonzero(cross == 1)
    crossers, first = np.unique(track[marked], return_index=True)
    known = np.bincount(track[cross >= 0], minlength=tracks) > 0
    crossing[known] = 0
    crossing[crossers] = 1
    point[crossers] = frame[marked[first]]
    return {"crossing": crossing, "crossing_point": point, "behaviour": known.astype(np.int32)}
