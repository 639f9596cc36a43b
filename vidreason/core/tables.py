"""Reads and validates Parquet and Arrow files from untrusted sources.

Facts about a whole table are stored as JSON in its schema metadata, under the key `vidreason`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidreason.core.errors import DataError


def read_facts(path: Path, fix: str) -> dict[str, Any]:
    """Reads the `vidreason` metadata of a table; empty if there is none.

    Args:
        path: Arrow IPC file if the name ends in `.arrow`, otherwise Parquet.
        fix: Suggested fix, for errors.

    Raises:
        DataError: The file is missing or unreadable.
    """
    with _refusing(path, fix):
        return _facts(_mapped(path).schema if path.suffix == ".arrow" else pq.read_schema(path))


def read_table(path: Path, fix: str) -> tuple[pa.Table, dict[str, Any]]:
    """Reads a table and its `vidreason` metadata; arguments as for `read_facts`.

    Arrow files are memory-mapped.

    Raises:
        DataError: The file is missing or damaged, or has duplicate column names.
    """
    with _refusing(path, fix):
        table = _mapped(path).read_all() if path.suffix == ".arrow" else pq.read_table(path)
        # Offsets out of bounds or invalid UTF-8 would crash the process or be read as values.
        table.validate(full=True)
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("duplicate column name")
        return table, _facts(table.schema)


def _facts(schema: pa.Schema) -> dict[str, Any]:
    facts = json.loads((schema.metadata or {}).get(b"vidreason", b"null"))
    return facts if isinstance(facts, dict) else {}


def _mapped(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


@contextmanager
def _refusing(path: Path, fix: str) -> Iterator[None]:
    if not path.is_file():
        raise DataError(path, "no such file", fix)
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        kind = "an Arrow file" if path.suffix == ".arrow" else "Parquet"
        problem = f"cannot be read as {kind} ({str(error).splitlines()[0]})"
        raise DataError(path, problem, fix) from None


def check_facts(
    path: Path, facts: Mapping[str, Any], kinds: Mapping[str, type], version: int, fix: str
) -> None:
    """Checks that metadata is present and has the expected types and version.

    Args:
        path: File, for errors.
        facts: Metadata by name.
        kinds: Expected type of each entry; a float must be finite.
        version: Expected value of `version`.
        fix: Suggested fix, for errors.

    Raises:
        DataError: An entry is missing or invalid; names the first.
    """
    if missing := [name for name in (*kinds, "version") if name not in facts]:
        raise DataError(path, f"lacks metadata {', '.join(missing)}", fix)
    for name, kind in kinds.items():
        value = facts[name]
        fine = type(value) is kind
        if kind is float:
            fine = type(value) in (int, float) and math.isfinite(value)
        if not fine:
            expected = "a finite number" if kind is float else f"of type {kind.__name__}"
            raise DataError(path, f"metadata {name} must be {expected}, got {value!r}", fix)
    if facts["version"] != version:
        problem = f"has version {facts['version']}, but this release reads {version}"
        raise DataError(path, problem, fix)
