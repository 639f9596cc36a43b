"""The store of prepared videos: tracked instances, one Arrow file per video.

A row is one instance in one frame; rows are sorted by frame, then by track number. pandas, polars,
DuckDB and others read Arrow's file format without this package, and it is memory-mapped: a window
of frames is found by bisection and not copied. Metadata of the video are JSON in the metadata of
the schema, under the key `vidreason`.
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
_MOST = 10**8  # upper bound of the frame rate, width, height, length and `every`
_MIN_IOU = 0.5  # of an annotated box and the instance assigned to it
_CORNERS = ("x1", "y1", "x2", "y2")
_FIX = "run `vidreason prepare` again"
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
    """Output of a segmenter for one frame of H x W pixels: N instances that do not overlap.

    Attributes:
        image: (H, W) unsigned integers, instance number 1 to N per pixel; 0 is background.
        label: N class names of the segmenter.
        kind: (N,) int8, index into `vidreason.scenes.scene.KINDS`.
        score: (N,) float32, confidence of the segmenter, 0 to 1.
        features: (C, h, w) feature map of the frame, of lower resolution, to be averaged over each
            mask.
    """

    image: np.ndarray
    label: list[str]
    kind: np.ndarray
    score: np.ndarray
    features: np.ndarray


class Writer:
    """Writes a prepared video in batches of frames, so that memory does not grow with its length.

    Args:
        path: Output file.
        about: Metadata of the video: `video`, `fps`, `width`, `height`, `length` in frames, `every`
            (every nth frame is included), and further keys that say how it was made.
        features: C, width of the appearance features.
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
            frame: Frame number, greater than the previous one.
            found: Instances of the frame.
            track: (N,) track numbers.
            mask: N masks.
            feature: (N, C) appearance features.
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
    """A prepared video, memory-mapped.

    Args:
        path: File of the store.

    Attributes:
        about: Metadata, as given to `Writer`.
        table: L rows, one per instance and frame; columns `frame`, `track`, `kind`, `label`,
            `score`, `x1`, `y1`, `x2`, `y2` in pixels, `mask` (run lengths, see
            `vidreason.perception.masks`) and `feature` (C values).

    Raises:
        DataError: The file is missing, damaged, or written by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = about(path)
        self.table, _ = read_table(path, _FIX)
        _check_columns(path, self.table)
        self.frame = self.table["frame"].to_numpy()
        self.length = int(self.about["length"])
        if len(self.frame) and not (
            (np.diff(self.frame) >= 0).all() and self.frame[0] >= 0 and self.frame[-1] < self.length
        ):
            problem = f"frames must be sorted and between 0 and {self.length - 1}"
            raise DataError(path, problem, _FIX)

    def window(self, start: int, stop: int) -> pa.Table:
        """Returns the rows of frames `start` to `stop` (exclusive), without a copy."""
        first, last = np.searchsorted(self.frame, [start, stop])
        return self.table.slice(first, last - first)

    def boxes(self) -> np.ndarray:
        """Returns boxes, (L, 4) float32 pixels: x1, y1, x2, y2."""
        return np.stack([self.table[name].to_numpy() for name in _CORNERS], 1)

    def kinds(self) -> np.ndarray:
        """Returns kinds, (L,) int8, index into `KINDS`.

        Raises:
            DataError: A row has an unknown kind.
        """
        code = self.table["kind"].combine_chunks().dictionary_encode()
        names = code.dictionary.to_pylist()
        if unknown := set(names) - set(KINDS):
            problem = f"kind must be one of {', '.join(KINDS)}, got {min(unknown)!r}"
            raise DataError(self.path, problem, _FIX)
        index = np.array([KINDS.index(name) for name in names], np.int8)
        return index[code.indices.to_numpy()] if names else np.empty(0, np.int8)

    def features(self) -> np.ndarray:
        """Returns appearance features, (L, C) float16."""
        column = self.table["feature"].combine_chunks()
        return column.flatten().to_numpy().reshape(-1, column.type.list_size)

    def scene(self) -> Scene:
        """Returns the segmented frames as a scene without labels.

        Raises:
            DataError: A track has two rows in one frame, or changes its kind.
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
            problem = "a track has two rows in one frame, or changes its kind"
            raise DataError(self.path, problem, _FIX)
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
    """Reads the metadata of a prepared video only.

    Raises:
        DataError: The file is missing, damaged, or written by another version.
    """
    if not path.is_file():
        raise DataError(path, "no such file", "create it with `vidreason prepare`")
    facts = read_facts(path, _FIX)
    check_facts(path, facts, _ABOUT, VERSION, _FIX)
    for name in ("fps", "width", "height", "length", "every"):
        if not 0 < facts[name] < _MOST:
            problem = f"metadata {name} must be above 0 and below {_MOST}, got {facts[name]}"
            raise DataError(path, problem, _FIX)
    return facts


def _check_columns(path: Path, table: pa.Table) -> None:
    fields = {field.name: field.type for field in table.schema}
    wide = fields.get("feature")
    width = wide.list_size if wide is not None and pa.types.is_fixed_size_list(wide) else 0
    for field in _columns(width):
        if fields.get(field.name) != field.type:
            problem = f"column {field.name} must be {field.type}, got {fields.get(field.name)}"
            raise DataError(path, problem, _FIX)
        if table[field.name].null_count:
            raise DataError(path, f"column {field.name} has missing values", _FIX)
    box = np.stack([table[name].to_numpy() for name in _CORNERS])
    if not np.isfinite(box).all():
        raise DataError(path, "a box is not finite", _FIX)


def with_instances(scene: Scene, prepared: Prepared) -> Scene:
    """Joins an annotated scene with the segmented instances of its video.

    In each segmented frame, annotated pedestrians are assigned to segmented persons by box IoU and
    get their appearance features, which they keep until the next segmented frame. Other instances
    are added as tracks of their own; persons without annotation are left out.

    Raises:
        DataError: The video differs in size or length from the annotation.
    """
    seen = tuple(int(prepared.about[name]) for name in ("width", "height", "length"))
    annotated = (scene.width, scene.height, scene.length)
    if seen != annotated:
        size = "{} x {} with {} frames".format
        problem = f"must be {size(*annotated)} as annotated, got {size(*seen)}"
        raise DataError(prepared.path, problem, "prepare the video that was annotated")
    kind, box, feature = prepared.kinds(), prepared.boxes(), prepared.features()
    row = match(scene, prepared.frame, kind, box)
    every = int(prepared.about["every"])
    # The last match of the same track, if it is in the last segmented frame.
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
    """Joins an annotated scene with the video of the same name in a store; see `with_instances`."""
    return with_instances(scene, Prepared(store / f"{scene.id}{SUFFIX}"))


def match(scene: Scene, frame: np.ndarray, kind: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Assigns annotated pedestrians to the L segmented instances, frame by frame, by box IoU.

    Args:
        scene: Annotated scene of R rows.
        frame: (L,) frame numbers of the instances, not decreasing.
        kind: (L,) index into `KINDS`.
        box: (L, 4) pixels.

    Returns:
        (R,) int64, the instance of each row; -1 for none.
    """
    person = KINDS.index("person")
    annotated = np.flatnonzero(np.repeat(scene.kind, np.diff(scene.offsets)) == person)
    annotated = annotated[np.argsort(scene.frame[annotated], kind="stable")]
    segmented = np.flatnonzero(kind == person)
    found = np.full(len(scene.frame), -1)
    for now in np.intersect1d(scene.frame[annotated], frame[segmented]):
        ours = annotated[slice(*np.searchsorted(scene.frame[annotated], [now, now + 1]))]
        theirs = segmented[slice(*np.searchsorted(frame[segmented], [now, now + 1]))]
        one, two = assign(box_iou(scene.box[ours], box[theirs]), _MIN_IOU)
        found[ours[one]] = theirs[two]
    return found
