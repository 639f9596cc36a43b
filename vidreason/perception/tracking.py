"""Instances of one frame to those of the frames before: linear assignment on overlaps.

As in SORT (Bewley et al., ICIP 2016), boxes move on at constant velocity and are assigned by
intersection over union. Two things come to that, since one who passes behind another shows only in
part: the overlap of the masks themselves, and how much of what is visible lies in the expected box.
For the same reason a box shrinks slowly, and moves only as far as it must to hold what is visible.
Among those who come into question, likeness helps to choose (as in Deep SORT, Wojke et al., 2017).
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from vidreason.perception.masks import overlaps

_LEAST = 0.05  # score of a pair
_PART = 0.5  # score of one who is seen in part, in the place where the whole is expected
_SHRINK = 0.5  # of a side, at most, in a second; what shrinks faster is being hidden
_GAIN = 0.5  # of the velocity, from where a box is and not where it was expected
_DAMP = 0.9  # of the velocity, in each frame without being seen
_LOOKS, _ALIKE = 0.2, 0.3  # score of looking alike, beyond that likeness
_RENEW = 0.3  # share of the newest look in how a track looks
_MARGIN = 0.1, 1.0  # around one who is out of sight, in sides: more in each frame, and at most
_PATIENCE = 2.0  # seconds that one may be out of sight
_GRID = 2  # every second pixel of every second row will do to compare masks


def area(box: np.ndarray) -> np.ndarray:
    """Of boxes (…, 4)."""
    return np.clip(box[..., 2:] - box[..., :2], 0, None).prod(-1)


def shared(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersections of boxes (M, 4) and (N, 4), square pixels, (M, N)."""
    low = np.maximum(one[:, None, :2], two[:, :2])
    high = np.minimum(one[:, None, 2:], two[:, 2:])
    return area(np.concatenate([low, high], -1))


def box_iou(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (M, 4) and (N, 4), (M, N)."""
    both = shared(one, two)
    return both / np.maximum(area(one)[:, None] + area(two) - both, 1e-9)


def assign(score: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (rows, columns) of greatest total score, each above `least`."""
    # What is not worth a pair must not draw others out of theirs.
    worth = np.where(score > least, score, 0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    kept = worth[rows, columns] > 0
    return rows[kept], columns[kept]


def alike(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Cosine similarity (M, N) of features (M, C) and (N, C), each standardised over all rows."""
    both = np.concatenate([one, two])
    if not both.size:
        return np.zeros((len(one), len(two)))
    both = (both - both.mean(0)) / (both.std(0) + 1e-6)
    both /= np.linalg.norm(both, axis=1, keepdims=True) + 1e-6
    return both[: len(one)] @ both[len(one) :].T


class Tracker:
    """Gives the instances of successive frames the numbers of their tracks, from 0.

    Args:
        fps: Frames per second that are looked at; one who is out of sight for more than two seconds
            comes back as another.
        features: C, width of what instances look like.
    """

    def __init__(self, fps: float, features: int) -> None:
        self.patience = max(2, round(_PATIENCE * fps))
        self.shrink = _SHRINK ** (1 / fps)
        self.count = 0
        self.image: np.ndarray | None = None
        self.instances = 0  # in that image
        # One row for each track that is followed.
        self.track = np.empty(0, np.int32)
        self.kind = np.empty(0, np.int8)
        self.number = np.empty(0, np.int64)  # in the last image, 0 if not there
        self.unseen = np.empty(0, np.int64)  # frames since it was there
        self.age = np.empty(0, np.int64)  # times that it was there
        self.box = np.empty((0, 4))  # of the whole, hidden or not
        self.velocity = np.empty((0, 2))
        self.look = np.empty((0, features))

    def __call__(
        self, image: np.ndarray, kind: np.ndarray, box: np.ndarray, look: np.ndarray
    ) -> np.ndarray:
        """Tracks (N,) int32 of the instances of the next frame.

        Args:
            image: (H, W) numbers of the instances 1 to N; 0 is nobody.
            kind: (N,) what they are; a track keeps its kind.
            box: (N, 4) pixels: x1, y1, x2, y2.
            look: (N, C) features of the instances; any scale will do.
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
        inside = shared(seen, box) / np.maximum(area(box), 1e-9)
        score = np.maximum(box_iou(seen, box), _PART * inside)
        if self.image is not None:
            there = self.number > 0
            masks = overlaps(self.image, image, (self.instances, len(kind)))
            score[there] += masks[self.number[there] - 1]
        liking = _LOOKS * (alike(self.look, look) - _ALIKE)
        score = np.where(score > 0, score + liking, 0)
        score[self.kind[:, None] != kind] = 0
        old, new = assign(score, _LEAST)

        was, low, high = self.box[old], box[new, :2], box[new, 2:]
        size = np.maximum(high - low, self.shrink * (was[:, 2:] - was[:, :2]))
        middle = (was[:, :2] + was[:, 2:]) / 2
        start = np.clip(middle - size / 2, high - size, low)
        self.box[old] = np.concatenate([start, start + size], 1)
        first = self.age[old, None] == 1
        gain = np.where(first, 1, _GAIN) / (self.unseen[old, None] + 1)
        self.velocity[old] += gain * (start + size / 2 - middle)
        self.age[old] += 1
        open_ = area(box[new]) > size.prod(1) / 2  # of one who is hidden a part may look otherwise
        self.look[old[open_]] += _RENEW * (look[new[open_]] - self.look[old[open_]])
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
            "look": look[fresh],
            "velocity": np.zeros((len(fresh), 2)),
        }
        for name, rows in more.items():
            setattr(self, name, np.concatenate([getattr(self, name)[kept], rows]))
        self.image, self.instances = image, len(kind)
        return track
