"""Readers of third-party files of bouncing balls; `vidreason data card balls` prints the formats.

All return `Balls`. Values that a file lacks are not made up, with two exceptions: missing
velocities are the differences from the previous frame (so that no state depends on the next; the
first frame has the velocity of the second), and missing masses are 1.
"""

import re
import zipfile
from pathlib import Path

import numpy as np

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.decomposition.ball_hdf5 import read_hdf5
from vidreason.decomposition.ball_json import read_json
from vidreason.decomposition.ball_states import (
    AGAIN,
    DAMAGE,
    FORMATS,
    RADIUS,
    check_count,
    check_states,
    scale_states,
)
from vidreason.decomposition.clip import Balls


def read_balls(path: Path) -> Balls:
    """Reads the states of balls from a file or a folder of JSON chunks.

    The format is determined by suffix and keys: .json of matter-js worlds (Neural Physics Engine,
    Chang et al., ICLR 2017), .npy of DDPAE's `dataset_info.npy` (Hsieh et al., NeurIPS 2018), .h5
    or .hdf5 of R-NEM (van Steenkiste et al., ICLR 2018) and G-SWM (Lin et al., ICML 2020), .npz of
    `write_balls`.

    Args:
        path: File or folder. An R-NEM file has several splits, chosen as in `FILE.h5/training`.

    Returns:
        Arrays in the file's precision; scenes with fewer balls than others are padded with NaN.

    Raises:
        DataError: The file is missing, damaged or of another format, scenes differ in shape, or a
            state is not finite or outside the box.
    """
    if path.is_dir():
        return read_json(path, sorted(path.glob("*.json"), key=_natural))
    file, split = (path.parent, path.name) if path.parent.is_file() else (path, "")
    suffix = file.suffix.lower()
    if not file.is_file():
        raise DataError(path, "no such file or folder", "check the path")
    if suffix in (".h5", ".hdf5"):
        return read_hdf5(path, file, split)
    if suffix == ".json":
        return read_json(path, [path])
    if suffix == ".npy":
        return _read_npy(path)
    if suffix == ".npz":
        return _read_npz(path)
    if suffix in (".pkl", ".pickle"):
        fix = "convert it with tools/convert_stove.py"
        raise DataError(path, "is a pickle, which can run code and is not opened", fix)
    raise DataError(path, "suffix must be one of .json, .npy, .npz, .h5, .hdf5", FORMATS)


def write_balls(path: Path, balls: Balls) -> None:
    """Writes an .npz file for `read_balls`, with float32 arrays named as in `Balls`.

    Args:
        path: Output file.
        balls: States to write.

    Raises:
        DataError: `read_balls` would reject the states.
    """
    arrays = {key: np.asarray(value, np.float32) for key, value in balls._asdict().items()}
    check_states(path, **arrays)
    with write_atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Returns a sort key that puts chunk 10 after chunk 9."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]


def _read_npy(path: Path) -> Balls:
    """Reads (scenes, frames, balls, 4): x and y in px of an 800 x 800 world, mass, sizemul."""
    try:
        states: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except DAMAGE as error:
        raise DataError(path, f"is not a readable .npy array ({error})", AGAIN) from None
    if states.dtype.kind != "f" or states.shape[3:] != (4,) or not states.size:
        kind = f"{states.dtype} {states.shape}"
        problem = f"must be floats (scenes, frames, balls, 4), got {kind}"
        raise DataError(path, problem, FORMATS)
    check_count(path, states.size // 4)
    states = np.array(states)
    positions, (masses, sizes) = states[..., :2], np.moveaxis(states[:, 0, :, 2:], -1, 0)
    return scale_states(path, positions, RADIUS * sizes, masses, (800, 800))


def _is_npy(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"\x93NUMPY"


def _read_npz(path: Path) -> Balls:
    needed, arrays = ("positions", "radii", "masses", "box"), {}
    if not zipfile.is_zipfile(path) and not _is_npy(path):
        # numpy would take it for a pickle and advise to open it as one.
        raise DataError(path, "is not a readable .npz archive (not a zip file)", AGAIN)
    try:
        with path.open("rb") as stream:  # numpy does not close a file that it cannot read
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise DataError(path, "is an array, not an archive", "rename it to .npy")
            if missing := sorted(set(needed) - set(file.files)):
                raise DataError(path, f"has no {', '.join(missing)}", FORMATS)
            for key in (*needed, *({"velocities"} & set(file.files))):
                # The archive's directory has the unpacked size, and no more than that is read.
                check_count(path, file.zip.getinfo(f"{key}.npy").file_size / 16)
                arrays[key] = file[key]
                if not isinstance(arrays[key], np.ndarray):  # numpy returns other data as bytes
                    raise DataError(path, f"{key} is not an array", AGAIN)
    except DAMAGE as error:
        raise DataError(path, f"is not a readable .npz archive ({error})", AGAIN) from None
    return check_states(path, **arrays)
