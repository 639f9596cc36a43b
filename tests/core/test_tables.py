"""Reading and validation of Parquet and Arrow files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidreason.core.errors import DataError
from vidreason.core.tables import check_facts, read_facts, read_table

FACTS = {"name": "a", "fps": 30, "version": 1}


def write(path, table, facts=FACTS):
    if facts is not None:
        table = table.replace_schema_metadata({"vidreason": json.dumps(facts)})
    if path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    else:
        pq.write_table(table, path)
    return path


@pytest.fixture(params=["t.arrow", "t.parquet"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_a_table_and_its_metadata_round_trip(path):
    table = pa.table({"x": [1, 2], "y": ["a", None]})
    write(path, table)
    found, facts = read_table(path, "fix it")
    assert found.equals(table) and facts == read_facts(path, "fix it") == FACTS


@pytest.mark.parametrize("facts", [None, [1], "text", 7])
def test_metadata_of_another_type_counts_as_none(path, facts):
    write(path, pa.table({"x": [1]}), facts)
    assert read_facts(path, "fix it") == read_table(path, "fix it")[1] == {}


@pytest.mark.parametrize("read", [read_facts, read_table])
def test_unreadable_files_are_rejected(path, read):
    kind = "an Arrow file" if path.suffix == ".arrow" else "Parquet"
    with pytest.raises(DataError, match=r"no such file; fix it$"):
        read(path, "fix it")
    path.write_bytes(b"not a\ntable")
    with pytest.raises(DataError, match=rf"cannot be read as {kind} \(.*\); fix it$"):
        read(path, "fix it")
    table = pa.table({"x": [1]}).replace_schema_metadata({"vidreason": "{" * 9})
    write(path, table, None)
    with pytest.raises(DataError, match=rf"cannot be read as {kind} \(.*\); fix it$"):
        read(path, "fix it")


def test_duplicate_columns_are_rejected(path):
    write(path, pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]))
    with pytest.raises(DataError, match="duplicate column name|Multiple matches"):
        read_table(path, "fix it")


def test_offsets_out_of_bounds_are_rejected(tmp_path):
    # The first string ends beyond its buffer.
    offsets = np.array([0, 999, 2], np.int32)
    words = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"ab")]
    )
    write(tmp_path / "t.arrow", pa.table({"x": words}))
    with pytest.raises(DataError, match="cannot be read as an Arrow file"):
        read_table(tmp_path / "t.arrow", "fix it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"fps": 29.97}, None),
        ({"fps": True}, "metadata fps must be a finite number, got True"),
        ({"fps": float("inf")}, "metadata fps must be a finite number, got inf"),
        ({"fps": "30"}, "metadata fps must be a finite number, got '30'"),
        ({"name": 3}, "metadata name must be of type str, got 3"),
        ({"version": 2}, "has version 2, but this release reads 1"),
        ({"version": ...}, "lacks metadata version"),
        ({"name": ..., "fps": ...}, "lacks metadata name, fps"),
    ],
)
def test_metadata_is_checked_by_name_and_type(tmp_path, change, words):
    facts = {name: value for name, value in (FACTS | change).items() if value is not ...}
    kinds = {"name": str, "fps": float}
    if words is None:
        check_facts(tmp_path, facts, kinds, 1, "fix it")
        return
    with pytest.raises(DataError) as error:
        check_facts(tmp_path, facts, kinds, 1, "fix it")
    assert str(error.value) == f"{tmp_path}: {words}; fix it"
