"""Converts a pickle of ball states to a readable file, without unpickling it.

    python tools/convert_stove.py billiards_train_data.pkl train.npz

The pickle is a dict of arrays and numbers as written by STOVE (Kossen et al., ICLR 2020): `y` of
shape (scenes, frames, balls, 4) holds x, y, vx, vy; `coord_lim` (or `hw`) is the side of the box;
`r` the radius; `m` the mass, by default 1. Images and everything else are ignored. Only numeric
arrays and built-in containers are allowed, and no numpy function is called.
"""

import argparse
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import write_balls
from vidreason.decomposition.clip import Balls

MOST_BYTES = 16 << 30
MOST_STATES = 100_000_000


class Kind:
    """Stands in for `numpy.dtype`; numeric types only."""

    def __init__(self, name: str, *_: object) -> None:
        if not isinstance(name, str) or name.lstrip("<>|=") not in KINDS:
            raise pickle.UnpicklingError(f"array of {name!r:.40}")
        self.name = name

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {state[1]!r:.40}")
        self.name = state[1] + self.name.lstrip("<>|=")


KINDS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8", "b1"}


class Array:
    """Stands in for `numpy.ndarray`; its bytes are interpreted by `numbers`."""

    def __init__(self, *_: object) -> None:
        self.content: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def numbers(self) -> np.ndarray:
        """Returns the array; numpy raises if the number of bytes does not match the shape."""
        if not isinstance(self.content, bytes | bytearray) or not isinstance(self.kind, Kind):
            raise pickle.UnpicklingError("an array without content")
        flat = np.frombuffer(self.content, self.kind.name)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def made(content: object, kind: object, shape: object, order: object = "C") -> Array:
    """Returns an array with content."""
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


ALLOWED = {
    ("numpy", "dtype"): Kind,
    ("numpy", "ndarray"): Array,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # bytes of protocol 2
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", Array),
            ("multiarray", "scalar", lambda kind, content: made(content, kind, ())),
            ("numeric", "_frombuffer", made),
        )
    },
}


class Reader(pickle.Unpickler):
    """Resolves nothing but the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is not allowed")
        return ALLOWED[module, name]


def number(value: object) -> np.ndarray:
    """Returns a number or an array as float64."""
    array = value.numbers() if isinstance(value, Array) else np.array(value)
    if array.dtype.kind not in "iuf":
        raise pickle.UnpicklingError(f"{value!r:.40} is not a number")
    return array.astype(float)


def read_stove(path: Path) -> Balls:
    """Reads the states of a STOVE pickle.

    Raises:
        DataError: If the file is not such a pickle.
    """
    fix = "give a STOVE pickle, a dict with y, coord_lim and r"
    if path.stat().st_size > MOST_BYTES:
        raise DataError(path, f"is larger than {MOST_BYTES:,} bytes", fix)
    try:
        with path.open("rb") as file:
            content = Reader(file).load()
        side = number(content["coord_lim"] if "coord_lim" in content else content["hw"])
        states = content["y"]
        if not isinstance(states, Array) or math.prod(states.shape) > 4 * MOST_STATES:
            raise pickle.UnpicklingError(f"y is not an array of at most {MOST_STATES:,} states")
        states = number(states) / side
        balls = states.shape[0], states.shape[2]
        radii = np.broadcast_to(number(content["r"]) / side, balls)
        masses = np.broadcast_to(number(content.get("m", 1)), balls)
        if side.shape or states.shape[3:] != (4,):
            raise pickle.UnpicklingError(f"y is {states.shape}, coord_lim {side.shape}")
    except Exception as error:  # a damaged pickle raises whatever its last operation does
        what = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DataError(path, f"cannot be converted ({what})", fix) from None
    return Balls(states[..., :2], states[..., 2:], radii, masses, np.ones(2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pickle", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT.npz")
    args = parser.parse_args()
    try:
        write_balls(args.out, read_stove(args.pickle))
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
