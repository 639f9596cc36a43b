"""Localizes one component in frames: soft-argmax, matched filter, and what its windows show.

These are the steps of inference in `EquivariantDDPAE` that have no parameters. Each is given the
frames and what the other components explain of them.
"""

import math

import torch
from torch import Tensor

from vidreason.decomposition.networks.ddpae import SIGMA
from vidreason.decomposition.networks.drawing import windows

CELL = 4
"""Distance in pixels between the positions that the scout scores."""
REACH = 3
"""Largest shift in pixels, along each axis, that the matched filter evaluates."""

_STRAY = 5.0  # standard deviation, px, of a component around its extrapolated position
_DRIFT = 2.0  # standard deviation, px, of the track that the matched filter refines


def grid(axis: Tensor) -> Tensor:
    """Returns all pairs (x, y) of the values on an axis (n,), (n², 2), row by row."""
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)


def soft_argmax(scores: Tensor, cells: Tensor, size: int, window: int) -> Tensor:
    """Returns a track from score maps, one frame after the other.

    Scores are lowered with the distance from the position extrapolated from the two frames before.
    The result is the softmax-weighted mean of the positions around the best score.

    Args:
        scores: Logits, (B, T, n).
        cells: Positions that they belong to, (n, 2) px.
        size: Frame side S in pixels.
        window: Window side in pixels.

    Returns:
        (B, 2, T) px.
    """
    track: list[Tensor] = []
    for score in scores.unbind(1):
        if track:
            # At most a sixteenth of a window can be outside of the frame, to either side.
            expected = (2 * track[-1] - track[-2] if len(track) > 1 else track[-1]).detach()
            expected = expected.clamp(window * 7 / 16, size - window * 7 / 16)
            away = (cells - expected[:, None]).square().sum(-1)
            score = score - away / (2 * _STRAY**2)
        # Around the best score only: the mean of two distant candidates is neither.
        best = cells[score.argmax(-1)]
        far = (cells - best[:, None]).abs().amax(-1) > 2.5 * CELL
        track.append(score.masked_fill(far, -1e9).softmax(-1) @ cells)
    return torch.stack(track, -1)


@torch.no_grad()
def matched_filter(rest: Tensor, objects: Tensor, track: Tensor, shifts: Tensor) -> Tensor:
    """Refines a track to the posterior mean over shifts of whole pixels.

    Up to a constant, log N(rest; object at p, 0.3²) is the correlation of both divided by 0.3².

    Args:
        rest: Frames without what the other components explain, (B, T, C, S, S).
        objects: The component's object, (B, C, s, s).
        track: Its current track, (B, 2, T) px.
        shifts: Candidate shifts, ((2 REACH + 1)², 2) px.

    Returns:
        (B, 2, T) px.
    """
    around = track.round()
    side = objects.shape[-1]
    wide = side + 2 * REACH
    seen = windows(rest, around, wide)  # (B, T, C, W, W)
    # One product correlates all rows of the window with all rows of the object at each horizontal
    # shift; vertical shifts are the diagonals of the result.
    rows = seen.unfold(-1, side, 1)  # (B, T, C, W, X, s)
    rows = rows.transpose(1, 2).flatten(2, 4) @ objects.mT  # (B, C, T W X, s)
    rows = rows.unflatten(2, (track.shape[-1], wide, -1)).sum(1)  # (B, T, W, X, s)
    reach = 2 * REACH + 1
    batch, time, row, column, entry = rows.stride()
    diagonals = rows.as_strided(
        (*rows.shape[:2], reach, reach, side), (batch, time, row, column, row + entry)
    )
    scores = diagonals.sum(-1).flatten(2) / SIGMA**2  # (B, T, Y X)
    offset = (track - around).mT[:, :, None]
    scores = scores - (shifts - offset).square().sum(-1) / (2 * _DRIFT**2)
    return around + (scores.softmax(-1) @ shifts).mT


def appearance(frames: Tensor, explained: Tensor, track: Tensor, side: int) -> Tensor:
    """Summarizes over time what the windows along a track show.

    Args:
        frames: (B, T, C, S, S) in [0, 1].
        explained: What the other components draw, (B, T, C, S, S) in [0, 1].
        track: Window centres, (B, 2, T) px.
        side: Window side s in pixels.

    Returns:
        (B, 4 C, s, s): the mean, the mean where no other component draws, a soft minimum (an object
        that others only brighten shows in the darkest values), and the share of time in which no
        other component draws.
    """
    seen = windows(frames, track, side)
    free = 1 - windows(explained, track, side)
    share = free.mean(1)
    # The gradient of a soft minimum reaches more than one frame.
    darkest = -((-8 * seen).logsumexp(1) - math.log(track.shape[-1])) / 8
    alone = (free * seen).mean(1) / (share + 0.05)
    return torch.cat([seen.mean(1), alone, darkest, share], 1)
