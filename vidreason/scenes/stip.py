"""STIP: reads JSON of boxes and crossing states in three cameras into `Scene` objects.

Format: Liu et al., RA-L 2020, and the scripts published with the dataset. A sequence is a drive of
several minutes, annotated in segments of interest. Pedestrians in the centre camera are prediction
targets; those in the side cameras are only context. `datasets/stip/README.md` describes how to
request the data.
"""

import json
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.scenes.cache import cached, content_key, read_each
from vidreason.scenes.scene import FACTS, KINDS, LABELS, SIGNALS, Scene

TEST = (
    "downtown_ann_3-09-28-2017",
    "downtown_palo_alto_6",
    "dt_san_jose_4",
    "mountain_view_4",
    "sf_soma_2",
)
"""The published test sequences."""

Rate = Literal[2, 20]
Views = Literal["centre", "all"]
_CENTRE = "idx00"
_VAL_EVERY = 5
_MOST_BYTES = 1 << 29
_SEGMENT = re.compile(r"\s*(\d+):(\d\d)\s*--\s*(\d+):(\d\d)")
_FIX = "restore the file from the original dataset"


class _Boxes(NamedTuple):
    """Columns of the L boxes of one camera, in file order."""

    frame: list[int]
    track: list[str]
    box: list[tuple[float, ...]]
    cross: list[int]
    size: tuple[int, int]


def splits(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Assigns sequences to splits: the published `test`, and every fifth of the rest to `val`."""
    rest = sorted(set(names) - set(TEST))
    return {
        "train": tuple(n for i, n in enumerate(rest) if i % _VAL_EVERY != _VAL_EVERY - 1),
        "val": tuple(rest[_VAL_EVERY - 1 :: _VAL_EVERY]),
        "test": tuple(n for n in TEST if n in names),
    }


def read_stip(
    root: Path, rate: Rate = 2, views: Views = "centre", cache: bool = True
) -> list[Scene]:
    """Reads all annotated sequences under `root`, sorted by name.

    Args:
        root: Folder that contains one folder for each sequence.
        rate: Frames per second: 2, as annotated, or 20, with interpolated boxes.
        views: `all` adds the pedestrians of the side cameras as context. Their boxes are in pixels
            of their own images; the dataset does not tell how the images relate.
        cache: Keep a cache in `root`, from which unchanged files are loaded the next time.

    Returns:
        Scenes. A track is a pedestrian in one segment of interest, `ID@SEGMENT`, or
        `ID@SEGMENT idxNN` in a side camera. `labels["cross"]` is the state in each frame, -1 if
        missing. Sequences without annotations are skipped with a warning, and with `views="all"`
        also those without side cameras.

    Raises:
        DataError: There are no sequences, or a file is damaged.
    """
    if not root.is_dir():
        raise DataError(
            root, "no such folder", "`vidreason data card stip` says how to get the data"
        )
    names, paths = [], []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        cameras = _cameras(folder, rate)
        if _CENTRE not in cameras:
            warnings.warn(f"{folder}: has no annotations of the centre camera", stacklevel=2)
        elif views == "all" and len(cameras) == 1:
            warnings.warn(f"{folder}: has no side cameras", stacklevel=2)
        else:
            names.append(folder.name)
            segments = folder / f"{folder.name}.txt"
            paths += [*cameras.values(), *([segments] if segments.exists() else [])]
    if not names:
        fix = "`vidreason data card stip` says how to get the data; give its folder"
        raise DataError(root, f"has no sequence annotated at {rate} frames per second", fix)

    def read() -> list[Scene]:
        return read_each("STIP", names, lambda name: read_sequence(root / name, rate, views))

    if not cache:
        return read()
    code = [Path(__file__).with_name(n) for n in ("stip.py", "scene.py", "cache.py")]
    key = content_key(paths, code)
    return cached(root / ".vidreason" / f"scenes-{rate}-{views}.npz", key, read)


def _cameras(folder: Path, rate: Rate) -> dict[str, Path]:
    """Returns the annotation files by camera, the centre camera first."""
    before = "processed_interpolations_new_" if rate == 20 else ""
    pattern = re.compile(rf"{before}{re.escape(folder.name)}_(idx\d\d)\.mkv\.json")
    found = ((pattern.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {match[1]: path for match, path in found if match}


def read_sequence(folder: Path, rate: Rate = 2, views: Views = "centre") -> Scene:
    """Reads one sequence; arguments and errors as for `read_stip`."""
    cameras = _cameras(folder, rate)
    if _CENTRE not in cameras:
        raise DataError(folder, "has no annotations of the centre camera", _FIX)
    chosen = list(cameras)[: None if views == "all" else 1]
    segments = _segments(folder / f"{folder.name}.txt")
    read = [_boxes(cameras[camera]) for camera in chosen]
    frames = np.concatenate([np.array(b.frame, np.int64) for b in read])
    box = np.concatenate([np.array(b.box, np.float32).reshape(-1, 4) for b in read])
    cross = np.concatenate([np.array(b.cross, np.int8) for b in read])
    camera = np.repeat(np.arange(len(read)), [len(b.frame) for b in read])
    who = np.array([name for b in read for name in b.track], object)

    # The segment that contains the middle of each frame's time.
    seconds = (frames + 0.5) / rate
    inside = (segments[:, :1] <= seconds) & (seconds < segments[:, 1:])
    part = np.where(inside.any(0), inside.argmax(0), -1)
    names = [
        f"{w}@{p}" + f" {chosen[c]}" * bool(c) for w, p, c in zip(who, part, camera, strict=True)
    ]
    track_ids, track = np.unique(np.array(names, str), return_inverse=True)
    order = np.lexsort((frames, track))
    order = order[part[order] >= 0]
    kept, offsets = np.unique(track[order], return_index=True)
    twice = np.flatnonzero((np.diff(frames[order]) == 0) & (np.diff(track[order]) == 0))
    if len(twice):
        row = order[twice[0]]
        place = f"frame {frames[row] + 1}"
        source = cameras[chosen[camera[row]]]
        raise DataError(source, f"pedestrian {who[row]!r} has two boxes", _FIX, place)
    length = int(frames.max(initial=-1)) + 1
    boxes, tracks = len(order), len(kept)
    of = np.searchsorted(kept, track[order])
    labelled = np.bincount(of, cross[order] >= 0, minlength=tracks) > 0
    side = camera[order][offsets]
    unknown = np.full(boxes, -1, np.int8)
    facts = dict.fromkeys(FACTS, np.full(tracks, -1, np.int32))
    facts |= {
        "behaviour": (labelled & (side == 0)).astype(np.int32),
        "camera": side.astype(np.int32),
    }
    return Scene(
        id=folder.name,
        fps=float(rate),
        width=read[0].size[0],
        height=read[0].size[1],
        length=length,
        attributes={},
        ego_action=np.full(length, -1, np.int8),
        signals=dict.fromkeys(SIGNALS, np.full(length, -1, np.int8)),
        track_ids=tuple(track_ids[kept].tolist()),
        kind=np.full(tracks, KINDS.index("person"), np.int8),
        facts=facts,
        offsets=np.append(offsets, boxes).astype(np.int64),
        frame=frames[order].astype(np.int32),
        box=box[order],
        cues={"occlusion": unknown},
        labels=dict.fromkeys(LABELS, unknown) | {"cross": cross[order]},
    )


def _segments(path: Path) -> np.ndarray:
    """Reads segments of interest, (S, 2) seconds; without a file, one infinite segment."""
    if not path.exists():
        return np.array([[0.0, math.inf]])
    spans = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read ({error})", _FIX) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _SEGMENT.match(line)
        start, stop = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3)) if match else (0, 0)
        if not start < stop:
            problem = f"{line.strip()[:60]!r} is not a segment such as 00:05 -- 00:25"
            raise DataError(path, problem, _FIX, f"line {number}")
        spans.append((start, stop))
    if not spans:
        raise DataError(path, "lists no segments such as 00:05 -- 00:25", _FIX)
    return np.array(spans, float)


def _boxes(path: Path) -> _Boxes:
    content = _load(path)
    frames = content.get("frames")
    if not isinstance(frames, dict):
        raise DataError(path, "has no object `frames`", _FIX)
    found = _Boxes([], [], [], [], _size(path, frames))
    width, height = found.size
    skipped = 0
    for key, rows in frames.items():
        place = f"frame {key}"
        # Keys are frame numbers from 1, at the frame rate of the file.
        if not key.isdecimal() or not 0 < int(key) < 10**8:
            raise DataError(path, f"{key!r} is not a frame number from 1", _FIX)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(path, "is not a list of boxes", _FIX, place)
        for row in rows:
            name = row.get("matchIds", row.get("boxId"))
            corners = row["box"] if isinstance(row.get("box"), dict) else row
            numbers = [corners.get(side) for side in ("x1", "y1", "x2", "y2")]
            if None in numbers or not isinstance(name, str | int):
                skipped += 1
                continue
            if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
                raise DataError(path, f"box {numbers} must have four finite numbers", _FIX, place)
            # Boxes were drawn by hand: corners may be swapped or slightly outside the image.
            x1, x2 = (min(max(n, 0), width) for n in sorted(numbers[::2]))
            y1, y2 = (min(max(n, 0), height) for n in sorted(numbers[1::2]))
            if not (x1 < x2 and y1 < y2):
                raise DataError(path, f"box {numbers} is empty or outside the image", _FIX, place)
            state = row.get("crossed")
            if state is not None and type(state) is not bool:
                raise DataError(path, f"crossed={state!r} must be true or false", _FIX, place)
            found.frame.append(int(key) - 1)
            found.track.append(str(name))
            found.box.append((x1, y1, x2, y2))
            found.cross.append(-1 if state is None else int(state))
    if skipped:
        warnings.warn(f"{path}: skipped {skipped} boxes without corners or identity", stacklevel=2)
    return found


def _size(path: Path, frames: dict[str, Any]) -> tuple[int, int]:
    """Returns the image size stated by the boxes, in pixels; 1936 x 1216 if none states it."""
    for rows in frames.values():
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and "width" in row and "height" in row:
                size = row["width"], row["height"]
                if all(type(n) is int and 0 < n < 100_000 for n in size):
                    return size
                raise DataError(path, f"invalid image size {size[0]!r} x {size[1]!r}", _FIX)
    return 1936, 1216


def _load(path: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a valid number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("duplicate key")
        return found

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(path, f"is larger than {_MOST_BYTES >> 20} MiB", _FIX)
        content = json.loads(path.read_bytes(), parse_constant=refuse, object_pairs_hook=once)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _FIX) from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not valid JSON ({error})", _FIX) from None
    if not isinstance(content, dict):
        raise DataError(path, "is not a JSON object", _FIX)
    return content
