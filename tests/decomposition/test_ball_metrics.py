"""Position and velocity errors against closed forms, a plain loop and published values."""

import math

import numpy as np
import pytest
import torch

from vidreason.decomposition.ball_metrics import (
    BallMetrics,
    collided,
    compare,
    constant_velocity,
    rollout,
)
from vidreason.decomposition.clip import Clip
from vidreason.decomposition.data import SEEDS
from vidreason.decomposition.discs import Discs


def clips(count=8, **options):
    """Returns a batch of simulated balls at 128 px, without frames."""
    states = Discs(length=20, seed=SEEDS["test"], **options).states(np.arange(count))
    position, velocity = torch.from_numpy(128 * np.stack([states.positions, states.velocities]))
    none = torch.zeros(count, states.positions.shape[2], dtype=torch.int64)
    pixels = torch.zeros(count, 20, 1, 1, 1, dtype=torch.uint8)
    return Clip(pixels, position.float() + 0.5, none, torch.arange(count), velocity.float())


@pytest.fixture(scope="module")
def many():
    return clips(2000)


def scores(clip, placed, t_in=10):
    metrics = BallMetrics(t_in, placed.shape[1] - t_in, 128)
    metrics.update(clip, placed)
    return metrics.compute()


def test_walls_are_not_collisions_and_collisions_persist():
    right, left, up = [1.0, 0.5], [-1.0, 0.5], [1.0, -0.5]
    slow, fast = [0.2, 0.5], [-1.8, 0.5]
    one = [right, left, up, up, right]  # walls
    two = [right, right, slow, [-0.2, 0.5], right]  # another ball in frame 2
    three = [[math.nan] * 2] * 5
    four = [fast, fast, fast, fast, slow]
    found = collided(torch.tensor([one, two, three, four]).transpose(0, 1)[None])
    assert found[0].T.int().tolist() == [[0] * 5, [0, 0, 1, 1, 1], [0] * 5, [0, 0, 0, 0, 1]]


def test_simulated_collisions_are_detected():
    # At 128 px, balls touch at a distance of 19.2 px and separate by a few px per frame.
    clip = clips(200)
    apart = torch.cdist(clip.positions, clip.positions) + 1e3 * torch.eye(4)
    hit = collided(clip.velocities)
    new = hit[:, 1:] & ~hit[:, :-1]
    assert new.sum() > 100
    # A ball hit between two frames is close to another in one of them.
    near = torch.minimum(apart.amin(-1)[:, 1:], apart.amin(-1)[:, :-1])
    assert (near[new] < 2 * 9.6 + 6).all()
    # A collision has two partners, so there is never exactly one such ball.
    assert (hit.sum(-1) != 1).all()


def test_single_ball_under_gravity_never_collides():
    clip = clips(50, balls=1, gravity=1e-3)
    assert not collided(clip.velocities).any()


def test_speed_error_and_cosine_in_closed_form():
    angle = torch.tensor([0.0, 0.5, math.pi])
    truth = torch.tensor([[2.0, 0.0]]).expand(3, 2)
    predicted = 3 * torch.stack([angle.cos(), angle.sin()], -1)
    error, cosine = compare(predicted, truth, 0.1)
    assert torch.allclose(error, torch.tensor(0.5))
    assert torch.allclose(cosine, angle.cos())
    # Slow velocities have no direction, whether predicted or true.
    for pair in ((predicted, truth * 0.01), (predicted * 0.01, truth)):
        assert all(value.isnan().all() for value in compare(*pair, 0.1))


def test_constant_velocity_extrapolates_lines():
    time = torch.arange(8.0)
    line = torch.stack([3 + 2 * time, 5 - time], -1)[None, :, None]
    bent = line.clone()
    bent[:, 4:] = 0
    assert torch.allclose(constant_velocity(bent, 4), line)


def test_true_positions_in_any_order_are_perfect(many):
    order = [2, 0, 3, 1]
    found = scores(many, many.positions[:, :, order] + 4.0)
    for name in ("position_error", "position_error_collided", "velocity_error"):
        assert found[name] < 1e-4
        assert (found[f"{name}_by_horizon"] < 1e-4).all()
    assert torch.allclose(found["velocity_cosine_by_horizon"], torch.tensor(1.0).double())


def test_published_values_of_baselines(many):
    truth = scores(many, many.positions)
    assert abs(truth["velocity_error_published"] - 0.089) < 0.005
    assert abs(truth["velocity_cosine_published"] - 0.991) < 0.002
    straight = scores(many, constant_velocity(many.positions, 10))
    for name, first, last in (("error", 0.12, 0.27), ("cosine", 0.97, 0.44)):
        found = straight[f"velocity_{name}_published_by_horizon"]
        assert abs(found[0] - first) < 0.02
        assert abs(found[-1] - last) < 0.02


def test_published_rule_equals_a_plain_loop():
    clip, t_in = clips(12), 10
    generator = torch.Generator().manual_seed(1)
    noise = 3 * torch.randn(clip.positions.shape, generator=generator)
    placed = clip.positions + noise
    placed[0, :, 1] = placed[0, :, 0] + 0.1  # two components at one ball
    truth = np.round(clip.positions.numpy() - 0.5) / 128
    ours = placed.numpy() / 128
    errors, cosines, dropped = [[] for _ in range(10)], [[] for _ in range(10)], 0
    for c in range(12):
        match = [
            min(range(4), key=lambda b: ((ours[c, :t_in, j] - truth[c, :t_in, b]) ** 2).sum())
            for j in range(4)
        ]
        if len(set(match)) < 4:
            dropped += 1
            continue
        for j, b in enumerate(match):
            for h in range(10):
                v = ours[c, t_in + h, j] - ours[c, t_in + h - 2, j]
                w = truth[c, t_in + h, b] - truth[c, t_in + h - 2, b]
                size, true = np.hypot(*v), np.hypot(*w)
                if size >= 1e-4 and true >= 1e-4:
                    errors[h].append(abs(1 - size / true))
                    cosines[h].append(v @ w / (size * true))
    found = scores(clip, placed)
    assert dropped >= 1
    assert math.isclose(found["ambiguous_published"], dropped / 12, rel_tol=1e-6)
    for name, values in (("error", errors), ("cosine", cosines)):
        expected = torch.tensor([np.mean(v) for v in values])
        assert torch.allclose(
            found[f"velocity_{name}_published_by_horizon"], expected.double(), atol=1e-4
        )


def test_errors_after_collisions_count_collided_balls_only(many):
    hit = collided(many.velocities[:, 9:])[:, 1:]
    placed = many.positions.clone()
    placed[:, 10:, :, 0] += torch.where(hit, 2.0, 1.0)
    found = scores(many, placed)
    expected = torch.full([10], 2.0).double()
    assert torch.allclose(found["position_error_collided_by_horizon"], expected, atol=1e-4)
    share = hit.double().mean()
    assert math.isclose(found["position_error"], 1 + share, rel_tol=1e-4)


def test_result_does_not_depend_on_batches(many):
    placed = constant_velocity(many.positions, 10)
    metrics = BallMetrics(10, 10, 128)
    for part in (slice(0, 100), slice(100, 2000)):
        metrics.update(Clip(*(x[part] for x in many)), placed[part])
    whole = scores(many, placed)
    for name, value in metrics.compute().items():
        assert torch.allclose(value, whole[name], equal_nan=True), name


def test_missing_balls_are_ignored(many):
    part = Clip(*(x[:50] for x in many))
    positions, velocities = part.positions.clone(), part.velocities.clone()
    positions[:, :, 3], velocities[:, :, 3] = math.nan, math.nan
    without = part._replace(positions=positions, velocities=velocities)
    placed = constant_velocity(part.positions, 10)[:, :, :3]
    three = part._replace(positions=positions[:, :, :3], velocities=velocities[:, :, :3])
    expected = scores(three, placed)
    found = scores(without, placed)
    for name in ("position_error", "position_error_collided", "velocity_error", "velocity_cosine"):
        assert torch.isclose(found[name], expected[name]), name


def test_rollout_of_lines_keeps_energy_and_leaves_the_box():
    time = torch.arange(60.0)[:, None, None]
    start = torch.tensor([[20.0, 40.0], [20.0, 90.0]])
    placed = (start + torch.tensor([2.0, 0.0]) * time)[None] + 0.5
    found = rollout(placed, 10, 128, 9.0)
    assert torch.allclose(found["energy"], torch.tensor(1.0))
    # Half a radius into the wall is at 123.5 px.
    assert found["outside"].tolist() == [float(20 + 2 * t > 123.5) for t in range(10, 60)]
    assert not found["merged"].any()


def test_rollout_detects_merging_and_slowing_balls():
    gap = torch.linspace(38, 0, 20)
    placed = torch.full((1, 20, 2, 2), 60.0)
    placed[0, :, 0, 0] += gap
    found = rollout(placed, 5, 128, 9.0)
    assert found["merged"].tolist() == (gap[5:] < 9).float().tolist()
    slowing = torch.full((1, 20, 1, 2), 60.0)
    slowing[0, :, 0, 0] += torch.cat([torch.arange(10.0), 9 + torch.arange(1, 11) / 2])
    assert torch.allclose(rollout(slowing, 10, 128, 9.0)["energy"], torch.tensor(0.25))
