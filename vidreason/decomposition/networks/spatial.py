"""Spatial transformer as matrix products: pastes objects into frames and crops windows from them.

A pose is (s, x, y). With aligned corners, the point (X, Y) of the frame, in [-1, 1]², shows the
point (sX + x, sY + y) of the object, also in [-1, 1]²: the window is 1 / s of the frame wide and
centred on (-x / s, -y / s). It is not rotated, so bilinear sampling is separable: along each axis
it is a matrix of hat functions with at most two entries per row (Jaderberg et al., "Spatial
Transformer Networks", NeurIPS 2015, eq. 5). Outside the source there are zeros.
"""

import torch
from torch import Tensor


def hat(scale: Tensor, shift: Tensor, source: int, target: int) -> Tensor:
    """Returns sampling matrices along one axis: the target pixel at X reads scale X + shift.

    Args:
        scale: (...,).
        shift: (...,).
        source: Number of source pixels, at least 2.
        target: Number of target pixels, spread evenly over X in [-1, 1].

    Returns:
        (..., target, source), differentiable in `scale` and `shift`; rows sum to 1 inside the
        source.
    """
    return _hats(_places(scale, shift, source, target), source)


def _places(scale: Tensor, shift: Tensor, source: int, target: int) -> Tensor:
    """Returns the fractional source index that each target pixel reads, (..., target)."""
    place = torch.linspace(-1, 1, target, dtype=scale.dtype, device=scale.device)
    return (scale[..., None] * place + shift[..., None] + 1) * ((source - 1) / 2)


def _hats(at: Tensor, source: int) -> Tensor:
    """Returns weights of linear interpolation at fractional indices, (..., source)."""
    # For indices outside the source, the hats of the outermost pair are zero, as required.
    low = at.detach().floor().nan_to_num().clamp(0, source - 2)[..., None]
    pair = torch.cat([low, low + 1], -1)
    weight = (1 - (at[..., None] - pair).abs()).clamp(min=0)
    return at.new_zeros(*at.shape, source).scatter(-1, pair.long(), weight)


def paste(objects: Tensor, pose: Tensor, size: int) -> Tensor:
    """Pastes each object into a black frame of its own.

    Args:
        objects: (..., C, s, s); leading dimensions broadcast against those of `pose`.
        pose: Scale, x and y, (..., 3).
        size: Frame side S in pixels.

    Returns:
        (..., C, S, S).
    """
    scale, x, y = pose[..., None, :].unbind(-1)
    side = objects.shape[-1]
    return hat(scale, y, side, size) @ objects @ hat(scale, x, side, size).mT


def compose(objects: Tensor, pose: Tensor, size: int) -> Tensor:
    """Returns the sum of all pasted objects, by one product per frame instead of per object.

    Args:
        objects: (B, N, C, s, s), the same in every frame.
        pose: Scale, x and y, (B, L, N, 3).
        size: Frame side S in pixels.

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
    """Crops the windows that `paste` would fill, resampled to the size of objects.

    Args:
        frames: (..., C, S, S).
        pose: Scale, x and y of N windows in each frame, (..., N, 3).
        size: Object side s in pixels.

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
