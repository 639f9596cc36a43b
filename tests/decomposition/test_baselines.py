"""Baselines on constructed motion, and the Bayes floor against plain rejection sampling."""

import numpy as np
import pytest
import torch

from vidreason.core.errors import DataError
from vidreason.decomposition import baselines
from vidreason.decomposition.baselines import (
    bayes_mean,
    black,
    consistent_corners,
    constant_velocity,
    copy_last,
    table,
)
from vidreason.decomposition.digits import MovingDigits, render, trajectories
from vidreason.decomposition.metrics import FLOOR, mse
from vidreason.decomposition.mnist import drawn_digits, read_digits

T_IN, FREE = 10, 36


def made(seed=0, **options):
    return MovingDigits(*drawn_digits(20, 0), seed=seed, **options)


def test_black_and_copy_last():
    frames = torch.rand(2, 3, 1, 8, 8)
    assert black(frames, 4).shape == copy_last(frames, 4).shape == (2, 4, 1, 8, 8)
    assert (black(frames, 4) == 0).all()
    assert (copy_last(frames, 4) == frames[:, 2:]).all()


def test_constant_velocity_extrapolates_lines():
    digits = torch.full((1, 2, 4, 4), 0.5)
    time = torch.arange(6)
    way = torch.stack([torch.stack([2 * time, 9 - time], 1), torch.stack([time, 0 * time], 1)], 1)
    way[0] += 5  # before the last three frames, so ignored
    found = constant_velocity(digits, way[None, :4], 2, 16)
    assert found.positions[0, 4:].numpy() == pytest.approx(way[4:].numpy() + 2, abs=1e-4)
    assert torch.equal(found.positions[0, :4], way[:4].float() + 2)
    assert torch.equal(found.frames[:, 4:, 0], render(digits, way[None, 4:], 16))
    assert torch.equal(found.frames, found.components.amax(2)) and (found.sides == 4).all()
    assert found.components.shape == (1, 6, 2, 1, 16, 16)


def test_constant_velocity_is_a_fit_and_ignores_walls():
    digits = torch.ones(1, 1, 4, 4)
    corner = torch.tensor([[0, 0], [4, 0], [5, 0]])[None, :, None]
    # The least-squares line through 0, 4, 5 is 3 + 2.5 (t - 1).
    found = constant_velocity(digits, corner, 8, 16)
    assert found.positions[0, 3:, 0, 0].tolist() == pytest.approx([10 + 2.5 * t for t in range(8)])
    assert found.frames[0, 3:].sum((1, 2, 3)).tolist() == [16, 16, 12, 0, 0, 0, 0, 0]


def test_sampled_trajectories_pass_through_the_observations():
    corner = made().scripts(np.arange(50))[1].transpose(0, 2, 1, 3).reshape(-1, 20, 2)
    ways = consistent_corners(corner[:, :T_IN], FREE, 20, 8, seed=0)
    assert ways.shape == (8, 100, 20, 2)
    assert (ways[:, :, :T_IN] == corner[:, :T_IN]).all()
    assert np.abs(np.diff(ways, axis=2)).max() <= 4
    # In exact posterior samples, the truth has the same distribution as any sample.
    last, truth = ways[:, :, -1, 0], corner[:, -1, 0]
    below, above = (last < truth).mean(), (last > truth).mean()
    assert below == pytest.approx(above, abs=0.15)


@pytest.mark.parametrize("angle", [0.3, 2.0, 3.5, 5.5, 0.0])
@pytest.mark.parametrize("start", [(0.5, 0.5), (0.01, 0.9), (0.98, 0.02)])
def test_samples_have_the_distribution_of_plain_rejection(start, angle):
    # Only three pixels and four frames, so that prior draws often match the observations.
    def corner(start, turn, length):
        return (3 * trajectories(start, turn, length)).astype(int)

    seen = corner(np.array(start)[:, None], np.array([angle]), 4)
    rng = np.random.default_rng(0)
    starts, turns = rng.random((2, 200_000)), 2 * np.pi * rng.random(200_000)
    kept = (corner(starts, turns, 4) == seen).all((0, 1))
    plain = corner(starts[:, kept], turns[kept], 12)
    ours = consistent_corners(seen.transpose(2, 0, 1), 3, 12, 2000, seed=1)[:, 0]
    assert kept.sum() > 100
    noise = 5 * 0.5 * (1 / kept.sum() + 1 / 2000) ** 0.5
    # Frequency of each pixel, in each frame and along each axis.
    for pixel in range(4):
        expected, found = (plain == pixel).mean(-1), (ours == pixel).mean(0)
        assert found == pytest.approx(expected, abs=noise)


def test_other_motion_is_rejected(monkeypatch):
    monkeypatch.setattr(baselines, "_ROUNDS", 100)
    corner = np.zeros((1, 5, 2), int)
    corner[0, :, 0] = [10, 20, 10, 20, 10]
    with pytest.raises(DataError, match="1 of 1 digits do not move as in Moving MNIST"):
        consistent_corners(corner, FREE, 8, 4, seed=0)


def test_posterior_mean_is_close_to_a_predictable_future():
    # The position of a single digit is nearly certain a few frames ahead.
    digits = torch.from_numpy(drawn_digits(2, 0)[0])[:, None].float() / 255
    path = made().scripts(np.arange(2))[1][:, :, :1]
    corner = torch.from_numpy(path)
    mean = bayes_mean(digits, corner[:, :T_IN], 10, 64, samples=32)
    assert mean.shape == (2, 10, 1, 64, 64) and mean.min() >= 0 and mean.max() <= 1
    # Averaging shifted digits keeps their total brightness.
    ink = digits.sum((1, 2, 3))[:, None].expand(-1, 10)
    assert mean.sum((2, 3, 4)).numpy() == pytest.approx(ink.numpy(), rel=1e-4)
    truth = render(digits, corner[:, T_IN:], 64)[:, :, None]
    assert (mse(mean, truth)[:, :3] < mse(truth.roll(4, -1), truth)[:, :3]).all()


def test_clips_with_fewer_digits():
    clips = made(counts=(1, 2))
    rows = table(clips, T_IN, clips=6, samples=4, batch=3)
    assert all(value.isfinite().all() for row in rows.values() for value in row.values())
    assert (
        rows["Bayes floor"]["mse"] < rows["constant velocity"]["mse"] < rows["black frame"]["mse"]
    )


def test_floor_is_corrected_for_few_samples():
    few, many = (
        table(made(length=12), T_IN, clips=50, samples=samples)["Bayes floor"] for samples in (1, 8)
    )
    assert few["mse"].item() == pytest.approx(many["mse"].item(), rel=0.3)
    assert few["mse"] * 2 == pytest.approx(few["mse_by_frame"].sum().item())


def test_squared_error_is_proportional_to_channels():
    one, three = (table(made(channels=c, length=13), T_IN, clips=2, samples=4) for c in (1, 3))
    for name in one:
        assert three[name]["mse"].item() == pytest.approx(3 * one[name]["mse"].item(), rel=1e-4)


@pytest.fixture(scope="module")
def mnist(real_digits):
    return MovingDigits(*read_digits(real_digits, "test"), seed=7)


def test_squared_error_of_shifted_and_black_frames(mnist):
    truth = mnist.clips(np.arange(100)).frames[:, T_IN:].float() / 255
    shifted = torch.cat([mse(truth.roll(1, axis), truth) for axis in (-1, -2)])
    assert 50 < shifted.mean() < 62
    assert 165 < mse(torch.zeros_like(truth), truth).mean() < 190


def test_bayes_floor_of_real_digits(mnist):
    rows = table(mnist, T_IN, clips=24, samples=16)
    assert rows["Bayes floor"]["mse"].item() == pytest.approx(FLOOR, abs=4)
    assert rows["constant velocity"]["position_error_input"] == 0
    assert rows["copy last frame"]["mse"] > 200
