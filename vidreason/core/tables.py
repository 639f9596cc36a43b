"""Tables of others, Parquet or Arrow: read whole, as they promise to be, or refused in one line.

Facts that hold for a whole table are JSON in its metadata, under `vidreason`.
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


def read_facts(path: Path, mend: str) -> dict[str, Any]:
    """What a table says of itself; nothing if it has no such metadata.

    Args:
        path: Of the file; a name that ends in `.arrow` is Arrow's file format.
        mend: For errors.

    Raises:
        DataError: Missing, or no such file.
    """
    with _refusing(path, mend):
        return _facts(_mapped(path).schema if path.suffix == ".arrow" else pq.read_schema(path))


def read_table(path: Path, mend: str) -> tuple[pa.Table, dict[str, Any]]:
    """The table and what it says of itself; arguments as for `read_facts`.

    An Arrow file is mapped into memory.

    Raises:
        DataError: Missing, damaged, or with two columns of one name.
    """
    with _refusing(path, mend):
        table = _mapped(path).read_all() if path.suffix == ".arrow" else pq.read_table(path)
        # Values that are out of bounds or no text would end the process, or be taken for some.
        table.validate(full=True)
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("a column is there twice")
        return table, _facts(table.schema)


def _facts(schema: pa.Schema) -> dict[str, Any]:
    facts = json.loads((schema.metadata or {}).get(b"vidreason", b"null"))
    return facts if isinstance(facts, dict) else {}


def _mapped(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


@contextmanager
def _refusing(path: Path, mend: str) -> Iterator[None]:
    if not path.is_file():
        raise DataError(path, "no such file", mend)
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        kind = "an Arrow file" if path.suffix == ".arrow" else "Parquet"
        problem = f"cannot be read as {kind} ({str(error).splitlines()[0]})"
        raise DataError(path, problem, mend) from None


def check_facts(
    path: Path, facts: Mapping[str, Any], kinds: Mapping[str, type], version: int, mend: str
) -> None:
    """Refuses facts that are missing, of another kind, or of another version.

    Args:
        path: Of the file, for errors.
        facts: By name.
        kinds: What they must be; numbers must be finite.
        version: What `version` must be.
        mend: For errors.

    Raises:
        DataError: Names the first.
    """
    if missing := [name for name in (*kinds, "version") if name not in facts]:
        raise DataError(path, f"lacks metadata {', '.join(missing)}", mend)
    for name, kind in kinds.items():
        value = facts[name]
        fine = type(value) is kind
        if kind is float:
            fine = type(value) in (int, float) and math.isfinite(value)
        if not fine:
            raise DataError(path, f"metadata {name}={value!r} is no {kind.__name__}", mend)
    if facts["version"] != version:
        problem = f"has version {facts['version']}, this program reads {version}"
        raise DataError(path, problem, mend)
