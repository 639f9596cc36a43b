"""Predictions for a video frame by frame, as from a camera, in bounded memory."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.datasets import RATES
from vidreason.intent.task import IntentTask
from vidreason.intent.windows import open_windows
from vidreason.runs.weights import DEFAULT_VIDEO
from vidreason.scenes.scene import bare_scene

_VISIBLE = ("box", "neighbours", "objects")
_GAP = 0.5  # longest occlusion that is interpolated, seconds
_SAME = 0.05  # relative difference of two frame rates that is ignored


class Now(NamedTuple):
    """Predictions for the N instances of a frame, in the order in which they were given.

    Attributes:
        probability: (N, K) in [0, 1]; NaN for instances that are not persons or have not been
            observed for the whole observation window.
        edge: (E, 2) sender and target of each graph edge, indices into the N instances.
        change: (E, K) influence: the probability of the target minus that without the sender.
    """

    probability: np.ndarray
    edge: np.ndarray
    change: np.ndarray


class Live:
    """Predicts for every person in the frames of a video or camera, one frame after another.

    A model expects boxes at the frame rate of its dataset. If frames come at another rate, or only
    every nth frame is processed, boxes are interpolated in between; so are occlusions of up to half
    a second. Persons that were not observed for the whole observation window get no prediction.

    Args:
        task: Model in `eval` mode.
        data: Data module that it was trained with; `setup` need not have been called.
        fps: Frame rate that the frame numbers count.
        size: Width and height of the frames, px.
        every: Step between the numbers of consecutive frames.
        rate: Frame rate the model was trained at; that of its dataset if not given.

    Raises:
        DataError: The model needs features that a video does not show, or its frame rate is
            unknown.
    """

    def __init__(
        self,
        task: IntentTask,
        data: IntentData,
        fps: float,
        size: tuple[int, int],
        every: int = 1,
        rate: float | None = None,
    ) -> None:
        if hidden := [name for name in data.features if name not in _VISIBLE]:
            problem = f"need {', '.join(hidden)}, which a video alone does not show"
            raise DataError("--weights", problem, f"use other weights, such as {DEFAULT_VIDEO}")
        rate = rate or RATES.get(data.dataset)
        if rate is None:
            problem = f"is not known for the dataset {data.dataset!r}"
            raise DataError("--rate", problem, "give the frame rate the model was trained at")
        self.task, self.data, self.size, self.rate = task, data, size, rate
        step = fps / rate
        self.step = 1.0 if abs(step - 1) < _SAME and every == 1 else step
        self.gap = max(_GAP * fps, 1.5 * every)
        span = (data.observed - 1) * self.step + self.gap
        self.seen: deque[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]]
        self.seen = deque(maxlen=int(np.ceil(span / every)) + 2)

    def __call__(
        self,
        number: int,
        track: np.ndarray,
        kind: np.ndarray,
        box: np.ndarray,
        appearance: np.ndarray | None = None,
    ) -> Now:
        """Predicts after a further frame.

        Args:
            number: Frame number, greater than the last one.
            track: (N,) track number of each instance.
            kind: (N,) codes: 0 person, 1 group, others as in `vidreason.scenes.scene.KINDS`.
            box: (N, 4) corners x1, y1, x2, y2, px.
            appearance: (N, C) features, if the model uses them.

        Returns:
            `Now`: the probabilities (N, K) of the instances, and the influence of their neighbours.

        Raises:
            DataError: Appearance features are missing, or of another width.
        """
        wanted = self.data.image_features
        if wanted and (appearance is None or appearance.shape[1] != wanted):
            width = 0 if appearance is None else appearance.shape[1]
            problem = f"gives {width} appearance features, the model needs {wanted}"
            fix = "use the segmenter that the model was trained with"
            raise DataError("--segmenter", problem, fix)
        self.seen.append((number, track, kind, box, appearance if wanted else None))
        steps = self.task.horizon
        now = Now(
            np.full((len(track), steps), np.nan, np.float32),
            np.empty((0, 2), np.int64),
            np.empty((0, steps), np.float32),
        )
        if not len(track):
            return now
        scene, ids = self._scene(number)
        windows = open_windows([scene], self.data.protocol, self.data.observed, steps)
        graphs = self.data.graphs([scene], windows)
        # Persons that are not in this frame get no prediction.
        order = np.argsort(track)
        place = np.minimum(np.searchsorted(track, ids, sorter=order), len(track) - 1)
        here = np.where(track[order[place]] == ids, order[place], -1)
        targets = np.flatnonzero(here[windows.track] >= 0)
        if not len(targets):
            return now
        probability = self.task.forecast(graphs, targets)
        target = here[windows.track[targets]]
        now.probability[target] = probability
        window, sender, change = self.task.influence(graphs, targets, probability)
        edge = np.stack([here[sender], target[window]], 1)
        shown = edge[:, 0] >= 0
        return now._replace(edge=edge[shown], change=change[shown])

    def _scene(self, now: int) -> tuple[Any, np.ndarray]:
        """The observation window as a scene at the model's rate, and its track numbers (K,)."""
        numbers, tracks, kinds, boxes, appearances = zip(*self.seen, strict=True)
        at, frames = np.array(numbers, float), len(numbers)
        row_frame = np.repeat(np.arange(frames), [len(t) for t in tracks])
        ids, row_track = np.unique(np.concatenate(tracks), return_inverse=True)
        kind = np.zeros(len(ids), np.int8)
        kind[row_track] = np.concatenate(kinds)
        box = np.concatenate(boxes)
        row = np.full((len(ids), frames), -1)
        row[row_track, row_frame] = np.arange(len(row_track))

        # Index of the last frame with a box up to each frame, -1 if none, and of the first from
        # there on, `frames` if none.
        there, index = row >= 0, np.arange(frames)
        last = np.maximum.accumulate(np.where(there, index, -1), 1)
        first = np.minimum.accumulate(np.where(there, index, frames)[:, ::-1], 1)[:, ::-1]
        wanted = now - self.step * np.arange(self.data.observed)[::-1]  # (T,)
        slot = np.searchsorted(at, wanted + 1e-6, "right") - 1
        after = np.minimum(slot + (at[slot] < wanted - 1e-6), frames - 1)
        before, after = last[:, np.maximum(slot, 0)], first[:, after]
        valid = (slot >= 0) & (before >= 0) & (after < frames)
        before, after = np.where(valid, before, 0), np.where(valid, after, 0)
        way = at[after] - at[before]
        valid &= way <= self.gap
        share = (np.clip((wanted - at[before]) / np.maximum(way, 1e-9), 0, 1))[..., None]
        track = np.arange(len(ids))[:, None]
        early, late = row[track, before], row[track, after]
        between = (1 - share) * box[early] + share * box[late]

        which, step = np.nonzero(valid)
        kept = np.flatnonzero(valid.any(1))
        image = None
        if self.data.image_features:
            image = np.concatenate(appearances)[early[valid]].astype(np.float16)
        scene = bare_scene(
            "live",
            self.rate,
            self.size,
            self.data.observed,
            tuple(str(i) for i in ids[kept]),
            kind[kept],
            np.concatenate([[0], np.cumsum(valid.sum(1)[kept])]).astype(np.int64),
            step,
            between[which, step],
            image,
        )
        return scene, ids[kept]
