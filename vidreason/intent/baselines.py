"""Baselines, and oracle rules that leak the label.

`majority` predicts the base rate; `trees` are gradient-boosted trees on hand-crafted summaries of
the annotations that the graphs show. The other rules are oracles: they read the label or attributes
that leak it, and show how much of a score a leak is worth. For places, persistence is no oracle,
because boxes show whether a place is occupied; their trees use counts of persons.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier

from vidreason.core.errors import DataError
from vidreason.intent.datasets import dataset_root, read_split, split_windows
from vidreason.intent.metrics import best_threshold
from vidreason.intent.places import inside
from vidreason.intent.predictions import Predictions, match, prediction_columns
from vidreason.intent.windows import Windows
from vidreason.scenes.scene import EGO_ACTIONS, KINDS, ORIENTATION, SIGNALS, TRAFFIC_LIGHT, Scene

Split = tuple[Sequence[Scene], Windows]
"""Scenes, and the windows made from them."""

TREES = "box trees"
COUNTS = "counts"
_FITS = 4  # fitted horizons; fitting each of thirty would take minutes
_STEPS = 15  # box positions per window; more made the trees slower, not better


def score_baselines(
    predictions: Predictions, root: Path | None
) -> dict[str, tuple[np.ndarray, float]]:
    """Computes the baselines for the rows of a predictions file.

    Args:
        predictions: Predictions to compare with.
        root: Dataset folder; defaults to the dataset's folder in `$VIDREASON_DATA`.

    Returns:
        (n,) probabilities and the decision threshold by baseline; empty without dataset.

    Raises:
        DataError: If the dataset has other windows or labels than the predictions.
    """
    meta = predictions.meta
    if root is None:
        if not os.environ.get("VIDREASON_DATA") or not dataset_root(meta["dataset"]).is_dir():
            return {}
        root = dataset_root(meta["dataset"])
    table, thresholds = _baselines(
        meta["dataset"],
        root,
        meta["protocol"],
        meta["subset"],
        meta["split"],
        tuple(meta["features"]),
        int(predictions["horizon"].max()),
        meta.get("observed", 0),  # optional in files that other programs write
    )
    ours, theirs = match(predictions.table, table)
    fix = "give the dataset that the predictions were made from"
    total = len(predictions.table)
    if len(ours) < total:
        problem = f"{total - len(ours)} of {total} rows are not windows of"
        raise DataError(predictions.source, f"{problem} {root}", fix)
    if (predictions["label"] != table["label"].to_numpy()[theirs]).any():
        raise DataError(predictions.source, f"labels differ from those of {root}", fix)
    return {name: (table[name].to_numpy()[theirs], cut) for name, cut in thresholds.items()}


@cache
def _baselines(
    dataset: str,
    root: Path,
    protocol: str,
    subset: str,
    split: str,
    features: tuple[str, ...],
    horizon: int,
    observed: int,
) -> tuple[pa.Table, dict[str, float]]:
    """Returns the rows of all windows with a column per baseline, and their thresholds."""

    def part(name: str) -> Split:
        chosen = read_split(dataset, root, protocol, name, subset)
        return chosen, split_windows(dataset, chosen, protocol, subset, horizon, observed=observed)

    train, val, target = part("train"), part("val"), part(split)
    probability = {"majority": majority(train[1], target[1])}
    if subset == "place":
        fitted, columns = COUNTS, [counts(split) for split in (train, val, target)]
        val_probability, probability[fitted] = trees(train[1], columns[0], columns[1:])
        probability["persistence"] = persistence(target)
    else:
        fitted = TREES
        val_probability, probability[fitted] = box_trees(train, [val, target], features)
        probability |= {f"{name} (oracle)": rule for name, rule in oracles(target).items()}
    thresholds = dict.fromkeys(probability, 0.5)
    if len(val[1]):
        objective = "accuracy" if protocol == "stip" else "f1"  # as for a run
        labelled = prediction_columns(val[1], val[0], val_probability)
        thresholds[fitted] = best_threshold(labelled["probability"], labelled["label"], objective)
    rows = {
        name: prediction_columns(target[1], target[0], part) for name, part in probability.items()
    }
    extra = {name: row["probability"] for name, row in rows.items()}
    return pa.table(rows[fitted] | extra), thresholds


def majority(train: Windows, windows: Windows) -> np.ndarray:
    """Returns the fraction of positives among the training windows by horizon, (W, K)."""
    label = train.label[:, train.observed :]
    share = (label == 1).sum(0) / np.maximum((label >= 0).sum(0), 1)
    return np.tile(share, (len(windows), 1))


def persistence(split: Split) -> np.ndarray:
    """Returns the true label of the last observed frame for every horizon, (W, K), 0 or 1."""
    scenes, windows = split
    now = _column([s.labels["cross"] for s in scenes])[_rows(split)[:, -1]] == 1
    return np.tile(now[:, None], (1, windows.horizon)) * 1.0


def oracles(split: Split) -> dict[str, np.ndarray]:
    """Returns the predictions of rules that read attributes that leak the label.

    Besides `persistence`: whether the pedestrian has behaviour tags, is annotated as moving across
    the road, or walks in the last observed frame. A missing attribute counts as no, and rules with
    the same prediction for all windows are left out.

    Returns:
        (W, K) predictions by rule, 0 or 1.
    """
    scenes, windows = split
    last = _rows(split)[:, -1]
    track = _starts([len(s.track_ids) for s in scenes])[windows.scene] + windows.track
    rules = {
        "behaviour tags": _column([s.facts["behaviour"] for s in scenes])[track] == 1,
        "moves laterally": _column([s.facts["motion_direction"] for s in scenes])[track] == 1,
        "walks": _column([s.labels["action"] for s in scenes])[last] == 1,
    }
    found = {
        name: np.tile(r[:, None], (1, windows.horizon)) * 1.0
        for name, r in rules.items()
        if r.any() and not r.all()
    }
    return {"persistence": persistence(split), **found}


def box_trees(
    train: Split, others: Sequence[Split], features: Sequence[str]
) -> Iterator[np.ndarray]:
    """Fits `trees` to the `summaries` of a split, and predicts others.

    Args:
        train: Training split.
        others: Splits to predict.
        features: Feature groups that the summaries show.

    Returns:
        An iterator over the probabilities (W', K) of each of `others`.
    """
    columns = [summaries(split, features) for split in (train, *others)]
    return trees(train[1], columns[0], columns[1:])


def trees(
    windows: Windows, columns: np.ndarray, others: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """Fits gradient-boosted trees to columns of windows, and predicts others.

    With many horizons, trees are fitted to four of them, including the first and the last, and the
    probabilities in between are interpolated.

    Args:
        windows: W training windows.
        columns: (W, D) their columns.
        others: (W', D) columns of windows to predict.

    Yields:
        Probabilities (W', K) of each of `others`.
    """
    label = windows.label[:, windows.observed :]
    ahead = np.arange(windows.horizon)
    fitted = np.unique(np.linspace(0, ahead[-1], _FITS).astype(int))
    blend = np.stack([np.interp(ahead, fitted, hat) for hat in np.eye(len(fitted))])
    models = [_fit(columns[label[:, k] >= 0], label[label[:, k] >= 0, k]) for k in fitted]
    for x in others:
        crosses = [
            m.predict_proba(x)[:, 1] if m and len(x) else np.full(len(x), s) for m, s in models
        ]
        yield np.stack(crosses, axis=1) @ blend


def _fit(x: np.ndarray, label: np.ndarray) -> tuple[HistGradientBoostingClassifier | None, float]:
    """Returns a fitted model, None if there is a single class, and the fraction of positives."""
    share = float(label.mean()) if len(label) else 0.5
    if not 0 < share < 1:
        return None, share
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=150,
        max_depth=3,
        min_samples_leaf=40,
        l2_regularization=1.0,
        class_weight="balanced",
        early_stopping=False,
        random_state=0,
    )
    return model.fit(x, label), share


def summaries(split: Split, features: Sequence[str]) -> np.ndarray:
    """Returns hand-crafted summaries (W, D) of what the feature groups show.

    Boxes give their displacement from the first box over time, and size and position at both ends;
    other groups are read in the first, middle and last observed frame, or only in the last.
    """
    scenes, windows = split
    rows = _rows(split)
    size = np.array([(s.width, s.height) for s in scenes], np.float64)[windows.scene]
    box = _column([s.box for s in scenes])[rows] / np.tile(size, 2)[:, None]  # (W, T, 4)
    centre, extent = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
    shift = (centre[:, -1] - centre[:, 0]) * size / (extent[:, -1:, 1] * size[:, 1:])
    step = max(1, windows.observed // _STEPS)
    path = box[:, step::step] - box[:, :1]
    side = 0.5 - centre[:, -1, 0]
    columns = [
        path.reshape(len(path), 4 * path.shape[1]),
        centre[:, -1],
        centre[:, 0],
        extent[:, -1],
        extent[:, 0],
        extent[:, -1, 1] / extent[:, 0, 1],
        shift,
        np.abs(side),
        side * np.sign(shift[:, 0]),
    ]
    frame = _column([s.frame for s in scenes])[rows]
    frame += _starts([s.length for s in scenes])[windows.scene][:, None]
    last = windows.observed - 1
    if "ego" in features:
        ego = _column([s.ego_action for s in scenes])[frame[:, [0, (last + 1) // 2, last]]]
        columns += list(np.moveaxis(ego[..., None] == np.arange(len(EGO_ACTIONS)), 1, 0))
    if "odometry" in features:
        speed = _column([s.odometry["speed"] for s in scenes])
        columns += [speed[frame[:, [0, (last + 1) // 2, last]]]]
    if "traffic" in features:
        signal = {n: _column([s.signals[n] for s in scenes])[frame[:, -1]] for n in SIGNALS}
        light = signal.pop("traffic_light")
        street = np.array([s.attributes.get("road_type") == "street" for s in scenes])
        columns += [light == TRAFFIC_LIGHT.index(colour) for colour in ("red", "green")]
        columns += [*signal.values(), street[windows.scene]]
    if "orientation" in features:
        pose = np.stack([_column([s.cues[n] for s in scenes]) for n in ORIENTATION], axis=1)
        pose = pose[rows[:, [0, last // 2, last]]]  # (W, 3, 4)
        columns += [pose.reshape(len(pose), 12)]
        columns += [np.sign(side) * (pose[:, -1, 3].astype(int) - pose[:, -1, 2])]
    if "neighbours" in features:
        columns += _crowd(scenes, rows[:, -1], frame[:, -1], size[:, 0])
    return np.column_stack(columns).astype(np.float32)


def counts(split: Split) -> np.ndarray:
    """Counts persons in the image and in the place ahead in the first, middle and last frame.

    Returns:
        (W, 6) float32: the three counts in the image, then those in the place.
    """
    scenes, windows = split
    at = np.stack([windows.first_frame, windows.last_frame], 1)
    at = np.insert(at, 1, at.sum(1) // 2, axis=1)
    columns = np.zeros((len(windows), 2, 3), np.float32)
    for s, scene in enumerate(scenes):
        persons = np.repeat(scene.kind, np.diff(scene.offsets)) == KINDS.index("person")
        here = inside(scene.box, scene.width, scene.height)
        rows = windows.scene == s
        for k, some in enumerate((persons, persons & here)):
            columns[rows, k] = np.bincount(scene.frame[some], minlength=scene.length)[at[rows]]
    return columns.reshape(-1, 6)


def _crowd(
    scenes: Sequence[Scene], row: np.ndarray, frame: np.ndarray, width: np.ndarray
) -> list[np.ndarray]:
    """Returns the number of other persons in a frame, and the distance of the nearest.

    The distance is horizontal, in fractions of the image width; NaN without other persons.

    Args:
        scenes: Videos.
        row: (W,) row of the target in the concatenated boxes of all scenes.
        frame: (W,) frame in the concatenated frames of all scenes.
        width: (W,) image width in pixels.
    """
    start = _starts([s.length for s in scenes])
    when = _column([s.frame + first for s, first in zip(scenes, start, strict=True)])
    kind = _column([np.repeat(s.kind, np.diff(s.offsets)) for s in scenes])
    persons = np.flatnonzero(kind == KINDS.index("person"))
    persons = persons[np.argsort(when[persons], kind="stable")]
    first, stop = (np.searchsorted(when[persons], frame, side) for side in ("left", "right"))
    # One entry per window and person in its frame; no run is empty, as it has the target.
    run = stop - first
    begin = np.cumsum(run) - run
    other = persons[np.arange(run.sum()) + np.repeat(first - begin, run)]
    target = np.repeat(row, run)
    box = _column([s.box for s in scenes])
    centre = (box[:, 0] + box[:, 2]) / 2
    gap = np.where(other == target, np.inf, np.abs(centre[other] - centre[target]))
    nearest = np.minimum.reduceat(gap, begin) / width
    return [run - 1, np.where(np.isfinite(nearest), nearest, np.nan)]


def _rows(split: Split) -> np.ndarray:
    """Returns the rows (W, T) of the observed boxes in the concatenated boxes of all scenes."""
    scenes, windows = split
    first = _starts([len(s.frame) for s in scenes])[windows.scene] + windows.row
    return first[:, None] + np.arange(windows.observed)


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths[:-1]])


def _column(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)
