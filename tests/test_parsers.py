"""Whatever the bytes of a file, its parser returns a value or raises a one-line `DataError`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from make import parsers
from make.parsers import PARSERS

TOOL = Path(__file__).parent.parent / "tools" / "fuzz.py"


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """By parser, the folder of a valid dataset and the bytes of the file to damage."""
    found = {}
    for name, parser in PARSERS.items():
        root = tmp_path_factory.mktemp("valid")
        parser.make(root)
        found[name] = root, (root / parser.file).read_bytes()
    return found


def accepts(name, valid, data: bytes) -> bool:
    """Returns whether a parser accepts `data` in place of the valid file."""
    root, whole = valid[name]
    file = root / PARSERS[name].file
    file.write_bytes(data)
    try:
        return parsers.accepts(PARSERS[name], root)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_accepted_or_refused_in_one_line(name, valid):
    whole = valid[name][1]
    # The official file has a fixed checksum, which a small one cannot have.
    assert accepts(name, valid, whole) == (name != "moving mnist")
    rng = np.random.default_rng(len(whole))
    cuts = rng.integers(0, len(whole), 10)
    assert not all([accepts(name, valid, whole[:end]) for end in cuts]), "no cut was noticed"
    for place, bit in zip(rng.integers(0, len(whole), 30), rng.integers(0, 8, 30), strict=True):
        data = bytearray(whole)
        data[place] ^= 1 << bit
        accepts(name, valid, bytes(data))


def _arrow(names) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table([pa.array([1], pa.int32())] * len(names), names=names)
    facts = b'{"version": 1, "video": "v", "fps": 9, "width": 9, "height": 9, "length": 9'
    facts += b', "every": 1}'
    table = table.replace_schema_metadata({"vidreason": facts})
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write(table)
    return sink.getvalue().to_pybytes()


# Each of these once ended in a traceback.
FOUND = {
    "unbound XML prefix": ("jaad annotations", lambda data: b"<a:b/>"),
    "column names that are not UTF-8": ("boxes", lambda data: b"\xff" + data),
    "no segment": ("stip segments", lambda data: b""),
    "null key": ("configuration", lambda data: b"null:"),
    "bytes as a key": ("balls npy", lambda data: data.replace(b" 'shape'", b"b'shape'")),
    "invalid zip archive": ("moving mnist", lambda data: b"PK\x03\x04" + data),
    "duplicate column": ("store", lambda data: _arrow(["frame", "frame"])),
    "missing column": ("store", lambda data: _arrow(["frame"])),
    "unknown video codec": ("video", lambda data: data.replace(b"avc1", b"xxxx")),
    "Parquet strings that are not UTF-8": (
        "predictions",
        lambda data: data.replace(b"pedestrian", b"pedestri\xff\xff"),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_input_that_once_caused_a_traceback_is_refused(what, valid):
    name, damage = FOUND[what]
    data = damage(valid[name][1])
    assert data != valid[name][1]
    assert not accepts(name, valid, data)


@pytest.mark.slow
def test_short_fuzzing_finds_no_uncaught_error(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    line = [sys.executable, TOOL, "all", "-runs=10000", "--out", tmp_path]
    done = subprocess.run([*map(str, line)], capture_output=True, text=True)
    logs = "\n".join(path.read_text(errors="replace") for path in tmp_path.glob("*.txt"))
    assert done.returncode == 0, logs[:3000]
