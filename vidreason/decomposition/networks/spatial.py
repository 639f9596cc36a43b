"""The spatial transformer as matrix products: objects into frames, and windows out of frames.

A pose is (s, x, y). With corners aligned, the point (X, Y) of the frame, in [-1, 1]², shows the
point (sX + x, sY + y) of the object, also in [-1, 1]²: the window is 1 / s of the frame wide and
centred on (-x / s, -y / s). It is not turned, so bilinear sampling is separable: along each axis it
is a matrix of hat functions with at most two entries a row (Jaderberg et al., "Spatial Transformer
Networks", NeurIPS 2015, eq. 5). Outside the source there are zeros.
"""

import torch
from torch import Tensor


def hat(scale: Tensor, shift: Tensor, source: int, target: int) -> Tensor:
    """Sampling matrices along one axis: target pixel at X in [-1, 1] reads scale X + shift.

    Args:
        scale: (...,).
        shift: (...,), the same shape.
        source: Pixels that are read, at least 2.
        target: Pixels that are made.

    Returns:
        (..., target, source); differentiable in both, rows sum to 1 inside the source.
    """
    return _hats(_places(scale, shift, source, target), source)


def _places(scale: Tensor, shift: Tensor, source: int, target: int) -> Tensor:
    """What each target pixel reads, as a fraction of an index: (..., target)."""
    place = torch.linspace(-1, 1, target, dtype=scale.dtype, device=scale.device)
    return (scale[..., None] * place + shift[..., None] + 1) * ((source - 1) / 2)


def _hats(at: Tensor, source: int) -> Tensor:
    """Linear interpolation at these indices, (..., source)."""
    # Where `at` lies outside, the hats of the outermost pair are zero as they should be.
    low = at.detach().floor().nan_to_num().clamp(0, source - 2)[..., None]
    pair = torch.cat([low, low + 1], -1)
    weight = (1 - (at[..., None] - pair).abs()).clamp(min=0)
    return at.new_zeros(*at.shape, source).scatter(-1, pair.long(), weight)


def paste(objects: Tensor, pose: Tensor, size: int) -> Tensor:
    """Each object alone in an empty frame.

    Args:
        objects: (..., C, s, s); leading dimensions may be 1 where those of `pose` are not.
        pose: (..., 3): scale, x, y.
        size: Pixels S of a side of the frames.

    Returns:
        (..., C, S, S).
    """
    scale, x, y = pose[..., None, :].unbind(-1)
    side = objects.shape[-1]
    return hat(scale, y, side, size) @ objects @ hat(scale, x, side, size).mT


def compose(objects: Tensor, pose: Tensor, size: int) -> Tensor:
    """Sum of all objects pasted, without making a frame for each: one product per frame.

    Args:
        objects: (B, N, C, s, s), the same in every frame.
        pose: (B, L, N, 3).
        size: Pixels S of a side of the frames.

    Returns:
        (B, L, C, S, S).
    """
    side = objects.shape[-1]
    scale, x, y = pose.unbind(-1)
    columns = hat(scale, x, side, size).mT[:, :, None]  # (B, L, 1, N, s, S)
    wide = objects.transpose(1, 2)[:, None] @ columns  # (B, L, C, N, s, S)
    # [A_1 ... A_N] (S, N s) times the stacked rows sums over components inside the product.
    rows = _hats(_places(scale, y, side, size).mT, side)  # (B, L, S, N, s)
    return rows.flatten(3)[:, :, None] @ wide.flatten(3, 4)


def crop(frames: Tensor, pose: Tensor, size: int) -> Tensor:
    """The windows that `paste` would fill, resampled to objects.

    Args:
        frames: (..., C, S, S).
        pose: (..., N, 3): scale, x, y of N windows in each frame.
        size: Pixels s of a side of the objects.

    Returns:
        (..., N, C, s, s).
    """
    scale, x, y = pose.unbind(-1)
    scale = 1 / scale
    side = frames.shape[-1]
    rows = hat(scale, -y * scale, side, size).flatten(-3, -2)  # (..., N s, S)
    tall = (rows[..., None, :, :] @ frames).unflatten(-2, (-1, size))  # (..., C, N, s, S)
    columns = hat(scale, -x * scale, side, size)[..., None, :, :, :].mT  # (..., 1, N, S, s)
    return (tall @ columns).transpose(-4, -3)
