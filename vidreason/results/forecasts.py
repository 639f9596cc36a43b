"""Forecasts: predictions for every person in every frame of a video, without labels.

Predictions files (`vidreason.intent.predictions`) follow a protocol and are scored; forecasts are
for inspection, and for videos without annotation.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.core.tables import check_facts, read_facts, read_table
from vidreason.intent.data import IntentData
from vidreason.intent.task import IntentTask
from vidreason.intent.windows import open_windows
from vidreason.scenes.scene import Scene

SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("pedestrian", pa.string()),
        ("frame", pa.int32()),
        ("horizon", pa.int32()),
        ("probability", pa.float32()),
        *((name, pa.float32()) for name in ("x1", "y1", "x2", "y2")),
    ]
)
"""One row per pedestrian, frame and horizon (frames ahead; 0 is the event), with the box, px."""

META = {"video": str, "fps": float, "width": int, "height": int, "length": int, "every": int}
META |= {"threshold": float, "words": str, "model": str}
VERSION = 1
_AGAIN = "write it again with `vidreason predict --video`"


class Everywhere(NamedTuple):
    """Predictions for a scene: W observation windows, and E edges from their neighbours.

    Attributes:
        track: (W,) target, index into the scene's tracks.
        frame: (W,) last observed frame.
        probability: (W, K) in [0, 1].
        window: (E,) index of the window that an edge belongs to.
        sender: (E,) neighbour, index into the scene's tracks.
        change: (E, K) influence: the probability minus that without the sender.
    """

    track: np.ndarray
    frame: np.ndarray
    probability: np.ndarray
    window: np.ndarray
    sender: np.ndarray
    change: np.ndarray


def forecast_scene(task: IntentTask, data: IntentData, scene: Scene) -> Everywhere:
    """Predicts for every person in every frame that ends T consecutive boxes.

    Args:
        task: Model in `eval` mode.
        data: Data module that it was trained with; `setup` need not have been called.
        scene: Scene; its labels are not used.

    Raises:
        DataError: The scene lacks annotation that the features need.
    """
    windows = open_windows([scene], data.protocol, data.observed, data.horizon)
    graphs = data.graphs([scene], windows)
    rows = np.arange(len(windows))
    probability = task.forecast(graphs)
    edges = task.influence(graphs, rows, probability)
    return Everywhere(windows.track, windows.last_frame, probability, *edges)


def horizon_words(protocol: str, horizon: int, rate: float) -> str:
    """Returns the target of the last of K probabilities in words: "crosses in 1 to 2 s".

    Args:
        protocol: Protocol of the data.
        horizon: Prediction horizon K, frames.
        rate: Frame rate the model was trained at.
    """
    if protocol == "stip":
        return f"is crossing in {horizon / rate:.3g} s"
    return f"crosses in {30 / rate:.3g} to {60 / rate:.3g} s"


@dataclass(frozen=True)
class Forecasts:
    """Forecasts read from a file.

    Attributes:
        source: File they were read from.
        meta: Metadata of video and model, by the names in `META`.
        table: Columns of `SCHEMA`, sorted by frame.
    """

    source: Path
    meta: dict[str, Any]
    table: pa.Table

    def __getitem__(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy(zero_copy_only=False)


class Writer:
    """Writes the rows of one frame after another, in bounded memory."""

    def __init__(self, file: pq.ParquetWriter, video: str, ahead: np.ndarray) -> None:
        self.file, self.video, self.ahead = file, video, ahead
        self.rows: list[pa.RecordBatch] = []
        self.count = 0

    def add(
        self, frame: int, pedestrian: list[str], box: np.ndarray, probability: np.ndarray
    ) -> None:
        """Adds N pedestrians of a frame.

        Args:
            frame: Frame number, greater than the last one.
            pedestrian: Names of the N pedestrians.
            box: (N, 4) corners x1, y1, x2, y2, px.
            probability: (N, K) in [0, 1].
        """
        number, steps = probability.shape
        corners = np.repeat(box.astype(np.float32), steps, 0).T
        columns = [
            pa.array([self.video] * number * steps),
            pa.array(np.repeat(np.array(pedestrian, object), steps), pa.string()),
            pa.array(np.full(number * steps, frame, np.int32)),
            pa.array(np.tile(self.ahead, number).astype(np.int32)),
            pa.array(probability.astype(np.float32).ravel()),
            *map(pa.array, corners),
        ]
        self.rows.append(pa.record_batch(columns, schema=self.file.schema))
        self.count += number * steps
        if len(self.rows) == _GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered rows."""
        if self.rows:
            self.file.write_table(pa.Table.from_batches(self.rows))
        self.rows.clear()


_GROUP = 256  # frames


@contextmanager
def write_forecasts(path: Path, meta: Mapping[str, Any], ahead: np.ndarray) -> Iterator[Writer]:
    """Yields a writer of a forecasts file, which is written atomically.

    Args:
        path: Output file, Parquet.
        meta: Metadata by the names in `META`; further names are allowed.
        ahead: (K,) horizons, frames ahead.
    """
    text = json.dumps({"kind": "forecasts", "version": VERSION, **meta}, allow_nan=False)
    schema = SCHEMA.with_metadata({"vidreason": text})
    with write_atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as file:
        writer = Writer(file, str(meta["video"]), ahead)
        yield writer
        writer.flush()


def are_forecasts(path: Path) -> bool:
    """Returns whether a file is a forecasts file, and not a predictions file."""
    try:
        return read_facts(path, _AGAIN).get("kind") == "forecasts"
    except DataError:
        return False


def read_forecasts(path: Path) -> Forecasts:
    """Reads and checks a forecasts file.

    Raises:
        DataError: Another kind of file, or something in it is missing or wrong.
    """
    table, meta = read_table(path, _AGAIN)
    if meta.get("kind") != "forecasts":
        raise DataError(path, "is not a forecasts file", _AGAIN)
    check_facts(path, meta, META, VERSION, _AGAIN)
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (KeyError, ValueError, pa.ArrowException) as error:
        problem = f"has wrong columns ({str(error).splitlines()[0]})"
        raise DataError(path, problem, _AGAIN) from None
    found = Forecasts(path, meta, table)
    probability, frame = found["probability"], found["frame"]
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError(path, "contains a probability that is not in [0, 1]", _AGAIN)
    if (np.diff(frame) < 0).any() or not ((frame >= 0) & (frame < meta["length"])).all():
        problem = f"frames are not sorted or not in 0 to {meta['length'] - 1}"
        raise DataError(path, problem, _AGAIN)
    return found
