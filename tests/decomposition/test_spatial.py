"""The separable spatial transformer against `grid_sample`, finite differences and geometry."""

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from vidreason.decomposition.networks.spatial import compose, crop, hat, paste

torch.manual_seed(0)


def poses(*shape):
    """Returns poses of windows inside, across the border of, and far outside the frame."""
    unit = torch.rand(*shape, 3, dtype=torch.float64)
    return unit * torch.tensor([2.5, 4.0, 4.0]) + torch.tensor([0.7, -2.0, -2.0])


def sampled(images, pose, size):
    """Transforms images (N, C, h, h) by poses (N, 3) with PyTorch's functions."""
    scale, x, y = pose.unbind(-1)
    zero = torch.zeros_like(scale)
    theta = torch.stack([scale, zero, x, zero, scale, y], -1).view(-1, 2, 3)
    grid = affine_grid(theta, [*images.shape[:2], size, size], align_corners=True)
    return grid_sample(images, grid, align_corners=True)


def inverse(pose):
    scale, x, y = pose.unbind(-1)
    return torch.stack([1 / scale, -x / scale, -y / scale], -1)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_paste_and_crop_equal_grid_sample(dtype, tolerance):
    objects, frames = torch.rand(50, 3, 16, 16).to(dtype), torch.rand(50, 3, 32, 32).to(dtype)
    pose = poses(50).to(dtype)
    expected = sampled(objects, pose, 32)
    torch.testing.assert_close(paste(objects, pose, 32), expected, atol=tolerance, rtol=0)
    # Far outside, indices reach hundreds of pixels, where float32 is coarse.
    expected = sampled(frames, inverse(pose), 16)
    found = crop(frames, pose[:, None], 16)[:, 0]
    torch.testing.assert_close(found, expected, atol=10 * tolerance, rtol=0)


def test_gradients_equal_those_of_grid_sample():
    objects = torch.rand(40, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    pose = poses(40).requires_grad_()
    weight = torch.rand(40, 2, 16, 16, dtype=torch.float64)
    ours = torch.autograd.grad((paste(objects, pose, 16) * weight).sum(), (objects, pose))
    theirs = torch.autograd.grad((sampled(objects, pose, 16) * weight).sum(), (objects, pose))
    torch.testing.assert_close(ours, theirs)


def test_gradients_equal_finite_differences():
    objects = torch.rand(2, 2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    frames = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    pose = poses(2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda o, p: compose(o, p, 8), (objects, pose))
    assert torch.autograd.gradcheck(lambda f, p: crop(f, p, 4), (frames, pose))


def test_compose_is_the_sum_of_pasted_objects():
    objects, pose = torch.rand(2, 3, 2, 8, 8, dtype=torch.float64), poses(2, 5, 3)
    alone = paste(objects[:, None], pose, 16)
    assert alone.shape == (2, 5, 3, 2, 16, 16)
    torch.testing.assert_close(compose(objects, pose, 16), alone.sum(2))


def test_crop_returns_each_window_of_each_frame():
    frames, pose = torch.rand(2, 5, 3, 16, 16, dtype=torch.float64), poses(2, 5, 4)
    windows = crop(frames, pose, 8)
    assert windows.shape == (2, 5, 4, 3, 8, 8)
    expected = sampled(frames[1, 2, None], inverse(pose[1, 2, 3, None]), 8)
    torch.testing.assert_close(windows[1, 2, 3], expected[0])


def test_known_geometry():
    """Scale 2 in 64 pixels: pixel p reads object index (4 p / 63 - 1) 15.5."""
    two, zero = torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    matrix = hat(two, zero, 32, 64)
    index = (4 * torch.arange(64, dtype=torch.float64) / 63 - 1) * 15.5
    expected = (1 - (index[:, None] - torch.arange(32)).abs()).clamp(min=0)
    torch.testing.assert_close(matrix, expected)
    inked = matrix.sum(-1)
    assert inked.nonzero().flatten().tolist() == list(range(15, 49))
    torch.testing.assert_close(inked[16:48], torch.ones(32, dtype=torch.float64))
    torch.testing.assert_close(
        inked[[15, 48]], torch.full((2,), 0.2619, dtype=torch.float64), atol=1e-4, rtol=0
    )


def test_window_is_centred_on_minus_shift_over_scale():
    grid = torch.linspace(-1, 1, 64)
    pose = torch.tensor([2.0, 0.5, -0.8])
    frame = paste(torch.ones(1, 32, 32), pose, 64)[0]
    centre = (frame.sum(0) @ grid / frame.sum(), frame.sum(1) @ grid / frame.sum())
    assert centre == pytest.approx((-0.25, 0.4), abs=0.01)


def test_crop_inverts_paste():
    axis = torch.linspace(-3, 3, 32)
    smooth = torch.exp(-(axis[:, None] ** 2) - (axis - 0.5) ** 2)[None]
    for pose in ([2.0, 0.0, 0.0], [1.7, 0.6, -0.5], [2.0, -0.9, 0.9]):
        pose = torch.tensor(pose)
        back = crop(paste(smooth, pose, 64), pose[None], 32)[0]
        assert (back - smooth).abs().max() < 0.04  # interpolated twice


def test_nan_pose_gives_nan():
    assert paste(torch.ones(1, 4, 4), torch.full((3,), torch.nan), 8).isnan().any()
