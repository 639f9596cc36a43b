"""Baselines without training, and the Bayes-optimal prediction, for Moving MNIST.

`black` and `copy_last` see frames. The others are given the digits' appearance and past positions:
`constant_velocity` ignores walls, and `bayes_mean` is the optimum in squared error.
"""

from math import pi

import numpy as np
import torch
from torch import Tensor

from vidreason.core.errors import DataError
from vidreason.decomposition.clip import Decomposition
from vidreason.decomposition.digits import SPEED, MovingDigits, render, trajectories
from vidreason.decomposition.metrics import VideoMetrics

_FITTED = 3  # positions; of 2 to 10, the number that predicts best
_PROPOSALS, _ROUNDS = 1024, 10_000


def black(frames: Tensor, t_out: int) -> Tensor:
    """Predicts black frames.

    Args:
        frames: Input frames, (B, T_in, C, S, S).
        t_out: Number of frames to predict, T_out.

    Returns:
        (B, T_out, C, S, S).
    """
    return torch.zeros_like(frames[:, :1]).repeat(1, t_out, 1, 1, 1)


def copy_last(frames: Tensor, t_out: int) -> Tensor:
    """Predicts the last input frame, repeated; arguments as in `black`."""
    return frames[:, -1:].repeat(1, t_out, 1, 1, 1)


def constant_velocity(digits: Tensor, corner: Tensor, t_out: int, size: int) -> Decomposition:
    """Predicts that the true digits move along lines through their last three true positions.

    Lines are least-squares fits, rounded to whole pixels. Walls are ignored, so digits leave the
    frame. Fits to more positions are worse, because nearly every digit hits a wall in ten frames.

    Args:
        digits: (B, N, D, D) in [0, 1], black where there is no digit.
        corner: Top left pixels in the input frames, x and y, (B, T_in, N, 2).
        t_out: Number of frames to predict, T_out.
        size: Frame side S in pixels.

    Returns:
        A decomposition with one component per digit, of T_in + T_out frames.
    """
    batch, number, side, _ = digits.shape
    recent = corner[:, -_FITTED:].double()
    time = torch.arange(recent.shape[1] + t_out, dtype=torch.float64)
    line = torch.stack([torch.ones_like(time), time], 1)
    hat = (line @ torch.linalg.pinv(line[: recent.shape[1]]))[-t_out:]
    ahead = torch.einsum("ot,btnx->bonx", hat, recent)
    path = torch.cat([corner, ahead], 1).float()
    alone = render(
        digits.reshape(batch * number, 1, side, side),
        path.round().long().transpose(1, 2).reshape(batch * number, -1, 1, 2),
        size,
    )
    components = alone.unflatten(0, (batch, number)).transpose(1, 2)[:, :, :, None]
    sides = torch.full(path.shape[:3], float(side))
    return Decomposition(components.amax(2), components, path + side / 2, sides)


def consistent_corners(
    corner: np.ndarray, free: int, length: int, samples: int, seed: int
) -> np.ndarray:
    """Samples trajectories of digits from the exact posterior given their observed pixels.

    Start positions and directions are drawn from the benchmark's prior, and kept if the benchmark's
    motion passes through all observed pixels. Proposals are limited to those that the first pixel
    allows, and whose speed along either axis agrees to within a pixel with all motion observed
    between two walls.

    Args:
        corner: Observed top left pixels of M digits, x and y, (M, T_in, 2) integers.
        free: Number of pixels that a corner can move along an axis.
        length: Number of frames to simulate, including those observed.
        samples: Trajectories per digit.
        seed: Random seed of the samples.

    Returns:
        Top left pixels, (samples, M, length, 2) int64.

    Raises:
        DataError: No trajectory was found for a digit, which does not move as in the benchmark.
    """
    rng = np.random.default_rng(seed)
    digits, t_in = corner.shape[:2]
    low, high = _angles(corner, free)
    cell = corner[:, 0].T  # (2, M)
    # A first step across a wall ends at the wall, so the start may lie further back.
    first = np.where(cell == 0, -SPEED, cell / free)
    last = np.where(cell < free, (cell + 1) / free, 1 + SPEED)
    starts, turns = np.empty((2, digits, samples)), np.empty((digits, samples))
    have = np.zeros(digits, np.int64)
    for _ in range(_ROUNDS):
        if not len(todo := np.flatnonzero(have < samples)):
            path = trajectories(starts, turns, length)  # (length, 2, M, samples)
            return (free * path).astype(np.int64).transpose(3, 2, 0, 1)
        draw = rng.random((3, len(todo), _PROPOSALS))
        angle = low[todo, None] + (high - low)[todo, None] * draw[2]
        # The bounds are for the first quadrant, but the direction may be in any of the four.
        angle = rng.choice([0, pi], angle.shape) + rng.choice([-1, 1], angle.shape) * angle
        step = SPEED * np.stack([np.cos(angle), np.sin(angle)])
        start = first[:, todo, None] + (last - first)[:, todo, None] * draw[:2] - step
        seen = (free * trajectories(start, angle, t_in)).astype(np.int64)
        kept = ((start >= 0) & (start < 1)).all(0)
        kept &= (seen == corner[todo].transpose(1, 2, 0)[..., None]).all((0, 1))
        slot = have[todo, None] + kept.cumsum(1) - 1
        digit, proposal = np.nonzero(kept & (slot < samples))
        place = todo[digit], slot[digit, proposal]
        starts[:, *place], turns[place] = start[:, digit, proposal], angle[digit, proposal]
        have[todo] = np.minimum(have[todo] + kept.sum(1), samples)
    problem = f"{(have < samples).sum()} of {digits} digits do not move as in Moving MNIST"
    raise DataError("positions", problem, "pass those of its generator")


def _angles(corner: np.ndarray, free: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns bounds of the direction, folded into the first quadrant, (M,) radians each."""
    a, b = np.triu_indices(corner.shape[1], 1)
    # A wall can have stopped a digit only at these pixels.
    stops = ((corner == 0) | (corner == free)).cumsum(1)
    straight = stops[:, a] == stops[:, b]  # (M, pairs, 2)
    way = np.abs(corner[:, b] - corner[:, a])
    frames = (b - a)[:, None] * SPEED * free
    slow = np.where(straight, (way - 1) / frames, 0).max(1, initial=0).clip(0, 1)
    fast = np.where(straight, (way + 1) / frames, 1).min(1, initial=1).clip(0, 1)
    low = np.maximum(np.arccos(fast[:, 0]), np.arcsin(slow[:, 1]))
    return low, np.minimum(np.arccos(slow[:, 0]), np.arcsin(fast[:, 1]))


def bayes_mean(
    digits: Tensor, corner: Tensor, t_out: int, size: int, samples: int = 96, seed: int = 0
) -> Tensor:
    """Predicts the posterior mean frames, which have the least expected squared error.

    With n samples, the error is 1 + 1/n times that of the exact mean on average.

    Args:
        digits: (B, N, D, D) in [0, 1], black where there is no digit.
        corner: Top left pixels in the input frames, x and y, (B, T_in, N, 2) integers.
        t_out: Number of frames to predict, T_out.
        size: Frame side S in pixels.
        samples: Futures to average.
        seed: Random seed of the samples.

    Returns:
        (B, T_out, 1, S, S).

    Raises:
        DataError: A digit does not move as in Moving MNIST.
    """
    batch, number, side, _ = digits.shape
    there = digits.flatten(2).any(-1)  # (B, N)
    seen = corner.transpose(1, 2)[there].numpy()
    t_in = corner.shape[1]
    ways = consistent_corners(seen, size - side, t_in + t_out, samples, seed)[:, :, t_in:]
    total = torch.zeros(batch, t_out, size, size)
    future = torch.zeros(batch, number, t_out, 2, dtype=torch.int64)
    for way in torch.from_numpy(ways):
        future[there] = way
        total += render(digits, future.transpose(1, 2), size)
    return (total / samples)[:, :, None]


def table(
    made: MovingDigits, t_in: int, clips: int, samples: int = 96, batch: int = 50
) -> dict[str, dict[str, Tensor]]:
    """Evaluates all baselines on the first clips of a generator.

    Args:
        made: Generator of clips, whose frames after the first `t_in` are predicted.
        t_in: Number of input frames.
        clips: Number of clips.
        samples: Futures to average for the Bayes floor.
        batch: Clips to process at once.

    Returns:
        Results of `VideoMetrics.compute` by the name of the baseline. The squared error in the row
        `Bayes floor` is corrected for the finite number of samples; the other metrics are not.
    """
    t_out, size = made.length - t_in, made.size
    names = ("black frame", "copy last frame", "constant velocity", "Bayes floor")
    found = {name: VideoMetrics(t_in, t_out) for name in names}
    for start in range(0, clips, batch):
        index = np.arange(start, min(start + batch, clips))
        clip = made.clips(index)
        which, path = made.scripts(index)
        images = np.where((which >= 0)[..., None, None], made.images[which], 0)
        digits, corner = torch.from_numpy(images).float() / 255, torch.from_numpy(path[:, :t_in])
        frames = clip.frames[:, :t_in].float() / 255
        straight = constant_velocity(digits, corner, t_out, size)
        mean = bayes_mean(digits, corner, t_out, size, samples, seed=start)
        forecasts = (
            black(frames, t_out),
            copy_last(frames, t_out),
            straight.frames[:, t_in:],
            mean,
        )
        for name, forecast in zip(names, forecasts, strict=True):
            known = straight if name == "constant velocity" else None
            found[name].update(clip, forecast.expand(-1, -1, made.channels, -1, -1), known)
    rows = {name: metrics.compute() for name, metrics in found.items()}
    for name in ("mse", "mse_by_frame"):
        rows["Bayes floor"][name] *= samples / (samples + 1)
    return rows
