"""What is drawn on a video: boxes, probabilities, edges and masks, from any source."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.intent.datasets import RATES
from vidreason.intent.predictions import Predictions
from vidreason.intent.task import IntentTask
from vidreason.perception.masks import Masks, numbers
from vidreason.perception.store import Prepared
from vidreason.results.forecasts import Everywhere, horizon_words, read_forecasts
from vidreason.results.overlay import Shown
from vidreason.scenes.scene import KINDS, Scene

_HOLD = 0.5  # seconds that a prediction of a file is shown for, unless another follows


class Layers(NamedTuple):
    """What is drawn on a video: L boxes sorted by frame, and E edges between them.

    Attributes:
        name: Name of the video.
        fps: Frame rate.
        size: Width and height, px.
        length: Number of frames.
        threshold: Decision threshold of the probabilities.
        words: Prediction target, such as "crosses in 1 to 2 s"; empty without predictions.
        frame: (L,) frame number.
        track: (L,) track name.
        kind: (L,) index into `vidreason.scenes.scene.KINDS`.
        box: (L, 4) corners x1, y1, x2, y2, px.
        probability: (L,) in [0, 1], NaN without a prediction.
        label: (L,) 1 is crossing now, 0 is not, -1 unknown.
        edge: (E, 2) rows of sender and target; sorted by target.
        weight: (E,) influence of the sender on the probability of the target, NaN unknown.
        masks: Function from the rows of a frame to the instance image (H, W), 1 to N; 0 background.
    """

    name: str
    fps: float
    size: tuple[int, int]
    length: int
    threshold: float
    words: str
    frame: np.ndarray
    track: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    edge: np.ndarray = np.empty((0, 2), np.int64)
    weight: np.ndarray = np.empty(0)
    masks: Callable[[slice], np.ndarray] | None = None

    def rows(self, frame: int) -> slice:
        """Returns the rows of a frame."""
        return slice(*np.searchsorted(self.frame, [frame, frame + 1]).tolist())

    def at(self, frame: int) -> Shown:
        """Returns what is drawn on a frame."""
        rows = self.rows(frame)
        first, last = np.searchsorted(self.edge[:, 1], [rows.start, rows.stop])
        return Shown(
            self.box[rows],
            [str(name) for name in self.track[rows]],
            self.kind[rows],
            self.probability[rows],
            self.label[rows],
            self.edge[first:last] - rows.start,
            self.weight[first:last],
        )


def of_scene(scene: Scene) -> Layers:
    """Returns the annotation of a scene: boxes, and who is crossing."""
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    order = np.lexsort((track, scene.frame))
    kind = scene.kind[track[order]]
    person = kind == KINDS.index("person")
    return Layers(
        scene.id,
        scene.fps,
        (scene.width, scene.height),
        scene.length,
        0.5,
        "",
        scene.frame[order],
        np.array(scene.track_ids, object)[track[order]],
        kind,
        scene.box[order],
        np.full(len(order), np.nan),
        np.where(person, scene.labels["cross"][order], -1),
    )


def of_everywhere(scene: Scene, found: Everywhere, task: IntentTask, words: str) -> Layers:
    """Returns the predictions of a model for every person in every frame, with graph edges."""
    layers = of_scene(scene)
    tracks = len(scene.kind)
    key = _keys(scene)

    def place(window: np.ndarray | slice, track: np.ndarray) -> np.ndarray:
        return _find(key, found.frame[window].astype(np.int64) * tracks + track)

    target = place(slice(None), found.track)
    layers.probability[target] = found.probability[:, -1]
    edge = np.stack([place(found.window, found.sender), target[found.window]], 1)
    kept = np.flatnonzero(edge[:, 0] >= 0)
    kept = kept[np.argsort(edge[kept, 1], kind="stable")]
    return layers._replace(
        threshold=float(task.threshold),
        words=words,
        edge=edge[kept],
        weight=found.change[kept, -1],
    )


def of_predictions(predictions: Predictions, scene: Scene) -> Layers:
    """Returns the predictions of a file, each shown from its last observed frame on.

    A prediction is shown until the next of its pedestrian, for half a second at most.

    Raises:
        DataError: The predictions are of another scene.
    """
    layers, meta, key = of_scene(scene), predictions.meta, _keys(scene)
    names = {name: k for k, name in enumerate(scene.track_ids)}
    rows = (predictions["horizon"] == predictions["horizon"].max()) & np.array(
        [video == scene.id for video in predictions.table["video"].to_pylist()], bool
    )
    pedestrian = predictions.table.filter(rows)["pedestrian"].to_pylist()
    number = np.array([names.get(name, -1) for name in pedestrian], np.int64)
    last = predictions["last_frame"][rows].astype(np.int64)
    place = _find(key, last * len(scene.kind) + number)
    if (number < 0).any() or (place < 0).any():
        fix = "give the dataset that the predictions were made from"
        problem = f"has predictions of pedestrians that are not in {scene.id}"
        raise DataError(predictions.source, problem, fix)
    layers.probability[place] = predictions["probability"][rows]
    # Carried forward along each track.
    track = key % max(len(scene.kind), 1)
    order = np.lexsort((layers.frame, track))
    known = np.where(np.isnan(layers.probability[order]), -1, np.arange(len(order)))
    last_known = np.maximum.accumulate(known) if len(known) else known
    source = order[np.maximum(last_known, 0)]
    age = layers.frame[order] - layers.frame[source]
    fresh = (last_known >= 0) & (track[order] == track[source]) & (age <= _HOLD * scene.fps)
    layers.probability[order] = np.where(fresh, layers.probability[source], np.nan)
    words = target_words(meta, int(predictions["horizon"].max()), scene)
    return layers._replace(threshold=float(meta["threshold"]), words=words)


def of_forecasts(path: Path) -> Layers:
    """Returns the forecasts of a file that `predict --video` has written."""
    forecasts = read_forecasts(path)
    meta = forecasts.meta
    table = forecasts.table.filter(forecasts["horizon"] == forecasts["horizon"].max(initial=0))
    count = len(table)
    return Layers(
        meta["video"],
        meta["fps"],
        (meta["width"], meta["height"]),
        meta["length"],
        meta["threshold"],
        meta["words"],
        table["frame"].to_numpy(),
        table["pedestrian"].to_numpy(zero_copy_only=False),
        np.full(count, KINDS.index("person"), np.int8),
        np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], 1),
        table["probability"].to_numpy(),
        np.full(count, -1, np.int8),
    )


def of_store(prepared: Prepared) -> Layers:
    """Returns the tracked instances of a prepared video, with their masks."""
    about = prepared.about
    counts = prepared.table["mask"].combine_chunks()
    offsets, flat = counts.offsets.to_numpy(), counts.flatten().to_numpy()
    size = int(about["width"]), int(about["height"])

    def masks(rows: slice) -> np.ndarray:
        part = offsets[rows.start : rows.stop + 1]
        inside = flat[part[0] - offsets[0] : part[-1] - offsets[0]]
        return numbers(Masks(inside, part - part[0], size[1], size[0]))

    count = len(prepared.frame)
    return Layers(
        str(about["video"]),
        float(about["fps"]),
        size,
        prepared.length,
        0.5,
        "",
        prepared.frame,
        prepared.table["track"].to_numpy(),
        prepared.kinds(),
        prepared.boxes(),
        np.full(count, np.nan),
        np.full(count, -1, np.int8),
        masks=masks,
    )


def target_words(meta: Mapping[str, Any], horizon: int, scene: Scene) -> str:
    """Returns the prediction target in words.

    Args:
        meta: `dataset` and `protocol` of the model or the predictions.
        horizon: Prediction horizon, frames of the dataset.
        scene: Scene of the dataset.
    """
    return horizon_words(meta["protocol"], horizon, RATES.get(meta["dataset"], scene.fps))


def _keys(scene: Scene) -> np.ndarray:
    """(L,) frame and track of the rows of `of_scene` as one number, ascending."""
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    return np.sort(scene.frame.astype(np.int64) * len(scene.kind) + track)


def _find(key: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of `wanted` in `key`, which is ascending; -1 where it is not found."""
    if not len(key):
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[place] == wanted, place, -1)
