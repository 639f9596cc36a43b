"""Online multi-object tracking: linear assignment of instances to tracks, frame by frame.

As in SORT (Bewley et al., ICIP 2016), boxes are predicted with constant velocity and assigned by
IoU. The score has two further terms, since an object that passes behind another is visible only in
part: the IoU of the masks, and the share of the visible part that lies in the predicted box. For
the same reason a box shrinks slowly and moves only as far as needed to contain the visible part.
Appearance helps to choose among candidates that overlap (as in Deep SORT, Wojke et al., 2017).
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from vidreason.perception.masks import overlaps

_MIN_SCORE = 0.05  # of a pair
_PART = 0.5  # score of a visible part that lies in the predicted box
_SHRINK = 0.5  # least factor of a side per second; what shrinks faster is being occluded
_GAIN = 0.5  # of the velocity update, on the prediction error of the centre
_DAMP = 0.9  # factor of the velocity in each frame without a match
_WEIGHT, _NEUTRAL = 0.2, 0.3  # of the appearance score; the similarity at which it is zero
_UPDATE = 0.3  # weight of the newest features in the moving average of a track's appearance
_MARGIN = 0.1, 1.0  # around an unmatched box, in sides: increase per frame, and maximum
_PATIENCE = 2.0  # seconds that a track survives without a match
_GRID = 2  # masks are compared at every second pixel of every second row


def area(box: np.ndarray) -> np.ndarray:
    """Returns the areas of boxes (…, 4), square pixels, (…)."""
    return np.clip(box[..., 2:] - box[..., :2], 0, None).prod(-1)


def intersection(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns the intersection areas of boxes (M, 4) and (N, 4), square pixels, (M, N)."""
    low = np.maximum(one[:, None, :2], two[:, :2])
    high = np.minimum(one[:, None, 2:], two[:, 2:])
    return area(np.concatenate([low, high], -1))


def box_iou(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes (M, 4) and (N, 4), 0 to 1, (M, N)."""
    both = intersection(one, two)
    return both / np.maximum(area(one)[:, None] + area(two) - both, 1e-9)


def assign(score: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Solves the linear assignment problem among pairs with a score above a threshold.

    Args:
        score: (M, N).
        threshold: At least 0.

    Returns:
        Row and column of each pair; their total score is maximal.
    """
    # Pairs below the threshold must not break up better ones.
    valid = np.where(score > threshold, score, 0)
    rows, columns = linear_sum_assignment(valid, maximize=True)
    kept = valid[rows, columns] > 0
    return rows[kept], columns[kept]


def cosine_similarity(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns cosine similarities (M, N) of features (M, C) and (N, C), standardised jointly."""
    both = np.concatenate([one, two])
    if not both.size:
        return np.zeros((len(one), len(two)))
    both = (both - both.mean(0)) / (both.std(0) + 1e-6)
    both /= np.linalg.norm(both, axis=1, keepdims=True) + 1e-6
    return both[: len(one)] @ both[len(one) :].T


class Tracker:
    """Assigns track numbers, counted from 0, to the instances of successive frames.

    Args:
        fps: Frame rate of the processed frames. An object that is not visible for more than two
            seconds gets a new track.
        features: C, width of the appearance features.
    """

    def __init__(self, fps: float, features: int) -> None:
        self.patience = max(2, round(_PATIENCE * fps))
        self.shrink = _SHRINK ** (1 / fps)
        self.count = 0
        self.image: np.ndarray | None = None
        self.instances = 0  # number of instances in `image`
        # One row per active track.
        self.track = np.empty(0, np.int32)
        self.kind = np.empty(0, np.int8)
        self.number = np.empty(0, np.int64)  # instance number in `image`, 0 if not visible
        self.unseen = np.empty(0, np.int64)  # frames since the last match
        self.age = np.empty(0, np.int64)  # number of matches
        self.box = np.empty((0, 4))  # of the whole object, including occluded parts
        self.velocity = np.empty((0, 2))
        self.appearance = np.empty((0, features))

    def __call__(
        self, image: np.ndarray, kind: np.ndarray, box: np.ndarray, appearance: np.ndarray
    ) -> np.ndarray:
        """Tracks the N instances of the next frame.

        Args:
            image: (H, W) unsigned integers, instance number 1 to N per pixel; 0 is background.
            kind: (N,) index into `KINDS`; a track keeps its kind.
            box: (N, 4) pixels: x1, y1, x2, y2.
            appearance: (N, C) appearance features, of any scale.

        Returns:
            (N,) int32 track numbers.
        """
        height, width = image.shape
        image = image[::_GRID, ::_GRID]
        self.box += np.tile(self.velocity, 2)
        self.velocity[self.unseen > 0] *= _DAMP
        margin = np.minimum(_MARGIN[0] * self.unseen, _MARGIN[1])[:, None]
        margin = margin * (self.box[:, 2:] - self.box[:, :2])
        seen = (self.box + np.concatenate([-margin, margin], 1)).clip(
            0, [width, height, width, height]
        )
        inside = intersection(seen, box) / np.maximum(area(box), 1e-9)
        score = np.maximum(box_iou(seen, box), _PART * inside)
        if self.image is not None:
            there = self.number > 0
            masks = overlaps(self.image, image, (self.instances, len(kind)))
            score[there] += masks[self.number[there] - 1]
        similarity = cosine_similarity(self.appearance, appearance)
        score = np.where(score > 0, score + _WEIGHT * (similarity - _NEUTRAL), 0)
        score[self.kind[:, None] != kind] = 0
        old, new = assign(score, _MIN_SCORE)

        was, low, high = self.box[old], box[new, :2], box[new, 2:]
        size = np.maximum(high - low, self.shrink * (was[:, 2:] - was[:, :2]))
        middle = (was[:, :2] + was[:, 2:]) / 2
        start = np.clip(middle - size / 2, high - size, low)
        self.box[old] = np.concatenate([start, start + size], 1)
        first = self.age[old, None] == 1
        gain = np.where(first, 1, _GAIN) / (self.unseen[old, None] + 1)
        self.velocity[old] += gain * (start + size / 2 - middle)
        self.age[old] += 1
        # A visible part can look different from the whole object.
        whole = area(box[new]) > size.prod(1) / 2
        change = appearance[new[whole]] - self.appearance[old[whole]]
        self.appearance[old[whole]] += _UPDATE * change
        self.unseen += 1
        self.unseen[old] = self.number[:] = 0
        self.number[old] = new + 1

        track = np.full(len(kind), -1, np.int32)
        track[new] = self.track[old]
        fresh = np.flatnonzero(track < 0)
        track[fresh] = self.count + np.arange(len(fresh))
        self.count += len(fresh)
        kept = self.unseen <= self.patience
        zeros = np.zeros(len(fresh), np.int64)
        more = {
            "track": track[fresh],
            "kind": kind[fresh],
            "number": fresh + 1,
            "unseen": zeros,
            "age": zeros + 1,
            "box": box[fresh],
            "appearance": appearance[fresh],
            "velocity": np.zeros((len(fresh), 2)),
        }
        for name, rows in more.items():
            setattr(self, name, np.concatenate([getattr(self, name)[kept], rows]))
        self.image, self.instances = image, len(kind)
        return track
