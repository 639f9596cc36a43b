"""Forecasts that a model has to beat, and rules that no honest model can know.

`majority` knows how common the answer is, `trees` are gradient-boosted trees on hand-made
summaries of the same annotations that the graphs show. The others are oracles: they read labels or
annotations that reveal them, and show how much of a score a leak is worth. Of a place everybody can
see who is in it now, so that repeating this is no oracle; its trees count people.
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
"""Windows and the scenes they were made of."""

TREES = "box trees"
COUNTS = "counts"
_FITS = 4  # fitted horizons; a fit for each of thirty would take minutes
_STEPS = 15  # of a window's way that trees see; more made them slower, not better


def beside(found: Predictions, root: Path | None) -> dict[str, tuple[np.ndarray, float]]:
    """What the baselines forecast for the rows of `found`, and the threshold of each."""
    meta = found.meta
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
        int(found["horizon"].max()),
        meta.get("observed", 0),  # others' files may leave it to the protocol
    )
    ours, theirs = match(found.table, table)
    mend = "give the dataset that the predictions were made from"
    if len(ours) < len(found.table):
        problem = f"{len(found.table) - len(ours)} of {len(found.table)} rows are no windows of"
        raise DataError(found.source, f"{problem} {root}", mend)
    if (found["label"] != table["label"].to_numpy()[theirs]).any():
        raise DataError(found.source, f"labels differ from those of {root}", mend)
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
    """Every window's rows with a column for each baseline, and the threshold of each."""

    def part(name: str) -> Split:
        chosen = read_split(dataset, root, protocol, name, subset)
        return chosen, split_windows(dataset, chosen, protocol, subset, horizon, observed=observed)

    train, val, asked = part("train"), part("val"), part(split)
    probability = {"majority": majority(train[1], asked[1])}
    if subset == "place":
        fitted, seen = COUNTS, [counts(split) for split in (train, val, asked)]
        known_val, probability[fitted] = trees(train[1], seen[0], seen[1:])
        probability["persistence"] = persistence(asked)
    else:
        fitted = TREES
        known_val, probability[fitted] = box_trees(train, [val, asked], features)
        probability |= {f"{name} (oracle)": answer for name, answer in oracles(asked).items()}
    thresholds = dict.fromkeys(probability, 0.5)
    if len(val[1]):
        objective = "accuracy" if protocol == "stip" else "f1"  # as for a run
        known = prediction_columns(val[1], val[0], known_val)
        thresholds[fitted] = best_threshold(known["probability"], known["label"], objective)
    columns = {
        name: prediction_columns(asked[1], asked[0], answer) for name, answer in probability.items()
    }
    extra = {name: column["probability"] for name, column in columns.items()}
    return pa.table(columns[fitted] | extra), thresholds


def majority(train: Windows, windows: Windows) -> np.ndarray:
    """Share of positives among the training windows, at each horizon: (W, K)."""
    label = train.label[:, train.observed :]
    share = (label == 1).sum(0) / np.maximum((label >= 0).sum(0), 1)
    return np.tile(share, (len(windows), 1))


def persistence(split: Split) -> np.ndarray:
    """The true label of the last observed frame again and again, (W, K), 0 or 1."""
    scenes, windows = split
    now = _column([s.labels["cross"] for s in scenes])[_rows(split)[:, -1]] == 1
    return np.tile(now[:, None], (1, windows.horizon)) * 1.0


def oracles(split: Split) -> dict[str, np.ndarray]:
    """Rules that read what reveals the label; (W, K) each, 0 or 1.

    One is `persistence`. The others know of a pedestrian that it has behaviour tags at all, that it
    is annotated as moving across the road, or that it walks in the last observed frame. Where the
    tag is missing, a rule answers no; one that answers the same everywhere is left out.
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
    """`trees` on the `summaries` of splits."""
    seen = [summaries(split, features) for split in (train, *others)]
    return trees(train[1], seen[0], seen[1:])


def trees(windows: Windows, seen: np.ndarray, others: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Fits boosted trees to columns (W, D) of windows; forecasts (W', K) for each of `others`.

    With many horizons, trees are fitted to four of them, the first and the last among them, and
    the probability is interpolated between.
    """
    label = windows.label[:, windows.observed :]
    ahead = np.arange(windows.horizon)
    fitted = np.unique(np.linspace(0, ahead[-1], _FITS).astype(int))
    blend = np.stack([np.interp(ahead, fitted, hat) for hat in np.eye(len(fitted))])
    models = [_fit(seen[label[:, k] >= 0], label[label[:, k] >= 0, k]) for k in fitted]
    for x in others:
        crosses = [
            m.predict_proba(x)[:, 1] if m and len(x) else np.full(len(x), s) for m, s in models
        ]
        yield np.stack(crosses, axis=1) @ blend


def _fit(x: np.ndarray, label: np.ndarray) -> tuple[HistGradientBoostingClassifier | None, float]:
    """A fitted model, or none where there is one class only, and the share of positives."""
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
    """Hand-made columns (W, D) of what the named groups of `vidreason.intent.features` show.

    Boxes give the way from the first box and the size, place and shift at both ends; the other
    groups are read at the first, middle and last observed frame, or at the last alone.
    """
    scenes, windows = split
    rows = _rows(split)
    size = np.array([(s.width, s.height) for s in scenes], np.float64)[windows.scene]
    box = _column([s.box for s in scenes])[rows] / np.tile(size, 2)[:, None]  # (W, T, 4)
    centre, extent = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
    shift = (centre[:, -1] - centre[:, 0]) * size / (extent[:, -1:, 1] * size[:, 1:])
    step = max(1, windows.observed // _STEPS)
    way = box[:, step::step] - box[:, :1]
    side = 0.5 - centre[:, -1, 0]
    columns = [
        way.reshape(len(way), 4 * way.shape[1]),
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
    """Persons in the image, and in the place ahead, in the first, middle and last frame: (W, 6)."""
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
    """Number of other persons in a frame, and the smallest sideways distance (NaN if alone).

    Args:
        scenes: S videos.
        row: (W,) row of the target in all scenes' boxes.
        frame: (W,) frame counted through all scenes.
        width: (W,) of the image, pixels.
    """
    start = _starts([s.length for s in scenes])
    when = _column([s.frame + first for s, first in zip(scenes, start, strict=True)])
    kind = _column([np.repeat(s.kind, np.diff(s.offsets)) for s in scenes])
    people = np.flatnonzero(kind == KINDS.index("person"))
    people = people[np.argsort(when[people], kind="stable")]
    first, stop = (np.searchsorted(when[people], frame, side) for side in ("left", "right"))
    # One entry per window and person in its frame; the target itself makes every run non-empty.
    run = stop - first
    begin = np.cumsum(run) - run
    other = people[np.arange(run.sum()) + np.repeat(first - begin, run)]
    target = np.repeat(row, run)
    box = _column([s.box for s in scenes])
    centre = (box[:, 0] + box[:, 2]) / 2
    gap = np.where(other == target, np.inf, np.abs(centre[other] - centre[target]))
    nearest = np.minimum.reduceat(gap, begin) / width
    return [run - 1, np.where(np.isfinite(nearest), nearest, np.nan)]


def _rows(split: Split) -> np.ndarray:
    """(W, T) rows of the observed boxes, counted through all scenes."""
    scenes, windows = split
    first = _starts([len(s.frame) for s in scenes])[windows.scene] + windows.row
    return first[:, None] + np.arange(windows.observed)


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths[:-1]])


def _column(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)
