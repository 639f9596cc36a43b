"""Draws objects along tracks, and reads windows from frames, with the spatial transformer.

A track holds window centres in pixels, x to the right and y down, as in
`vidreason.decomposition.clip`. Windows and objects have the scale of the frame.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vidreason.decomposition.networks.spatial import crop, paste

_ROOT = math.sqrt(2 * math.pi)


def pose_at(centre: Tensor, size: int, side: int) -> Tensor:
    """Returns the poses (..., 3) of windows of `side` pixels at centres (..., 2) px.

    Args:
        centre: Window centres, (..., 2) px, x and y.
        size: Frame side S in pixels.
        side: Window side s in pixels.
    """
    scale = torch.full_like(centre[..., :1], (size - 1) / (side - 1))
    return torch.cat([scale, (size - 2 * centre) / (side - 1)], -1)


def draw(objects: Tensor, track: Tensor, size: int) -> Tensor:
    """Draws each object along its track, alone in an otherwise black frame.

    Args:
        objects: (B, N, C, s, s) in [0, 1].
        track: Window centres, (B, N, 2, L) px.
        size: Frame side S in pixels.

    Returns:
        (B, N, L, C, S, S) in [0, 1].
    """
    return paste(objects[:, :, None], pose_at(track.mT, size, objects.shape[-1]), size)


def render(objects: Tensor, track: Tensor, size: int) -> Tensor:
    """Draws all objects into one frame, (B, L, C, S, S); arguments as in `draw`."""
    return screen(draw(objects, track, size).unbind(1))


def draw_expected(objects: Tensor, mean: Tensor, std: Tensor, size: int) -> Tensor:
    """Averages `draw` over normally distributed positions, independent along both axes.

    Args:
        objects: (B, N, C, s, s) in [0, 1].
        mean: Mean window centres, (B, N, 2, T) px.
        std: Standard deviations of the centres, (B, N, 2, T) px.
        size: Frame side S in pixels.

    Returns:
        (B, N, T, C, S, S) in [0, 1].
    """
    side = objects.shape[-1]
    axis = torch.arange(size, device=mean.device) + 0.5
    seats = torch.arange(side, device=mean.device) - (side - 1) / 2
    # Distance from each object pixel to each frame pixel, (B, N, 2, T, S, s) px.
    away = axis[:, None] - seats - mean[..., None, None]
    std = std[..., None, None]

    def ramp(u: Tensor) -> Tensor:
        """Returns E[max(0, u + e)] for e ~ N(0, std²)."""
        return u * torch.special.ndtr(u / std) + std * (-(u / std).square() / 2).exp() / _ROOT

    # Linear interpolation is a difference of ramps, and so is its average.
    hats = ramp(away + 1) - 2 * ramp(away) + ramp(away - 1)
    columns, rows = hats.unbind(2)
    return rows[:, :, :, None] @ objects[:, :, None] @ columns[:, :, :, None].mT


def screen(drawn: Sequence[Tensor]) -> Tensor:
    """Blends components by 1 - prod_i (1 - c_i), the screen blend mode."""
    # A stacked tensor would copy the frames once per component, and again for the gradient.
    return 1 - functools.reduce(torch.mul, [1 - component for component in drawn])


def windows(frames: Tensor, track: Tensor, side: int) -> Tensor:
    """Crops the window around each position of a track.

    Args:
        frames: (B, T, C, S, S).
        track: Window centres, (B, 2, T) px.
        side: Window side in pixels.

    Returns:
        (B, T, C, side, side).
    """
    return crop(frames, pose_at(track.mT, frames.shape[-1], side)[:, :, None], side)[:, :, 0]


def visible(objects: Tensor) -> Tensor:
    """Returns which objects (B, N, C, s, s) have a pixel above 0.5, (B, N) bool."""
    return objects.flatten(2).amax(-1) > 0.5


def centre_of_mass(objects: Tensor) -> Tensor:
    """Returns centres of mass (B, N, 2, 1) px of objects (B, N, C, s, s), from their middles."""
    side = objects.shape[-1]
    axis = torch.arange(side, device=objects.device) - (side - 1) / 2
    # An almost black background is the decoder's floor and has no mass.
    ink = functional.threshold(objects.sum(2), 0.05, 0.0)
    weight = ink.sum((-1, -2)) + 1e-3
    moments = torch.stack([ink.sum(-2) @ axis, ink.sum(-1) @ axis], -1)
    return (moments / weight[..., None])[..., None]
