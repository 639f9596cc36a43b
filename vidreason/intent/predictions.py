"""Predictions as a Parquet file with one row per window and horizon.

Predictions of any origin (a run, another project, a rule) are evaluated in this format, by the same
code on the same rows. The metadata of the file describe the data and the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.core.tables import check_facts, read_table
from vidreason.intent.features import is_oracle
from vidreason.intent.windows import Windows, pedestrians
from vidreason.scenes.scene import Scene

COLUMNS = {
    "video": pa.string(),
    "pedestrian": pa.string(),
    "last_frame": pa.int32(),
    "horizon": pa.int32(),
    "probability": pa.float32(),
    "label": pa.int8(),
}
KEY = ["video", "pedestrian", "last_frame", "horizon"]
META = {
    "dataset": str,
    "protocol": str,
    "subset": str,
    "split": str,
    "features": list,
    "oracle": bool,
    "threshold": float,
    "n_expected": int,
}
VERSION = 1
_FIX = "write the predictions again"


@dataclass(frozen=True)
class Predictions:
    """Predictions of one run on one split: n rows, sorted by `KEY`.

    Attributes:
        source: File that they were read from.
        meta: Metadata of the file; see `write_predictions`.
        table: Table with the columns `COLUMNS`, and `clean` for protocol `benchmark`.
        cluster: (n,) int, a number for each pedestrian.
    """

    source: Path
    meta: dict[str, Any]
    table: pa.Table
    cluster: np.ndarray

    def __getitem__(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy()

    @property
    def oracle(self) -> bool:
        """Whether the model reads the label or attributes that leak it."""
        return self.meta["oracle"] or is_oracle(self.meta["features"])


def prediction_columns(
    windows: Windows, scenes: Sequence[Scene], probability: np.ndarray
) -> dict[str, Any]:
    """Returns the columns of a predictions file; rows without a label are left out.

    Args:
        windows: W windows with K prediction targets each.
        scenes: Videos that `windows` were made from.
        probability: (W, K) crossing probabilities.
    """
    label = windows.label[:, windows.observed :]
    row, k = np.nonzero(label >= 0)
    return {
        "video": np.array([scenes[s].id for s in windows.scene], object)[row],
        "pedestrian": np.array(pedestrians(windows, scenes), object)[row],
        "last_frame": windows.last_frame[row],
        "horizon": (k + (windows.protocol == "stip")).astype(np.int32),
        "probability": probability[row, k],
        "label": label[row, k],
        "clean": windows.clean[row],
    }


def write_predictions(path: Path, columns: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Writes predictions to a file, atomically.

    Args:
        path: Output Parquet file.
        columns: (n,) arrays by the names in `COLUMNS`, and `clean` for protocol `benchmark`.
        meta: Metadata by the names in `META`: `threshold` is the one chosen on the validation
            split, `n_expected` the number of rows of the complete split. Runs with `seed` and
            `config` (a text that is the same for runs that differ only by seed) can be averaged.

    Raises:
        DataError: If a column or metadata entry is missing or invalid.
    """
    names = [*COLUMNS, "clean"] if "clean" in columns else list(COLUMNS)
    _need(path, "column", names, columns)
    table = pa.table({name: pa.array(columns[name]) for name in names})
    table = _checked(path, table, {**meta, "version": VERSION})[0]
    text = json.dumps({**meta, "version": VERSION}, allow_nan=False)
    with write_atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"vidreason": text}), temporary)


def read_predictions(path: Path) -> Predictions:
    """Reads and validates predictions.

    Raises:
        DataError: If the file is not a predictions file, or a column, metadata entry or value is
            missing or invalid.
    """
    fix = "give a predictions file or a run folder"
    table, meta = read_table(path, fix)
    if not meta:
        raise DataError(path, "has no `vidreason` metadata", fix)
    return Predictions(path, meta, *_checked(path, table, meta))


def ranks(table: pa.Table, names: Sequence[str] = KEY) -> np.ndarray:
    """Returns the dense rank (n,) of each row in lexicographic order, from 0."""
    rank = np.zeros(len(table), np.int64)
    for name in names:
        column = table[name].combine_chunks().dictionary_encode()
        words, code = np.unique(
            column.dictionary.to_numpy(zero_copy_only=False), return_inverse=True
        )
        rank = np.unique(rank * len(words) + code[column.indices], return_inverse=True)[1]
    return rank


def match(one: pa.Table, other: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of `one` and of `other` that have equal `KEY`s, sorted by key."""
    rank = ranks(pa.concat_tables([one.select(KEY), other.select(KEY)]))
    _, left, right = np.intersect1d(
        rank[: len(one)], rank[len(one) :], assume_unique=True, return_indices=True
    )
    return left, right


def _need(path: Path, what: str, names: Sequence[str], given: Mapping[str, Any]) -> None:
    if missing := [name for name in names if name not in given]:
        raise DataError(path, f"lacks {what} {', '.join(missing)}", _FIX)


def _checked(path: Path, table: pa.Table, meta: dict[str, Any]) -> tuple[pa.Table, np.ndarray]:
    """Returns the table with its schema and sorted by `KEY`, and the cluster of each row."""
    check_facts(path, meta, META, VERSION, _FIX)
    if not 0 <= meta["threshold"] <= 1:
        raise DataError(path, f"metadata threshold={meta['threshold']} is not in [0, 1]", _FIX)

    schema = COLUMNS | ({"clean": pa.bool_()} if meta["protocol"] == "benchmark" else {})
    _need(path, "column", list(schema), dict.fromkeys(table.column_names))
    if not 0 < len(table) <= meta["n_expected"]:
        problem = f"holds {len(table)} rows of {meta['n_expected']} expected"
        raise DataError(path, problem, _FIX)
    columns = {}
    for name, kind in schema.items():
        try:
            columns[name] = table[name].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(path, f"column {name} is not {kind}", _FIX) from None
        if nulls := columns[name].null_count:
            raise DataError(path, f"column {name} has {nulls} empty cells", _FIX)
    table = pa.table(columns)

    def refuse(bad: np.ndarray, name: str, problem: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            problem = f"{name} {table[name][row].as_py()!r} {problem}"
            raise DataError(path, problem, _FIX, f"row {row + 1}")

    probability, label = table["probability"].to_numpy(), table["label"].to_numpy()
    refuse(~((probability >= 0) & (probability <= 1)), "probability", "is not in [0, 1]")
    refuse((label != 0) & (label != 1), "label", "is neither 0 nor 1")
    for name in ("last_frame", "horizon"):
        refuse(table[name].to_numpy() < 0, name, "is negative")
    rank = ranks(table)
    order = np.argsort(rank, kind="stable")
    repeated = np.zeros(len(rank), bool)
    repeated[order[1:]] = rank[order[1:]] == rank[order[:-1]]
    refuse(repeated, "pedestrian", "has another prediction for the same frame and horizon")
    return (table := table.take(order)), ranks(table, KEY[:2])
