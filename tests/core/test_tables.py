"""Tables of others, in both formats."""

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


def test_a_table_and_what_it_says_of_itself_come_back(path):
    table = pa.table({"x": [1, 2], "y": ["a", None]})
    write(path, table)
    found, facts = read_table(path, "mend it")
    assert found.equals(table) and facts == read_facts(path, "mend it") == FACTS


@pytest.mark.parametrize("facts", [None, [1], "text", 7, None])
def test_a_table_that_says_nothing_has_no_facts(path, facts):
    write(path, pa.table({"x": [1]}), facts)
    assert read_facts(path, "mend it") == read_table(path, "mend it")[1] == {}


@pytest.mark.parametrize("read", [read_facts, read_table])
def test_what_is_no_table_is_refused_in_a_line(path, read):
    kind = "an Arrow file" if path.suffix == ".arrow" else "Parquet"
    with pytest.raises(DataError, match=r"no such file; mend it$"):
        read(path, "mend it")
    path.write_bytes(b"no table\nat all")
    with pytest.raises(DataError, match=rf"cannot be read as {kind} \(.*\); mend it$"):
        read(path, "mend it")
    table = pa.table({"x": [1]}).replace_schema_metadata({"vidreason": "{" * 9})
    write(path, table, None)
    with pytest.raises(DataError, match=rf"cannot be read as {kind} \(.*\); mend it$"):
        read(path, "mend it")


def test_two_columns_of_one_name_are_refused(path):
    write(path, pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]))
    with pytest.raises(DataError, match="twice|Multiple matches"):
        read_table(path, "mend it")


def test_values_that_lead_out_of_the_file_are_refused(tmp_path):
    # The first word ends beyond the bytes there are.
    offsets = np.array([0, 999, 2], np.int32)
    words = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"ab")]
    )
    write(tmp_path / "t.arrow", pa.table({"x": words}))
    with pytest.raises(DataError, match="cannot be read as an Arrow file"):
        read_table(tmp_path / "t.arrow", "mend it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"fps": 29.97}, None),
        ({"fps": True}, "metadata fps=True is no float"),
        ({"fps": float("inf")}, "metadata fps=inf is no float"),
        ({"fps": "30"}, "metadata fps='30' is no float"),
        ({"name": 3}, "metadata name=3 is no str"),
        ({"version": 2}, "has version 2, this program reads 1"),
        ({"version": ...}, "lacks metadata version"),
        ({"name": ..., "fps": ...}, "lacks metadata name, fps"),
    ],
)
def test_facts_are_checked_by_name_and_kind(tmp_path, change, words):
    facts = {name: value for name, value in (FACTS | change).items() if value is not ...}
    kinds = {"name": str, "fps": float}
    if words is None:
        check_facts(tmp_path, facts, kinds, 1, "mend it")
        return
    with pytest.raises(DataError) as error:
        check_facts(tmp_path, facts, kinds, 1, "mend it")
    assert str(error.value) == f"{tmp_path}: {words}; mend it"
