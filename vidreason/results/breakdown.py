"""Subgroups of predictions: by size, occlusion, scene, time and number of other pedestrians.

A mean over all pedestrians hides subgroups on which a model fails. Subgroups are defined by the
annotation of the windows, which may include attributes that the model does not see.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from vidreason.core.errors import DataError
from vidreason.intent.datasets import dataset_root, read_split, split_windows
from vidreason.intent.predictions import KEY, Predictions, match, prediction_columns
from vidreason.intent.windows import Windows
from vidreason.scenes.scene import EGO_ACTIONS, KINDS, OCCLUSION, SIGNALS, TRAFFIC_LIGHT, Scene

_HEIGHTS = (60, 100, 160, 260)  # px of 1080
_NEIGHBOURS = {"none": 1, "1 or 2": 3, "3 to 5": 6, "6 or more": np.inf}


class MatchedWindows(NamedTuple):
    """The windows of a dataset split, and which of them each prediction belongs to.

    Attributes:
        scenes: Scenes of the split.
        windows: Windows of the split.
        window: (n,) index into `windows` of each row of the predictions.
    """

    scenes: list[Scene]
    windows: Windows
    window: np.ndarray


class Factor(NamedTuple):
    """A categorical attribute of the predictions.

    Attributes:
        name: Name of the attribute.
        levels: Names of its L levels.
        code: (n,) index into `levels`; -1 unknown.
    """

    name: str
    levels: tuple[str, ...]
    code: np.ndarray


def find_windows(predictions: Predictions, root: Path | None) -> MatchedWindows:
    """Finds the dataset's window of each prediction.

    Args:
        predictions: Predictions on a split of the dataset.
        root: Dataset folder.

    Raises:
        DataError: The dataset is not available, or lacks a window.
    """
    meta = predictions.meta
    root = dataset_root(meta["dataset"], root)
    scenes = read_split(meta["dataset"], root, meta["protocol"], meta["split"], meta["subset"])
    horizon = int(predictions["horizon"].max())
    windows = split_windows(
        *(meta["dataset"], scenes, meta["protocol"], meta["subset"], horizon),
        observed=meta.get("observed", 0),
    )
    columns = prediction_columns(windows, scenes, np.zeros((len(windows), windows.horizon)))
    labelled = np.nonzero(windows.label[:, windows.observed :] >= 0)[0]
    ours, theirs = match(predictions.table, pa.table({name: columns[name] for name in KEY}))
    rows = len(predictions.table)
    if len(ours) < rows:
        problem = f"{rows - len(ours)} of {rows} rows match no window of {root}"
        fix = "give the dataset that the predictions were made from"
        raise DataError(predictions.source, problem, fix)
    window = np.empty(len(ours), np.int64)
    window[ours] = labelled[theirs]
    return MatchedWindows(scenes, windows, window)


def factors(matched: MatchedWindows) -> list[Factor]:
    """Returns the attributes of the last observed frame in which the predictions differ."""
    scenes, windows = matched.scenes, matched.windows
    scene = windows.scene
    boxes, frames = (
        np.cumsum([0, *lengths[:-1]])[scene]
        for lengths in ([len(s.frame) for s in scenes], [s.length for s in scenes])
    )
    row = boxes + windows.row + windows.observed - 1
    frame = frames + windows.last_frame
    box = np.concatenate([s.box for s in scenes])[row]
    size = np.array([(s.height, s.fps) for s in scenes])[scene]
    height = (box[:, 3] - box[:, 1]) / size[:, 0] * 1080
    signal = {name: np.concatenate([s.signals[name] for s in scenes])[frame] for name in SIGNALS}
    ego = np.concatenate([s.ego_action for s in scenes])[frame]
    occlusion = np.concatenate([s.cues["occlusion"] for s in scenes])[row]
    found = []
    if windows.protocol != "stip":
        seconds = windows.time_to_event / size[:, 1]
        ends = np.quantile(seconds, [0.25, 0.5, 0.75]).round(1) if len(seconds) else np.empty(0)
        found.append(_binned("time to event", seconds, tuple(np.unique(ends)), "s"))
    found += [
        _binned("box height", height, _HEIGHTS, "px at 1080p"),
        Factor("occlusion", OCCLUSION, occlusion),
        Factor("ego vehicle", tuple(w.replace("_", " ") for w in EGO_ACTIONS), ego),
        Factor("crosswalk", ("no", "yes"), signal["ped_crossing"]),
        Factor("traffic light", ("none", *TRAFFIC_LIGHT[1:]), signal["traffic_light"]),
        *(_attribute(scenes, scene, name) for name in ("weather", "time_of_day", "road_type")),
        Factor(
            "other pedestrians",
            tuple(_NEIGHBOURS),
            np.searchsorted(list(_NEIGHBOURS.values()), _others(scenes, windows), "right"),
        ),
    ]
    found = [one._replace(code=one.code[matched.window]) for one in found]
    return [one for one in found if len(np.unique(one.code[one.code >= 0])) > 1]


def _binned(name: str, value: np.ndarray, ends: Sequence[float], unit: str) -> Factor:
    """Bins with exclusive upper ends."""
    words = [f"{low:g} to {high:g}" for low, high in zip(ends, ends[1:], strict=False)]
    words = [f"under {ends[0]:g}", *words, f"{ends[-1]:g} or more"] if len(ends) else ["all"]
    return Factor(f"{name}, {unit}", tuple(words), np.searchsorted(ends, value, "right"))


def _attribute(scenes: Sequence[Scene], scene: np.ndarray, name: str) -> Factor:
    given = [one.attributes.get(name, "") for one in scenes]
    words = tuple(sorted(set(given) - {""}))
    code = np.array([words.index(word) if word else -1 for word in given], np.int64)
    return Factor(name.replace("_", " "), words, code[scene])


def _others(scenes: Sequence[Scene], windows: Windows) -> np.ndarray:
    """(W,) number of other persons and groups in the last observed frame."""
    count = np.zeros(len(windows), np.int64)
    people = [KINDS.index("person"), KINDS.index("group")]
    for s in np.unique(windows.scene):
        one, rows = scenes[s], np.flatnonzero(windows.scene == s)
        kind = np.repeat(one.kind, np.diff(one.offsets))
        there = np.bincount(one.frame[np.isin(kind, people)], minlength=one.length)
        itself = np.isin(one.kind[windows.track[rows]], people)
        count[rows] = there[windows.last_frame[rows]] - itself
    return count
