"""Custom datasets: reads a table of boxes and a table of videos into `Scene` objects.

`boxes.csv` has one row for each box of each track, `videos.csv` one row for each video. The dataset
card `datasets/boxes/README.md` describes their columns. Convert annotations in any other format to
these tables to use them with windows, graphs, models and reports.
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
# Crossing is read as float, since many programs write integers with missing values as 1.0.
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
_RATE = 20, 35  # frame rates for which 30 frames count as one second
_FIX = "fix the table; `vidreason data card boxes` describes its columns"


class Table(NamedTuple):
    """A table and its file, to report where it is wrong.

    Attributes:
        path: Source file.
        columns: (n,) values of each column; missing values are "" or NaN.
    """

    path: Path
    columns: dict[str, np.ndarray]

    def text(self, name: str) -> np.ndarray:
        """Returns an optional text column; "" if it is missing."""
        return self.columns.get(name, np.full(len(self.columns["video"]), "", object))

    def refuse(self, wrong: np.ndarray, problem: str, **more: np.ndarray) -> None:
        """Raises an error for the first row in which `wrong` is true.

        Args:
            wrong: (n,) bool.
            problem: Message; a column name in braces is replaced by its value in that row.
            more: Further columns for the message, (n,) each.
        """
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        values = {name: column[row] for name, column in {**self.columns, **more}.items()}
        # The first line of a CSV file is the header.
        place = f"line {row + 2}" if self.path.suffix == ".csv" else f"row {row + 1}"
        raise DataError(self.path, problem.format(**values), _FIX, place)


def read_boxes(root: Path, protocol: str) -> tuple[list[Scene], dict[str, str]]:
    """Reads the tables under `root`.

    Args:
        root: Folder with `boxes.csv` or `boxes.parquet`, and `videos.csv`.
        protocol: Evaluation protocol. All but `stip` count 30 frames as one second and accept
            only frame rates from 20 to 35.

    Returns:
        Scenes, and the split of each by name, both in the order of `videos.csv`. Tracks are in the
        order of their first rows. For a person with crossing labels, `facts["behaviour"]` is 1,
        `facts["crossing"]` is 1 if any box is labelled crossing, otherwise 0, and
        `facts["crossing_point"]` is the frame of the first such box, -1 if there is none.

    Raises:
        DataError: A table or column is missing, or a row is invalid; names the first.
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
    """Reads a table; extra columns are text, or rejected if `known` is given and lacks them."""
    paths = [path for suffix in suffixes if (path := root / f"{name}{suffix}").is_file()]
    if len(paths) != 1:
        problem = f"{name}{suffixes[0]} is missing" if not paths else f"has two files for {name}"
        raise DataError(root, problem, "`vidreason data card boxes` describes the expected files")
    (path,) = paths
    types = needed | (known or {})
    try:
        if path.suffix == ".csv":
            # With a single thread, errors name the row.
            found = pa.csv.read_csv(
                path,
                pa.csv.ReadOptions(use_threads=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types, strings_can_be_null=False, null_values=["", "nan", "NaN"]
                ),
            )
        else:
            found, _ = read_table(path, _FIX)
        names = found.column_names
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(path, " ".join(str(error).split()), _FIX) from None
    missing = [column for column in needed if column not in names]
    strange = [column for column in names if known is not None and column not in types]
    if missing or strange or len(set(names)) < len(names):
        problem = "has duplicate columns"
        if missing:
            problem = f"has no column {missing[0]!r}"
        elif strange:
            problem = f"has an unknown column {strange[0]!r}"
        raise DataError(path, problem, _FIX)
    table = Table(path, {})
    for column in names:
        kind = types.get(column, pa.string())
        try:
            values = found[column].cast(kind).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problem = f"column {column!r}: {' '.join(str(error).split())}"
            raise DataError(path, problem, _FIX) from None
        text = pa.types.is_string(kind)
        blank = "" if text else np.nan if pa.types.is_floating(kind) else 0
        empty = values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        filled = values.fill_null(blank).to_numpy(zero_copy_only=False)
        if column in needed and column != "crossing":
            table.refuse((filled == "") if text else empty, f"{column} is empty")
        table.columns[column] = filled
    return table


def _check_videos(videos: Table, protocol: str) -> dict[str, int]:
    """Validates the videos and returns the row of each by name."""
    column = videos.columns
    first = np.zeros(len(column["video"]), bool)
    first[np.unique(column["video"].astype(str), return_index=True)[1]] = True
    videos.refuse(~first, "duplicate video {video!r}")
    words = f"split must be one of {', '.join(SPLITS)}, got {{split!r}}"
    videos.refuse(~np.isin(column["split"].astype(str), SPLITS), words)
    for name, most in (("width", 100_000), ("height", 100_000), ("length", 10_000_000)):
        good = (column[name] >= 1) & (column[name] <= most)
        videos.refuse(~good, f"{name} must be between 1 and {most}, got {{{name}}}")
    fps = column["fps"]
    words = "fps must be above 0 and at most 1000, got {fps}"
    videos.refuse(~((fps > 0) & (fps <= 1000)), words)
    words = "fps {fps} is far from that of the first video, and windows are measured in frames"
    videos.refuse(abs(np.log(fps / fps[:1])) > np.log(1.3), words)
    if protocol != "stip":
        # A window has 16 boxes, about half a second, and ends 30 to 60 frames before the event.
        low, high = _RATE
        words = f"fps must be between {low} and {high}, got {{fps}}, "
        words += "since this protocol counts 30 frames as one second; "
        words += "keep every Nth frame, or use the protocol stip"
        videos.refuse((fps < low) | (fps > high), words)
    return {name: row for row, name in enumerate(column["video"].tolist())}


def _check_boxes(boxes: Table, videos: Table, number: dict[str, int]) -> np.ndarray:
    """Validates the boxes and returns the row of the video of each, (L,)."""
    column = boxes.columns
    # Look up each name once, not once per box.
    names, code = _codes(column["video"])
    of = np.array([number.get(name, -1) for name in names], np.int64)
    video = of[code]
    boxes.refuse(video < 0, f"video {{video!r}} is not in {videos.path.name}")
    size = {name: videos.columns[name][video] for name in ("width", "height", "length")}
    out = (column["frame"] < 0) | (column["frame"] >= size["length"])
    problem = "frame must be between 0 and {last} in video {video!r}, got {frame}"
    boxes.refuse(out, problem, last=size["length"] - 1)
    x1, y1, x2, y2 = (column[name] for name in _CORNERS)
    boxes.refuse(~np.isfinite(x1 + y1 + x2 + y2), "box coordinates must be finite")
    box = "box {x1:g}, {y1:g}, {x2:g}, {y2:g} "
    boxes.refuse((x1 >= x2) | (y1 >= y2), box + "is empty, x1 < x2 and y1 < y2 are required")
    gone = (x2 <= 0) | (y2 <= 0) | (x1 >= size["width"]) | (y1 >= size["height"])
    boxes.refuse(gone, box + "is outside the image, whose size in pixels is in videos.csv")
    crossing = column["crossing"]
    neither = ~np.isnan(crossing) & ~np.isin(crossing, (0, 1))
    boxes.refuse(neither, "crossing must be 0, 1 or empty, got {crossing:g}")
    for name, words in (("kind", TRACKS), ("occlusion", OCCLUSION)):
        good = np.isin(boxes.text(name).astype(str), ("", *words))
        boxes.refuse(~good, f"{name} must be one of {', '.join(words)}, got {{{name}!r}}")
    return video


def _codes(names: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns the distinct names in order of appearance, and the index of each name."""
    encoded = pa.array(names, pa.string()).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _scenes(boxes: Table, videos: Table, video: np.ndarray) -> list[Scene]:
    column = boxes.columns
    who, code = _codes(column["pedestrian"])
    # A track is a pair of video and name; tracks are numbered by their first rows.
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
    boxes.refuse(
        again, "pedestrian {pedestrian!r} of video {video!r} has two boxes in frame {frame}"
    )

    word = boxes.text("kind")[order]
    kind = np.zeros(len(order), np.int8)
    for name in TRACKS:
        kind[word == name] = KINDS.index(name)
    changed = np.zeros(len(order), bool)
    changed[order[1:]] = (np.diff(track) == 0) & (np.diff(kind) != 0)
    boxes.refuse(changed, "kind {kind!r} differs from earlier boxes of the track")

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
    """Derives the facts of K tracks from their boxes, (K,) int32 each."""
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
