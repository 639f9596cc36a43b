"""Reader of HDF5 files of balls.

R-NEM is van Steenkiste et al., ICLR 2018; G-SWM is Lin et al., ICML 2020.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_states import (
    AGAIN,
    DAMAGE,
    FORMATS,
    MOST_BYTES,
    check_count,
    scale_states,
)
from vidreason.decomposition.clip import Balls

_MOST_GROUPS = 16  # balls in a segmentation


def read_hdf5(path: Path, file: Path, split: str) -> Balls:
    """Reads the states of balls from a file of R-NEM or G-SWM.

    Args:
        path: Path as given by the user, for errors.
        file: The file.
        split: Name of a group in it; empty if it has no splits.

    Raises:
        DataError: h5py is not installed, or the file is damaged or of another format.
    """
    try:
        import h5py
    except ImportError:
        fix = "install it with `pip install 'vidreason[hdf5]'`"
        raise DataError(path, "h5py is required to read it", fix) from None
    try:
        with h5py.File(file) as opened:
            _reject_links(path, h5py, opened)
            if split and not isinstance(opened.get(split), h5py.Group):
                raise DataError(file, f"has no group {split!r}", f"use one of {[*opened]}")
            group = opened[split] if split else opened
            _reject_links(path, h5py, group)
            data = {key: item for key, item in group.items() if isinstance(item, h5py.Dataset)}
            for key in ("positions", "sizes", "groups"):
                if key in data and data[key].dtype.kind not in "iuf":
                    raise DataError(path, f"{key} are {data[key].dtype}", "use numbers")
            if {"positions", "sizes", "imgs"} <= set(data):
                return _read_gswm(path, data)
            if "groups" in data:
                return _read_rnem(path, data["groups"])
            if not split and any(isinstance(item, h5py.Group) for item in group.values()):
                fix = f"choose one, as in {file.name}/{next(iter(group))}"
                raise DataError(path, f"has several splits, {', '.join(group)}", fix)
            problem = "has neither positions, sizes and imgs nor groups"
            raise DataError(path, problem, FORMATS)
    except DAMAGE as error:
        raise DataError(path, f"is not a readable HDF5 file ({error})", AGAIN) from None


def _reject_links(path: Path, h5py: Any, group: Any) -> None:
    """Rejects links and external data, which could expose other files, before opening them."""
    for key in group:
        link = group.get(key, getlink=True)
        plain = type(link) is h5py.HardLink
        item = group[key] if plain else None
        if not plain or isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            problem = "is a link, or its data is outside the file"
            raise DataError(path, problem, "copy the data into the file", str(key))


def _read_gswm(path: Path, data: dict[str, Any]) -> Balls:
    """Reads positions (scenes, frames, balls, 2) and sizes, which are radii, in px."""
    positions, sizes, shape = data["positions"], data["sizes"], data["imgs"].shape
    check_count(path, max(positions.size / 2, sizes.size))
    if (
        positions.ndim != 4
        or len(shape) != 5
        or sizes.shape
        not in (
            (positions.shape[0], positions.shape[2]),
            positions.shape[:3],
        )
    ):
        problem = f"shapes disagree: positions {positions.shape}, sizes {sizes.shape}, imgs {shape}"
        raise DataError(path, problem, FORMATS)
    radii = sizes[...].astype(float)
    if radii.ndim == 3:
        if (radii != radii[:, :1]).any():
            raise DataError(path, "sizes change over time", "use balls of constant size")
        radii = radii[:, 0]
    centres = positions[...].astype(float)
    return scale_states(path, centres, radii, np.where(np.isnan(radii), np.nan, 1), shape[3:1:-1])


def _read_rnem(path: Path, groups: Any) -> Balls:
    """Reads centres of mass and areas of segments (frames, scenes, S, S, 1); 0 is no ball."""
    if groups.ndim != 5 or groups.shape[4] != 1 or 0 in groups.shape:
        problem = f"groups must be (frames, scenes, S, S, 1), got {groups.shape}"
        raise DataError(path, problem, FORMATS)
    frames, scenes, high, wide, _ = groups.shape
    if frames * high * wide > MOST_BYTES:
        raise DataError(path, f"has more than {MOST_BYTES:,} pixels in a scene", AGAIN)
    check_count(path, frames * scenes)
    row, column = (axis.ravel() + 0.5 for axis in np.indices((high, wide)))
    parts = []
    for start in range(0, scenes, 16):
        ids = groups[:, start : start + 16, ..., 0].swapaxes(0, 1).reshape(-1, high * wide)
        if not ((ids >= 0) & (ids <= _MOST_GROUPS) & (ids == np.floor(ids))).all():
            problem = f"groups must be integers between 0 and {_MOST_GROUPS}"
            raise DataError(path, problem, FORMATS, f"scenes from {start}")
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
        problem = "ball is not visible, so its state is unknown"
        raise DataError(path, problem, "use another data set", where)
    with np.errstate(invalid="ignore"):
        centres = moments[..., 1:] / moments[..., :1]
    radii = np.where(ever, np.sqrt(moments[..., 0].mean(1) / math.pi), np.nan)
    return scale_states(path, centres, radii, np.where(ever, 1, np.nan), (wide, high))
