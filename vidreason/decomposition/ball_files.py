"""Readers of others' files of bouncing balls; `datasets/balls/README.md` describes the formats.

All give `Balls`: lengths in widths of the box, velocities per frame. What a file does not hold is
not invented, with two exceptions: where there are no velocities, they are the differences from the
frame before (so that no state knows the next; the first frame has that of the second), and where
there are no masses, they are 1.
"""

import json
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.decomposition.clip import Balls

_RADIUS = 60  # px of a matter-js ball of sizemul 1
_MOST = 100_000_000  # balls times frames
_MOST_BYTES = 1 << 28  # of a JSON file, and pixels of a sequence
_MOST_GROUPS = 16  # balls in a segmentation
_FORMATS = "see datasets/balls/README.md for the formats"
_AGAIN = "make or get the file again"
# All come out of numpy for damaged files.
_DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, MemoryError, SyntaxError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, KeyError, TypeError),
)


def read_balls(path: Path) -> Balls:
    """Reads the states of balls from a file, or a folder of JSON chunks.

    The format is found by suffix and keys: .json of matter-js worlds (Neural Physics Engine,
    Chang et al., ICLR 2017), .npy of DDPAE's `dataset_info.npy` (Hsieh et al., NeurIPS 2018), .h5
    or .hdf5 of R-NEM (van Steenkiste et al., ICLR 2018) and G-SWM (Lin et al., ICML 2020), .npz of
    `write_balls`. An R-NEM file holds several splits, of which `FILE.h5/training` is one.

    Returns:
        Arrays of the file's precision, scenes of fewer balls than others filled up with NaN.

    Raises:
        DataError: Not such a file, damaged, or not of one shape; a state that is no finite number
            or out of the box.
    """
    if path.is_dir():
        return _read_json(path, sorted(path.glob("*.json"), key=_natural))
    file, split = (path.parent, path.name) if path.parent.is_file() else (path, "")
    suffix = file.suffix.lower()
    if not file.is_file():
        raise DataError(path, "no such file or folder", "check the path")
    if suffix in (".h5", ".hdf5"):
        return _read_hdf5(path, file, split)
    if suffix == ".json":
        return _read_json(path, [path])
    if suffix == ".npy":
        return _read_npy(path)
    if suffix == ".npz":
        return _read_npz(path)
    if suffix in (".pkl", ".pickle"):
        mend = "convert it with tools/convert_stove.py"
        raise DataError(path, "is a pickle, which could run code and is not opened", mend)
    raise DataError(path, "is none of .json, .npy, .npz, .h5, .hdf5", _FORMATS)


def write_balls(path: Path, balls: Balls) -> None:
    """Writes an .npz that `read_balls` reads, its arrays float32 under the names of `Balls`.

    Raises:
        DataError: The states are none that could be read again.
    """
    arrays = {key: np.asarray(value, np.float32) for key, value in balls._asdict().items()}
    _checked(path, **arrays)
    with write_atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts chunk 10 after chunk 9."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]


def _checked(
    source: Path,
    positions: np.ndarray,
    radii: np.ndarray,
    masses: np.ndarray,
    box: np.ndarray,
    velocities: np.ndarray | None = None,
) -> Balls:
    """The states if they can be some, with velocities if there are none."""
    scenes, frames, balls, axes = positions.shape if positions.ndim == 4 else (0, 0, 0, 0)
    if min(scenes, balls) < 1 or frames < 2 or axes != 2:
        problem = f"positions are {positions.shape}, expected scenes, 2 or more frames, balls, 2"
        raise DataError(source, problem, _FORMATS)
    if velocities is None:
        with np.errstate(invalid="ignore"):  # infinite ones are refused below
            steps = np.diff(positions, axis=1)
        velocities = np.concatenate([steps[:, :1], steps], 1)
    shapes = {
        "positions": (positions, positions.shape),
        "velocities": (velocities, positions.shape),
        "radii": (radii, (scenes, balls)),
        "masses": (masses, (scenes, balls)),
        "box": (box, (2,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape or array.dtype not in (np.float32, np.float64):
            problem = f"{array.dtype} {array.shape}, expected float32 or float64 {shape}"
            raise DataError(source, problem, _FORMATS, name)
    if not (abs(box.max() - 1) < 1e-6 and box.min() > 0):
        problem = f"{box[0]:g} x {box[1]:g}, expected a longer side of 1"
        raise DataError(source, problem, "divide all lengths by the longer side", "box")

    def refuse(name: str, wrong: np.ndarray, problem: str, mend: str) -> None:
        if wrong.any():
            array, place = shapes[name][0], np.argwhere(wrong)[0].tolist()
            scene, *frame, ball = place[:-1] if array.ndim == 4 else place
            where = "".join(f", frame {number}" for number in frame)
            problem = problem.format(array[tuple(place)], radii[scene, ball])
            raise DataError(source, f"{name} {problem}", mend, f"scene {scene}, ball {ball}{where}")

    refuse("radii", (radii <= 0) | (2 * radii > box.min()), "{:g} do not fit the box", _FORMATS)
    there = ~np.isnan(radii)
    for name in ("masses", "positions", "velocities"):
        array = shapes[name][0]
        shown = there[:, None, :, None] if array.ndim == 4 else there
        wrong = np.where(shown, ~np.isfinite(array), ~np.isnan(array))
        mend = "give numbers, or NaN throughout where there is no ball"
        refuse(name, wrong, "{:g} where radii {:g}", mend)
    refuse("masses", masses <= 0, "{:g}, expected above 0", "correct them")
    # float32 may round up what is at a wall.
    out = (positions < -1e-6) | (positions > box + 1e-6)
    size = f"{box[0]:g} x {box[1]:g}"
    refuse("positions", out, f"{{:g}} out of the box of {size}", "divide lengths by its width")
    mend = "give widths of the box per frame"
    refuse("velocities", abs(velocities) > 1, "{:g}, over 1 width of the box per frame", mend)
    return Balls(positions, velocities, radii, masses, box)


def _scaled(
    source: Path,
    positions: np.ndarray,
    radii: np.ndarray,
    masses: np.ndarray,
    world: Sequence[float],
    velocities: np.ndarray | None = None,
) -> Balls:
    """From pixels, or any other length, to widths of the box."""
    width = max(world)
    if velocities is not None:
        velocities = velocities / width
    return _checked(
        source, positions / width, radii / width, masses, np.array(world) / width, velocities
    )


def _limit(source: Path, count: float) -> None:
    if count > _MOST:
        raise DataError(source, f"more than {_MOST:,} states", "split it into several files")


def _read_json(source: Path, files: list[Path]) -> Balls:
    """Files of `{"trajectories": [trajectory][ball][frame], "config": ...}`, in px."""
    if not files:
        raise DataError(source, "no .json files in this folder", _FORMATS)
    trajectories: list[np.ndarray] = []
    worlds = set()
    count = 0
    for file in files:
        if file.stat().st_size > _MOST_BYTES:
            mend = "write fewer trajectories to a file, and give the folder"
            raise DataError(file, f"larger than {_MOST_BYTES:,} bytes", mend)
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(file, f"is no whole JSON ({error})", _AGAIN) from None
        if not isinstance(content, dict) or not isinstance(content.get("trajectories"), list):
            raise DataError(file, "has no list `trajectories`", _FORMATS)
        for number, trajectory in enumerate(content["trajectories"]):
            states = _trajectory(file, f"trajectory {number}", trajectory)
            if trajectories and len(states) != len(trajectories[0]):
                problem = f"{len(states)} frames, others have {len(trajectories[0])}"
                mend = "give trajectories of one length"
                raise DataError(file, problem, mend, f"trajectory {number}")
            _limit(source, count := count + states.shape[0] * states.shape[1])
            trajectories.append(states)
        config = content.get("config")
        if isinstance(config, dict) and {"cx", "cy"} <= set(config):
            centre = config["cx"], config["cy"]
            if not all(type(value) in (int, float) and 0 < value < 1e9 for value in centre):
                raise DataError(file, f"cx, cy are {centre!r:.80}", "give numbers of px", "config")
            worlds.add((2 * centre[0], 2 * centre[1]))
    if not trajectories:
        raise DataError(source, "no trajectories", _FORMATS)
    most = max(states.shape[1] for states in trajectories)
    padded = np.full((len(trajectories), len(trajectories[0]), most, 6), np.nan)
    for row, states in zip(padded, trajectories, strict=True):
        row[:, : states.shape[1]] = states
    positions, velocities, (sizes, masses) = (
        *(padded[..., :2], padded[..., 2:4]),
        padded[:, 0, :, 4:].transpose(2, 0, 1),
    )
    radii = _RADIUS * sizes
    world = _world(source, worlds, np.nanmax(positions[..., 1] + radii[:, None]))
    return _scaled(source, positions, radii, masses, world, velocities)


def _trajectory(file: Path, place: str, trajectory: Any) -> np.ndarray:
    """(T, N, 6): x, y, vx, vy in px and px per frame, sizemul, mass."""
    try:
        rows = [
            [
                (
                    *(state["position"]["x"], state["position"]["y"]),
                    *(state["velocity"]["x"], state["velocity"]["y"]),
                    *(state["sizemul"], state["mass"]),
                )
                for state in ball
            ]
            for ball in trajectory
        ]
        others = {state.get("objtype", "ball") for ball in trajectory for state in ball} - {"ball"}
    except KeyError as error:
        raise DataError(file, f"a state has no {error}", _FORMATS, place) from None
    except (TypeError, AttributeError):
        problem = "is no list of balls, each a list of states"
        raise DataError(file, problem, _FORMATS, place) from None
    if others:
        mend = "take the balls only"
        raise DataError(file, f"has objects of type {sorted(map(str, others))}", mend, place)
    if len(lengths := {len(row) for row in rows}) > 1:
        problem = f"balls have {min(lengths)} to {max(lengths)} frames"
        raise DataError(file, problem, "give all balls of a trajectory the same", place)
    if not rows or not rows[0]:
        raise DataError(file, "is empty", _AGAIN, place)
    try:
        states = np.array(rows)
    except ValueError:  # a list among the numbers
        states = np.array(None)
    if states.dtype.kind in "if" and np.isfinite(states).all():
        return states.astype(float).swapaxes(0, 1)
    ball, frame, value = next(
        (ball, frame, value)
        for ball, row in enumerate(rows)
        for frame, state in enumerate(row)
        for value in state
        if type(value) not in (int, float) or not abs(value) < 1e9
    )
    where = f"{place}, ball {ball}, frame {frame}"
    raise DataError(file, f"{value!r:.40} is no finite number", _AGAIN, where)


def _world(source: Path, worlds: set[tuple[float, float]], lowest: float) -> tuple[float, float]:
    """Width and height in px: as `config` says, or else from where the balls turn round.

    Balls of up to 20 px per frame are seen within 20 px of a wall that they bounce off.
    """
    if len(worlds) > 1:
        raise DataError(source, f"worlds of {sorted(worlds)} px", "give them one by one", "config")
    if worlds:
        return worlds.pop()
    if lowest > 620:
        return 800, 800
    if lowest >= 580:
        return 800, 600
    problem = "no ball comes near 600 px, so the world may be 800 x 600 or 800 x 800 px"
    raise DataError(source, problem, 'state its centre, as in `"cx": 400, "cy": 300`', "config")


def _read_npy(path: Path) -> Balls:
    """(scenes, frames, balls, 4): x, y in px of a world of 800 x 800, mass, sizemul."""
    try:
        states: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except _DAMAGE as error:
        raise DataError(path, f"cannot be read as an array ({error})", _AGAIN) from None
    if states.dtype.kind != "f" or states.shape[3:] != (4,) or not states.size:
        problem = f"{states.dtype} {states.shape}, expected floats (scenes, frames, balls, 4)"
        raise DataError(path, problem, _FORMATS)
    _limit(path, states.size // 4)
    states = np.array(states)
    positions, (masses, sizes) = states[..., :2], np.moveaxis(states[:, 0, :, 2:], -1, 0)
    return _scaled(path, positions, _RADIUS * sizes, masses, (800, 800))


def _is_npy(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"\x93NUMPY"


def _read_npz(path: Path) -> Balls:
    needed, arrays = ("positions", "radii", "masses", "box"), {}
    if not zipfile.is_zipfile(path) and not _is_npy(path):
        # numpy would take it for a pickle, and advise to open it as one.
        raise DataError(path, "cannot be read as arrays (no npz archive)", _AGAIN)
    try:
        with path.open("rb") as stream:  # numpy leaves open what it cannot read
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise DataError(path, "is an array, not an archive", "name it .npy")
            if missing := sorted(set(needed) - set(file.files)):
                raise DataError(path, f"has no {', '.join(missing)}", _FORMATS)
            for key in (*needed, *({"velocities"} & set(file.files))):
                # The unpacked size is in the archive's directory, and nothing beyond it is read.
                _limit(path, file.zip.getinfo(f"{key}.npy").file_size / 16)
                arrays[key] = file[key]
                if not isinstance(arrays[key], np.ndarray):  # numpy gives what is none as bytes
                    raise DataError(path, f"{key} is no array", _AGAIN)
    except _DAMAGE as error:
        raise DataError(path, f"cannot be read as arrays ({error})", _AGAIN) from None
    return _checked(path, **arrays)


def _read_hdf5(path: Path, file: Path, split: str) -> Balls:
    try:
        import h5py
    except ImportError:
        mend = "install it with `pip install 'vidreason[hdf5]'`"
        raise DataError(path, "needs h5py to be read", mend) from None
    try:
        with h5py.File(file) as opened:
            _refuse_links(path, h5py, opened)
            if split and not isinstance(opened.get(split), h5py.Group):
                raise DataError(file, f"has no group {split!r}", f"name one of {[*opened]}")
            group = opened[split] if split else opened
            _refuse_links(path, h5py, group)
            data = {key: item for key, item in group.items() if isinstance(item, h5py.Dataset)}
            for key in ("positions", "sizes", "groups"):
                if key in data and data[key].dtype.kind not in "iuf":
                    raise DataError(path, f"{key} hold {data[key].dtype}", "give numbers")
            if {"positions", "sizes", "imgs"} <= set(data):
                return _read_gswm(path, data)
            if "groups" in data:
                return _read_rnem(path, data["groups"])
            if not split and any(isinstance(item, h5py.Group) for item in group.values()):
                mend = f"name one, as in {file.name}/{next(iter(group))}"
                raise DataError(path, f"holds several splits, {', '.join(group)}", mend)
            problem = "has neither positions, sizes and imgs nor groups"
            raise DataError(path, problem, _FORMATS)
    except _DAMAGE as error:
        raise DataError(path, f"cannot be read as HDF5 ({error})", _AGAIN) from None


def _refuse_links(path: Path, h5py: Any, group: Any) -> None:
    """HDF5 can lead to other files, and to any bytes of them; nothing has been opened yet."""
    for key in group:
        link = group.get(key, getlink=True)
        plain = type(link) is h5py.HardLink
        item = group[key] if plain else None
        if not plain or isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            problem = "leads elsewhere (a link, or data outside the file)"
            raise DataError(path, problem, "copy what it leads to into the file", str(key))


def _read_gswm(path: Path, data: dict[str, Any]) -> Balls:
    """Positions (scenes, frames, balls, 2) and sizes, which are radii, in px of the frames."""
    positions, sizes, shape = data["positions"], data["sizes"], data["imgs"].shape
    _limit(path, max(positions.size / 2, sizes.size))
    if (
        positions.ndim != 4
        or len(shape) != 5
        or sizes.shape
        not in (
            (positions.shape[0], positions.shape[2]),
            positions.shape[:3],
        )
    ):
        problem = f"positions {positions.shape}, sizes {sizes.shape}, imgs {shape}"
        raise DataError(path, problem, _FORMATS)
    radii = sizes[...].astype(float)
    if radii.ndim == 3:
        if (radii != radii[:, :1]).any():
            raise DataError(path, "sizes change in time", "take balls of one size")
        radii = radii[:, 0]
    centres = positions[...].astype(float)
    return _scaled(path, centres, radii, np.where(np.isnan(radii), np.nan, 1), shape[3:1:-1])


def _read_rnem(path: Path, groups: Any) -> Balls:
    """Centres of mass and areas of the balls' segments, (frames, scenes, S, S, 1), 0 for none."""
    if groups.ndim != 5 or groups.shape[4] != 1 or 0 in groups.shape:
        problem = f"groups are {groups.shape}, expected frames, scenes, S, S, 1"
        raise DataError(path, problem, _FORMATS)
    frames, scenes, high, wide, _ = groups.shape
    if frames * high * wide > _MOST_BYTES:
        raise DataError(path, f"more than {_MOST_BYTES:,} pixels in a scene", _AGAIN)
    _limit(path, frames * scenes)
    row, column = (axis.ravel() + 0.5 for axis in np.indices((high, wide)))
    parts = []
    for start in range(0, scenes, 16):
        ids = groups[:, start : start + 16, ..., 0].swapaxes(0, 1).reshape(-1, high * wide)
        if not ((ids >= 0) & (ids <= _MOST_GROUPS) & (ids == np.floor(ids))).all():
            problem = f"groups are no whole numbers from 0 to {_MOST_GROUPS}"
            raise DataError(path, problem, _FORMATS, f"scenes from {start}")
        ids = ids.astype(np.int64) + np.arange(len(ids))[:, None] * (_MOST_GROUPS + 1)
        sums = [
            np.bincount(ids.ravel(), weights, len(ids) * (_MOST_GROUPS + 1))
            for weights in (None, np.tile(column, len(ids)), np.tile(row, len(ids)))
        ]
        parts.append(np.stack(sums, -1).reshape(-1, frames, _MOST_GROUPS + 1, 3)[:, :, 1:])
    moments = np.concatenate(parts)
    seen = moments[..., 0] > 0
    most = int(np.flatnonzero(seen.any((0, 1))).max(initial=-1)) + 1
    moments, seen = moments[:, :, :most], seen[:, :, :most]
    ever = seen.any(1)
    for scene, frame, ball in np.argwhere(seen != seen.any(1, keepdims=True))[:1]:
        where = f"scene {scene}, ball {ball}, frame {frame}"
        raise DataError(path, "is not seen, so its state is unknown", "take another set", where)
    with np.errstate(invalid="ignore"):
        centres = moments[..., 1:] / moments[..., :1]
    radii = np.where(ever, np.sqrt(moments[..., 0].mean(1) / math.pi), np.nan)
    return _scaled(path, centres, radii, np.where(ever, 1, np.nan), (wide, high))
