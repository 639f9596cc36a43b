"""Run-length encoding of instance masks: COCO's uncompressed RLE (Lin et al., ECCV 2014).

Pixels are numbered column by column. A mask is stored as run lengths that alternate between outside
and inside, starting outside, and sum to the number of pixels. Instances of one frame do not
overlap, so they are passed as one image of instance numbers and encoded together.
"""

from typing import NamedTuple

import numpy as np


class Masks(NamedTuple):
    """Run-length encoded masks of N instances in an image of H x W pixels.

    Attributes:
        counts: (R,) int32, the run lengths of all masks, concatenated.
        offsets: (N + 1,) int32; mask n is `counts[offsets[n]:offsets[n + 1]]`.
        height: H, pixels.
        width: W, pixels.
    """

    counts: np.ndarray
    offsets: np.ndarray
    height: int
    width: int


def encode(numbers: np.ndarray, instances: int) -> Masks:
    """Encodes the masks of instances 1 to N of an image.

    Args:
        numbers: (H, W) unsigned integers, instance number per pixel; 0 is background. Instances
            may be missing from the image.
        instances: N.

    Returns:
        N masks; that of a missing instance is empty.
    """
    height, width = numbers.shape
    flat = np.ascontiguousarray(numbers.T).ravel()
    edge = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start = np.concatenate([[0], edge])
    stop = np.append(edge, flat.size)
    owner = flat[start].astype(np.int64)
    order = np.argsort(owner, kind="stable")
    order = order[np.searchsorted(owner[order], 1) :]
    start, stop, owner = start[order], stop[order], owner[order] - 1
    runs = np.bincount(owner, minlength=instances)
    first = np.cumsum(runs) - runs
    # Background pixels before each run, and those that remain after the last run.
    since = np.concatenate([[0], stop[:-1]])
    since[first[runs > 0]] = 0
    end = np.zeros(instances, np.int64)
    end[runs > 0] = stop[(first + runs - 1)[runs > 0]]
    rest = flat.size - end
    size = 2 * runs + (rest > 0)
    offsets = np.concatenate([[0], np.cumsum(size)])
    counts = np.empty(offsets[-1], np.int32)
    at = offsets[owner] + 2 * (np.arange(len(owner)) - first[owner])
    counts[at], counts[at + 1] = start - since, stop - start
    counts[(offsets[1:] - 1)[rest > 0]] = rest[rest > 0]
    return Masks(counts, offsets.astype(np.int32), height, width)


def decode(masks: Masks) -> np.ndarray:
    """Decodes masks to images, (N, H, W) bool."""
    count = len(masks.offsets) - 1
    flat = np.repeat(_inside(masks), masks.counts)
    return flat.reshape(count, masks.width, masks.height).transpose(0, 2, 1)


def numbers(masks: Masks) -> np.ndarray:
    """Inverts `encode`: (H, W) uint16 instance numbers; where masks overlap, the last one."""
    size = masks.height * masks.width
    inside = _inside(masks) & (masks.counts > 0)
    owner = np.repeat(np.arange(len(masks.offsets) - 1), np.diff(masks.offsets))
    stop = np.cumsum(masks.counts, dtype=np.int64) - owner * size
    run, owner = masks.counts[inside].astype(np.int64), owner[inside]
    start, first = stop[inside] - run, np.cumsum(run) - run
    flat = np.zeros(size, np.uint16)
    flat[np.arange(run.sum()) + np.repeat(start - first, run)] = np.repeat(owner + 1, run)
    return flat.reshape(masks.width, masks.height).T


def areas(masks: Masks) -> np.ndarray:
    """Returns the area of each mask, (N,) int64 pixels."""
    inside = np.where(_inside(masks), masks.counts, 0)
    total = np.concatenate([[0], np.cumsum(inside, dtype=np.int64)])
    return np.diff(total[masks.offsets])


def boxes(masks: Masks) -> np.ndarray:
    """Returns bounding boxes, (N, 4) float32 pixels: x1, y1, x2, y2; zeros for an empty mask."""
    count, height = len(masks.offsets) - 1, masks.height
    inside = _inside(masks) & (masks.counts > 0)
    owner = np.repeat(np.arange(count), np.diff(masks.offsets))
    ends = np.cumsum(masks.counts, dtype=np.int64)
    stop = (ends - owner * height * masks.width)[inside]
    start, owner = stop - masks.counts[inside], owner[inside]
    # A run that continues in the next column touches the lower and the upper edge.
    one = start // height == (stop - 1) // height
    box = np.zeros((count, 4), np.float32)
    if len(owner):
        there, first = np.unique(owner, return_index=True)
        low = np.stack([start // height, np.where(one, start % height, 0)], 1)
        high = np.stack([(stop - 1) // height, np.where(one, (stop - 1) % height, height - 1)], 1)
        box[there, :2] = np.minimum.reduceat(low, first)
        box[there, 2:] = np.maximum.reduceat(high, first) + 1
    return box


def overlaps(before: np.ndarray, after: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the mask IoU between the instances of two images.

    Args:
        before: (H, W) instance numbers 1 to M; 0 is background.
        after: (H, W) instance numbers 1 to N of the other image.
        shape: (M, N).

    Returns:
        (M, N), 0 to 1.
    """
    both = (before > 0) & (after > 0)
    pair = (before[both].astype(np.int64) - 1) * shape[1] + after[both] - 1
    shared = np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape)
    one = np.bincount(before.ravel(), minlength=shape[0] + 1)[1:, None]
    two = np.bincount(after.ravel(), minlength=shape[1] + 1)[None, 1:]
    return shared / np.maximum(one + two - shared, 1)


def pool(features: np.ndarray, numbers: np.ndarray, instances: int) -> np.ndarray:
    """Averages a feature map over each instance mask.

    Args:
        features: (C, h, w) feature map of the image, of lower resolution.
        numbers: (H, W) instance numbers, as in `encode`.
        instances: N.

    Returns:
        (N, C) float32, the mean over the cells whose centre is in the mask. An instance that covers
        no cell centre gets the cell at the centre of its box.
    """
    cells = features.shape[1:]
    at = [
        ((np.arange(n) + 0.5) * full / n).astype(int)
        for n, full in zip(cells, numbers.shape, strict=True)
    ]
    small = numbers[at[0][:, None], at[1]].ravel()
    cell = np.flatnonzero(small)
    cell = cell[np.argsort(small[cell], kind="stable")]
    owner = small[cell].astype(np.int64) - 1
    lost = np.setdiff1d(np.arange(instances), owner)
    if len(lost):
        box = boxes(encode(numbers, instances))[lost]
        scale = np.array(cells) / numbers.shape
        middle = (box[:, 1::-1] + box[:, :1:-1]) / 2 * scale
        y, x = np.minimum(middle.astype(int), np.array(cells) - 1).T
        cell, owner = np.append(cell, y * cells[1] + x), np.append(owner, lost)
        order = np.argsort(owner, kind="stable")
        cell, owner = cell[order], owner[order]
    if not instances:
        return np.zeros((0, len(features)), np.float32)
    first = np.searchsorted(owner, np.arange(instances))
    picked = np.take(features.reshape(len(features), -1), cell, axis=1)
    total = np.add.reduceat(picked, first, axis=1, dtype=np.float32)
    return (total / np.bincount(owner, minlength=instances)).T


def _inside(masks: Masks) -> np.ndarray:
    """Returns whether each run lies inside its mask, (R,) bool."""
    number = np.arange(len(masks.counts))
    return (number - np.repeat(masks.offsets[:-1], np.diff(masks.offsets))) % 2 == 1
