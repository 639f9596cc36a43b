"""Makes a file of balls that can be read of a pickle of states, without unpickling it.

    python tools/convert_stove.py billiards_train_data.pkl train.npz

The pickle is a dict of arrays and numbers as STOVE (Kossen et al., ICLR 2020) writes them: `y` of
(scenes, frames, balls, 4) = x, y, vx, vy; the side of the box `coord_lim` (or `hw`); the radius
`r`; the mass `m`, 1 if it is not there; frames and all else are left out. Of what a pickle can do,
only arrays of numbers and Python's own containers are allowed, and numpy itself is not called.
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
    """Stands for `numpy.dtype`, of numbers only."""

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
    """Stands for `numpy.ndarray`, its bytes not looked at until they are needed."""

    def __init__(self, *_: object) -> None:
        self.content: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def numbers(self) -> np.ndarray:
        """The array, whose bytes are as many as its shape says or numpy refuses."""
        if not isinstance(self.content, bytes | bytearray) or not isinstance(self.kind, Kind):
            raise pickle.UnpicklingError("an array without content")
        flat = np.frombuffer(self.content, self.kind.name)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def made(content: object, kind: object, shape: object, order: object = "C") -> Array:
    """An array whose content is known when it is made."""
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
    """Finds nothing but the stand-ins above, whatever a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is not allowed")
        return ALLOWED[module, name]


def number(value: object) -> np.ndarray:
    """A number, or an array of them."""
    array = value.numbers() if isinstance(value, Array) else np.array(value)
    if array.dtype.kind not in "iuf":
        raise pickle.UnpicklingError(f"{value!r:.40} is no number")
    return array.astype(float)


def read_stove(path: Path) -> Balls:
    """The states of a pickle of STOVE.

    Raises:
        DataError: Not such a file.
    """
    mend = "give a file of STOVE's, a dict with y, coord_lim and r"
    if path.stat().st_size > MOST_BYTES:
        raise DataError(path, f"larger than {MOST_BYTES:,} bytes", mend)
    try:
        with path.open("rb") as file:
            content = Reader(file).load()
        side = number(content["coord_lim"] if "coord_lim" in content else content["hw"])
        states = content["y"]
        if not isinstance(states, Array) or math.prod(states.shape) > 4 * MOST_STATES:
            raise pickle.UnpicklingError(f"y is no array of up to {MOST_STATES:,} states")
        states = number(states) / side
        balls = states.shape[0], states.shape[2]
        radii = np.broadcast_to(number(content["r"]) / side, balls)
        masses = np.broadcast_to(number(content.get("m", 1)), balls)
        if side.shape or states.shape[3:] != (4,):
            raise pickle.UnpicklingError(f"y is {states.shape}, coord_lim {side.shape}")
    except Exception as error:  # a damaged pickle raises whatever its last operation does
        what = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DataError(path, f"cannot be converted ({what})", mend) from None
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
