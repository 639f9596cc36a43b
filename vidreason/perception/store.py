"""The store of prepared videos: what a segmenter saw in each, one Arrow file per video.

A row is one instance in one frame; rows are sorted by frame, then number of the track. Arrow's file
format is read by pandas, polars, DuckDB and others without this package, and is mapped into memory:
a window of frames is found by bisection and costs no copy. What holds for the whole video is JSON
in the schema's metadata, under `vidreason`.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from vidreason.core.errors import DataError
from vidreason.core.tables import check_facts, read_facts, read_table
from vidreason.perception import masks
from vidreason.perception.tracking import assign, box_iou
from vidreason.scenes.scene import KINDS, OBJECTS, Scene, bare_scene

VERSION = 1
SUFFIX = ".arrow"
_BATCH = 64  # frames written at a time
_MOST = 10**8  # frames of a video, and pixels
_SAME = 0.5  # intersection over union of an annotated box and the instance in it
_CORNERS = ("x1", "y1", "x2", "y2")
_AGAIN = "make it again with `vidreason prepare`"


_ABOUT = {"video": str, "fps": float, "width": int, "height": int, "length": int, "every": int}


def _columns(features: int) -> pa.Schema:
    return pa.schema(
        [
            ("frame", pa.int32()),
            ("track", pa.int32()),
            ("kind", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            *((name, pa.float32()) for name in _CORNERS),
            ("mask", pa.list_(pa.int32())),
            ("feature", pa.list_(pa.float16(), features)),
        ]
    )


class Instances(NamedTuple):
    """What a segmenter sees in one frame of H x W pixels: N instances that don't overlap.

    Attributes:
        image: (H, W) unsigned integers, the number of the instance from 1 to N; 0 is nobody.
        label: N names of classes, as the segmenter calls them.
        kind: (N,) int8, index into `vidreason.scenes.scene.KINDS`.
        score: (N,) float32, the segmenter's confidence, 0 to 1.
        features: (C, h, w) of the whole frame, coarser, to be averaged over each mask.
    """

    image: np.ndarray
    label: list[str]
    kind: np.ndarray
    score: np.ndarray
    features: np.ndarray


class Writer:
    """Writes a prepared video, in pieces of some frames, so that memory does not grow with it.

    Args:
        path: Of the new file.
        about: Facts of the video: `video`, `fps`, `width`, `height`, `length` in frames, `every`
            (each nth frame was looked at), and whatever tells how it was made.
        features: C, width of the instances' features.
    """

    def __init__(self, path: Path, about: dict[str, Any], features: int) -> None:
        text = json.dumps({"version": VERSION, **about}, sort_keys=True)
        self.schema = _columns(features).with_metadata({"vidreason": text})
        self.file = pa.ipc.new_file(path, self.schema)
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        frame: int,
        found: Instances,
        track: np.ndarray,
        mask: masks.Masks,
        feature: np.ndarray,
    ) -> None:
        """Adds the N instances of a frame.

        Args:
            frame: Its number, greater than the last one.
            found: What they are.
            track: (N,) numbers of the tracks they belong to.
            mask: Their masks.
            feature: (N, C).
        """
        order = np.argsort(track)
        box = masks.boxes(mask)
        counts = pa.ListArray.from_arrays(mask.offsets, mask.counts)
        self.rows.append(
            {
                "frame": np.full(len(track), frame, np.int32),
                "track": track[order].astype(np.int32),
                "kind": [KINDS[k] for k in found.kind[order]],
                "label": [found.label[n] for n in order],
                "score": found.score[order].astype(np.float32),
                **{name: box[order, n] for n, name in enumerate(_CORNERS)},
                "mask": counts.take(order),
                "feature": pa.FixedSizeListArray.from_arrays(
                    feature[order].astype(np.float16).ravel(),
                    type=self.schema.field("feature").type,
                ),
            }
        )
        if len(self.rows) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        batches = [pa.record_batch(rows, schema=self.schema) for rows in self.rows]
        if any(batch.num_rows for batch in batches):
            self.file.write_batch(pa.concat_batches(batches))
        self.rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self.file.close()


class Prepared:
    """A prepared video, mapped into memory.

    Args:
        path: Of its file.

    Attributes:
        about: What `Writer` was told of it.
        table: All rows; columns `frame`, `track`, `kind`, `label`, `score`, `x1`, `y1`, `x2`, `y2`
            in pixels, `mask` (run lengths, see `vidreason.perception.masks`) and `feature` (C).

    Raises:
        DataError: Missing, damaged, or written by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = about(path)
        self.table, _ = read_table(path, _AGAIN)
        _check_columns(path, self.table)
        self.frame = self.table["frame"].to_numpy()
        self.length = int(self.about["length"])
        if len(self.frame) and not (
            (np.diff(self.frame) >= 0).all() and self.frame[0] >= 0 and self.frame[-1] < self.length
        ):
            raise DataError(path, f"frames are not sorted, or not of {self.length}", _AGAIN)

    def window(self, start: int, stop: int) -> pa.Table:
        """The rows of the frames from `start` to before `stop`, without a copy."""
        first, last = np.searchsorted(self.frame, [start, stop])
        return self.table.slice(first, last - first)

    def boxes(self) -> np.ndarray:
        """(L, 4) float32 pixels."""
        return np.stack([self.table[name].to_numpy() for name in _CORNERS], 1)

    def kinds(self) -> np.ndarray:
        """(L,) int8, index into `KINDS`.

        Raises:
            DataError: A row is of another kind.
        """
        code = self.table["kind"].combine_chunks().dictionary_encode()
        names = code.dictionary.to_pylist()
        if unknown := set(names) - set(KINDS):
            problem = f"holds the kind {min(unknown)!r}, none of {', '.join(KINDS)}"
            raise DataError(self.path, problem, _AGAIN)
        index = np.array([KINDS.index(name) for name in names], np.int8)
        return index[code.indices.to_numpy()] if names else np.empty(0, np.int8)

    def features(self) -> np.ndarray:
        """(L, C) float16."""
        column = self.table["feature"].combine_chunks()
        return column.flatten().to_numpy().reshape(-1, column.type.list_size)

    def scene(self) -> Scene:
        """Scene of the frames that were looked at; nothing is labelled.

        Raises:
            DataError: Rows that contradict each other.
        """
        every = int(self.about["every"])
        track = self.table["track"].to_numpy()
        order = np.lexsort((self.frame, track))
        ids, first = np.unique(track[order], return_index=True)
        boxes, kind = len(order), self.kinds()[order]
        offsets = np.append(first, boxes).astype(np.int64)
        frame = self.frame[order] // every
        later = np.setdiff1d(np.arange(1, boxes), first)
        if (frame[later] <= frame[later - 1]).any() or (kind[later] != kind[later - 1]).any():
            raise DataError(self.path, "a track is twice in a frame, or changes its kind", _AGAIN)
        return bare_scene(
            str(self.about["video"]),
            float(self.about["fps"]) / every,
            (int(self.about["width"]), int(self.about["height"])),
            -(-self.length // every),
            tuple(str(i) for i in ids),
            kind[first],
            offsets,
            frame,
            self.boxes()[order],
            self.features()[order],
        )


def about(path: Path) -> dict[str, Any]:
    """What is known of a prepared video, without reading it.

    Raises:
        DataError: Missing, damaged, or written by another version.
    """
    if not path.is_file():
        raise DataError(path, "no such file", "make it with `vidreason prepare`")
    facts = read_facts(path, _AGAIN)
    check_facts(path, facts, _ABOUT, VERSION, _AGAIN)
    for name in ("fps", "width", "height", "length", "every"):
        if not 0 < facts[name] < _MOST:
            raise DataError(path, f"metadata {name}={facts[name]} is out of range", _AGAIN)
    return facts


def _check_columns(path: Path, table: pa.Table) -> None:
    fields = {field.name: field.type for field in table.schema}
    wide = fields.get("feature")
    width = wide.list_size if wide is not None and pa.types.is_fixed_size_list(wide) else 0
    for field in _columns(width):
        if fields.get(field.name) != field.type:
            problem = f"column {field.name} is {fields.get(field.name)}, expected {field.type}"
            raise DataError(path, problem, _AGAIN)
        if table[field.name].null_count:
            raise DataError(path, f"column {field.name} has empty cells", _AGAIN)
    box = np.stack([table[name].to_numpy() for name in _CORNERS])
    if not np.isfinite(box).all():
        raise DataError(path, "holds a box that is not finite", _AGAIN)


def with_instances(scene: Scene, prepared: Prepared) -> Scene:
    """The annotated scene as a segmenter sees it too.

    Each frame's annotated people are assigned to its segmented ones by the overlap of their boxes,
    and take over their features; between the frames that were looked at, those of the last one.
    What is no person comes in as tracks of its own. Segmented people whom nobody annotated stay
    out.

    Raises:
        DataError: The video has another size or length than the annotation says.
    """
    seen = tuple(int(prepared.about[name]) for name in ("width", "height", "length"))
    annotated = (scene.width, scene.height, scene.length)
    if seen != annotated:
        size = "{} x {} of {} frames".format
        problem = f"{size(*seen)}, but annotated is {size(*annotated)}"
        raise DataError(prepared.path, problem, "prepare the video that was annotated")
    kind, box, feature = prepared.kinds(), prepared.boxes(), prepared.features()
    row = match(scene, prepared.frame, kind, box)
    every = int(prepared.about["every"])
    # The last match of the same track, if it is not older than a sampled frame.
    at = np.maximum.accumulate(np.where(row >= 0, np.arange(len(row)), -1))
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    fresh = (at >= 0) & (track[at] == track) & (scene.frame - scene.frame[at] < every)
    image = (
        np.where(fresh[:, None], feature[row[at]], 0)
        if len(feature)
        else np.zeros((len(row), feature.shape[1]), np.float16)
    )
    other = prepared.scene()
    things = np.flatnonzero(np.isin(other.kind, [KINDS.index(name) for name in OBJECTS]))
    rows = np.concatenate(
        [np.empty(0, np.int64), *(np.arange(*other.offsets[k : k + 2]) for k in things)]
    )
    sizes = np.diff(other.offsets)[things]

    def longer(columns: dict[str, np.ndarray], more: int) -> dict[str, np.ndarray]:
        return {n: np.append(c, np.full(more, -1, c.dtype)) for n, c in columns.items()}

    assert other.image is not None
    return Scene(
        **{
            **{name: getattr(scene, name) for name in Scene.__slots__},
            "track_ids": (*scene.track_ids, *(f"segment {other.track_ids[k]}" for k in things)),
            "kind": np.append(scene.kind, other.kind[things]),
            "facts": longer(scene.facts, len(things)),
            "offsets": np.append(scene.offsets, scene.offsets[-1] + np.cumsum(sizes)),
            "frame": np.append(scene.frame, other.frame[rows] * np.int32(every)),
            "box": np.concatenate([scene.box, other.box[rows]]),
            "cues": longer(scene.cues, len(rows)),
            "labels": longer(scene.labels, len(rows)),
            "image": np.concatenate([image, other.image[rows]]).astype(np.float16),
        }
    )


def with_store(scene: Scene, store: Path) -> Scene:
    """`with_instances` of the video of the same name in a store."""
    return with_instances(scene, Prepared(store / f"{scene.id}{SUFFIX}"))


def match(scene: Scene, frame: np.ndarray, kind: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Which of L instances each annotated person is, (rows of the scene,) int64; -1 for none.

    Args:
        scene: The annotation.
        frame: (L,) of the instances, not decreasing.
        kind: (L,) index into `KINDS`.
        box: (L, 4) pixels.
    """
    person = KINDS.index("person")
    asked = np.flatnonzero(np.repeat(scene.kind, np.diff(scene.offsets)) == person)
    asked = asked[np.argsort(scene.frame[asked], kind="stable")]
    there = np.flatnonzero(kind == person)
    found = np.full(len(scene.frame), -1)
    for now in np.intersect1d(scene.frame[asked], frame[there]):
        ours = asked[slice(*np.searchsorted(scene.frame[asked], [now, now + 1]))]
        theirs = there[slice(*np.searchsorted(frame[there], [now, now + 1]))]
        one, two = assign(box_iou(scene.box[ours], box[theirs]), _SAME)
        found[ours[one]] = theirs[two]
    return found
