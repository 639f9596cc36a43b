"""Whatever the bytes of a file, its parser answers with a value or one line."""

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
def sound(tmp_path_factory):
    """By parser, a sound data set and the bytes of the file that is to be damaged."""
    found = {}
    for name, parser in PARSERS.items():
        root = tmp_path_factory.mktemp("sound")
        parser.make(root)
        found[name] = root, (root / parser.file).read_bytes()
    return found


def reads(name, sound, data: bytes) -> bool:
    """Whether a parser takes the data, which it finds instead of the sound ones."""
    root, whole = sound[name]
    file = root / PARSERS[name].file
    file.write_bytes(data)
    try:
        return parsers.accepts(PARSERS[name], root)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", PARSERS)
def test_sound_files_are_taken_and_cut_or_flipped_ones_cost_one_line(name, sound):
    whole = sound[name][1]
    # The benchmark's file is held to its checksum, so that this one is another.
    assert reads(name, sound, whole) == (name != "moving mnist")
    rng = np.random.default_rng(len(whole))
    refused = 0
    for end in rng.integers(0, len(whole), 20):
        refused += not reads(name, sound, whole[:end])
    assert refused, "no cut was noticed"
    for place, bit in zip(rng.integers(0, len(whole), 100), rng.integers(0, 8, 100), strict=True):
        data = bytearray(whole)
        data[place] ^= 1 << bit
        reads(name, sound, bytes(data))


def _arrow(names) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table([pa.array([1], pa.int32())] * len(names), names=names)
    facts = b'{"version": 1, "video": "v", "fps": 9, "width": 9, "height": 9, "length": 9'
    facts += b', "every": 1}'
    table = table.replace_schema_metadata({"vidreason": facts})
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write(table)
    return sink.getvalue().to_pybytes()


# Each of these has once ended in a traceback.
FOUND = {
    "a prefix that is bound to nothing": ("jaad annotations", lambda data: b"<a:b/>"),
    "names of columns that are no text": ("boxes", lambda data: b"\xff" + data),
    "no segment": ("stip segments", lambda data: b""),
    "a key that is none": ("configuration", lambda data: b"null:"),
    "bytes for a key": ("balls npy", lambda data: data.replace(b" 'shape'", b"b'shape'")),
    "an archive that is none": ("moving mnist", lambda data: b"PK\x03\x04" + data),
    "two columns of one name": ("store", lambda data: _arrow(["frame", "frame"])),
    "a column that is missing": ("store", lambda data: _arrow(["frame"])),
    "video of an unknown kind": ("video", lambda data: data.replace(b"avc1", b"xxxx")),
    "bytes that are no text, in Parquet": (
        "predictions",
        lambda data: data.replace(b"pedestrian", b"pedestri\xff\xff"),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_is_refused(what, sound):
    name, spoil = FOUND[what]
    data = spoil(sound[name][1])
    assert data != sound[name][1]
    assert not reads(name, sound, data)


def test_a_short_search_finds_nothing(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    line = [sys.executable, TOOL, "all", "-runs=15000", "--out", tmp_path]
    done = subprocess.run([*map(str, line)], capture_output=True, text=True)
    logs = "\n".join(path.read_text(errors="replace") for path in tmp_path.glob("*.txt"))
    assert done.returncode == 0, logs[:3000]
