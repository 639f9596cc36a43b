"""Forecasts for everybody in every frame of a video, where nobody knows yet what will come.

Predictions (`vidreason.intent.predictions`) answer the questions of a protocol and are scored;
these here are to be looked at, and are what a video without annotation gets.
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
"""A row for each pedestrian, frame and predicted frame ahead (0: the event), with the box, px."""

META = {"video": str, "fps": float, "width": int, "height": int, "length": int, "every": int}
META |= {"threshold": float, "words": str, "model": str}
VERSION = 1
_AGAIN = "make it again with `vidreason predict --video`"


class Everywhere(NamedTuple):
    """Forecasts of a scene: W windows of people, E edges to their neighbours.

    Attributes:
        track: (W,) index into the scene's tracks.
        frame: (W,) last frame observed.
        probability: (W, K).
        window: (E,) whose forecast an edge is part of.
        sender: (E,) index into the scene's tracks.
        change: (E, K) by how much the sender raises the probability.
    """

    track: np.ndarray
    frame: np.ndarray
    probability: np.ndarray
    window: np.ndarray
    sender: np.ndarray
    change: np.ndarray


def forecast_scene(task: IntentTask, data: IntentData, scene: Scene) -> Everywhere:
    """Forecasts wherever T consecutive boxes of a person have been seen, edges included.

    Args:
        task: In `eval` mode.
        data: That it was trained with; need not have been read.
        scene: Its labels are not looked at.

    Raises:
        DataError: The scene lacks what the features show.
    """
    windows = open_windows([scene], data.protocol, data.observed, data.horizon)
    graphs = data.graphs([scene], windows)
    rows = np.arange(len(windows))
    probability = task.forecast(graphs)
    edges = task.influence(graphs, rows, probability)
    return Everywhere(windows.track, windows.last_frame, probability, *edges)


def horizon_words(protocol: str, horizon: int, rate: float) -> str:
    """What the last of K probabilities is of, in words.

    Args:
        protocol: Of the data.
        horizon: K.
        rate: Frames per second that the model knows.
    """
    if protocol == "stip":
        return f"is crossing in {horizon / rate:.3g} s"
    return f"crosses in {30 / rate:.3g} to {60 / rate:.3g} s"


@dataclass(frozen=True)
class Forecasts:
    """Forecasts read from a file.

    Attributes:
        source: The file.
        meta: Of the video and the model, by the names in `META`.
        table: By `SCHEMA`, sorted by frame.
    """

    source: Path
    meta: dict[str, Any]
    table: pa.Table

    def __getitem__(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy(zero_copy_only=False)


class Writer:
    """Takes the rows of one frame after another; memory does not grow with them."""

    def __init__(self, file: pq.ParquetWriter, video: str, ahead: np.ndarray) -> None:
        self.file, self.video, self.ahead = file, video, ahead
        self.rows: list[pa.RecordBatch] = []
        self.count = 0

    def add(
        self, frame: int, pedestrian: list[str], box: np.ndarray, probability: np.ndarray
    ) -> None:
        """Adds N pedestrians.

        Args:
            frame: Its number, greater than the last one.
            pedestrian: N names.
            box: (N, 4) px.
            probability: (N, K).
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
        """Writes what has come together."""
        if self.rows:
            self.file.write_table(pa.Table.from_batches(self.rows))
        self.rows.clear()


_GROUP = 256  # frames


@contextmanager
def write_forecasts(path: Path, meta: Mapping[str, Any], ahead: np.ndarray) -> Iterator[Writer]:
    """A file of forecasts that appears when it is whole.

    Args:
        path: Parquet file.
        meta: The names in `META`, and more.
        ahead: (K,) predicted frames ahead.
    """
    text = json.dumps({"kind": "forecasts", "version": VERSION, **meta}, allow_nan=False)
    schema = SCHEMA.with_metadata({"vidreason": text})
    with write_atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as file:
        writer = Writer(file, str(meta["video"]), ahead)
        yield writer
        writer.flush()


def are_forecasts(path: Path) -> bool:
    """Whether a Parquet file holds forecasts of this kind, rather than predictions."""
    try:
        return read_facts(path, _AGAIN).get("kind") == "forecasts"
    except DataError:
        return False


def read_forecasts(path: Path) -> Forecasts:
    """Reads and checks a file of forecasts.

    Raises:
        DataError: Not such a file, or something in it is missing or wrong.
    """
    table, meta = read_table(path, _AGAIN)
    if meta.get("kind") != "forecasts":
        raise DataError(path, "holds no forecasts of a video", _AGAIN)
    check_facts(path, meta, META, VERSION, _AGAIN)
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (KeyError, ValueError, pa.ArrowException) as error:
        problem = f"has other columns ({str(error).splitlines()[0]})"
        raise DataError(path, problem, _AGAIN) from None
    found = Forecasts(path, meta, table)
    probability, frame = found["probability"], found["frame"]
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError(path, "holds a probability that is not in 0…1", _AGAIN)
    if (np.diff(frame) < 0).any() or not ((frame >= 0) & (frame < meta["length"])).all():
        raise DataError(path, f"frames are not sorted, or not of {meta['length']}", _AGAIN)
    return found
