"""Conversion of STOVE's pickles without unpickling them."""

import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make.balls import assert_states, straight

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls

TOOL = Path(__file__).parents[2] / "tools" / "convert_stove.py"


def stove(**others) -> dict:
    x, v = straight(width=10, height=10)
    y = np.concatenate([np.clip(x, 0, 10), v / 80], -1)
    images = np.zeros((2, 5, 8, 8, 3))
    return {"X": images, "y": y, "coord_lim": 10, "r": 1.2, "m": 4.0, "dt": 1} | others


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOL.parent))
    try:
        import convert_stove
    finally:
        sys.path.remove(str(TOOL.parent))
    return convert_stove


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["<f8", ">f4"])
@pytest.mark.parametrize("order", "CF")
def test_stove_pickle_is_converted(tmp_path, tool, protocol, kind, order):
    y = stove()["y"]
    content = stove(y=y.astype(kind, order), r=np.float64(1.2), m=np.full(3, 4))
    del content["coord_lim"]
    content["hw"] = np.float32(10)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    balls = tool.read_stove(path)
    assert_states(balls, y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1), rtol=1e-6)


def test_pickle_of_an_older_numpy_is_converted(tmp_path, tool):
    path, content = tmp_path / "x.pkl", pickle.dumps(stove(), 2)
    older = content.replace(b"cnumpy._core.", b"cnumpy.core.")
    assert older.count(b"cnumpy.core.") == 1
    path.write_bytes(older)
    y = stove()["y"]
    assert_states(tool.read_stove(path), y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1))


def test_converter_output_is_readable(tmp_path, monkeypatch):
    content = stove()
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    monkeypatch.setattr(sys, "argv", ["convert_stove", str(path), str(tmp_path / "x.npz")])
    runpy.run_path(str(TOOL), run_name="__main__")
    y = content["y"]
    assert_states(
        read_balls(tmp_path / "x.npz"), y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1), 1e-6
    )


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_malicious_pickle_is_rejected_without_running_it(tmp_path):
    path, trace = tmp_path / "x.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps(stove(r=Evil(os.system, f"touch {trace}")), 4))
    command = [sys.executable, str(TOOL), str(path), str(tmp_path / "x.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        f"error: {path}: cannot be converted (names posix.system, which is not allowed); "
        "give a STOVE pickle, a dict with y, coord_lim and r\n"
    )
    assert not trace.exists() and not (tmp_path / "x.npz").exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # unpickling it would have run the code


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pickle.dumps(stove(r=Evil(eval, "1 + 1"))), "names builtins.eval, which is not allowed"),
        (pickle.dumps(stove(r=Evil(getattr, 1, "real"))), "names builtins.getattr, which"),
        (pickle.dumps(stove(r=Evil(np.load, "x"))), "names numpy.load, which is not allowed"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "names numpy.ndarray.dumps, which"),
        (b"cnumpy\nndarray\n.", "argument of type"),
        (pickle.dumps(stove(y=np.array([{}, 1], object))), "array of 'O8'"),
        (pickle.dumps(stove(y=np.array(["x"]))), "array of 'U1'"),
        (pickle.dumps(stove(y=np.zeros(2, "M8[s]"))), "array of 'M8'"),
        (pickle.dumps(stove(y=[1, 2])), "y is not an array of at most 100,000,000 states"),
        (pickle.dumps(stove(y=stove()["y"][0])), "y is (5, 3, 4)"),
        (pickle.dumps(stove(r="1.2")), "'1.2' is not a number"),
        (pickle.dumps({"y": 1}), "no 'hw'"),
        (pickle.dumps([1]), "list indices"),
        (pickle.dumps(stove())[:-900], "pickle data was truncated"),
        (b"", "Ran out of input"),
        (b"\x80\x04]\x94(K\x01", "Ran out of input"),
    ],
)
def test_other_pickles_are_rejected_with_one_line(tmp_path, tool, content, problem):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        tool.read_stove(path)
    assert problem in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: cannot be converted (")


def test_arrays_with_oversized_headers_are_rejected(tmp_path, tool):
    path = tmp_path / "x.pkl"
    content = pickle.dumps(stove(y=np.zeros((2, 5, 3, 4), np.uint8)), 4)
    shape, larger = b"(K\x02K\x05K\x03K\x04", b"(J\xff\xff\xff\x7fK\x05K\x03K\x04"
    assert content.count(shape) == 1
    framed = content.index(b"\x95")  # remove the frame, whose length would be wrong
    path.write_bytes((content[:framed] + content[framed + 9 :]).replace(shape, larger))
    with pytest.raises(DataError, match="y is not an array of at most 100,000,000 states"):
        tool.read_stove(path)
