"""Elastic discs against conservation laws, closed forms and a plain simulation."""

import math

import numpy as np
import pytest

from vidreason.core.errors import DataError
from vidreason.decomposition.discs import Discs

R = 0.075


def energy(states, gravity=0.0):
    """Returns kinetic plus potential energy (y is down) of each scene and frame."""
    mass = states.masses[:, None]
    kinetic = (mass[..., None] * states.velocities**2).sum((2, 3)) / 2
    return kinetic - gravity * (mass * states.positions[..., 1]).sum(2)


def plain(states, scene, radius, box=(1.0, 1.0)):
    """Simulates one scene from its first frame, one event at a time.

    Returns positions by frame, and the time from which two events were too close to distinguish.
    """
    p = states.positions[scene, 0].tolist()
    v = states.velocities[scene, 0].tolist()
    m = states.masses[scene].tolist()
    frames, now, doubt = [], 0.0, math.inf
    length = states.positions.shape[1]
    while len(frames) < length:
        events = []
        for i in range(len(p)):
            for axis in (0, 1):
                if v[i][axis] > 0:
                    way = box[axis] - radius - p[i][axis]
                    events.append((max(0, way) / v[i][axis], i, -1 - axis))
                elif v[i][axis] < 0:
                    events.append((max(0, p[i][axis] - radius) / -v[i][axis], i, -1 - axis))
            for j in range(i):
                d = [a - b for a, b in zip(p[i], p[j], strict=True)]
                w = [a - b for a, b in zip(v[i], v[j], strict=True)]
                # The earliest t with |d + w t| = 2 r while approaching.
                roots = np.roots([w[0] ** 2 + w[1] ** 2, 2 * (d[0] * w[0] + d[1] * w[1]),
                                  d[0] ** 2 + d[1] ** 2 - 4 * radius**2])  # fmt: skip
                if d[0] * w[0] + d[1] * w[1] < 0 and len(roots) and not np.iscomplex(roots).any():
                    events.append((max(0.0, float(roots.real.min())), i, j))
        events.sort()
        if len(events) > 1 and events[1][0] - events[0][0] < 1e-6:
            doubt = min(doubt, now + events[0][0])
        until, i, j = events[0] if events else (math.inf, 0, 0)
        while len(frames) < length and len(frames) < now + until:
            frames.append([[a + b * (len(frames) - now) for a, b in zip(*x, strict=True)]
                           for x in zip(p, v, strict=True)])  # fmt: skip
        if until == math.inf:
            continue
        p = [[a + b * until for a, b in zip(*x, strict=True)] for x in zip(p, v, strict=True)]
        now += until
        if j < 0:
            v[i][-1 - j] *= -1
            continue
        n = [(a - b) / (2 * radius) for a, b in zip(p[i], p[j], strict=True)]
        closing = sum((a - b) * c for a, b, c in zip(v[i], v[j], n, strict=True))
        for ball, other, sign in ((i, j, -1), (j, i, 1)):
            share = 2 * m[other] / (m[i] + m[j]) * sign * closing
            v[ball] = [a + share * c for a, c in zip(v[ball], n, strict=True)]
    return np.array(frames), doubt


def test_scenes_equal_the_plain_simulation():
    compared = 0
    for seed in range(100):
        states = Discs(masses=(1.0, 5.0), seed=seed, length=40).states(np.array([seed]))
        frames, doubt = plain(states, 0, R)
        known = np.arange(40) < doubt
        compared += known.sum()
        np.testing.assert_allclose(states.positions[0][known], frames[known], atol=1e-9)
    assert compared > 3_800


# Laws


@pytest.mark.parametrize("options", [{}, {"masses": (1, 5, 25)}, {"gravity": 5e-4}, {"balls": 7}])
def test_energy_is_conserved_and_discs_stay_apart_and_inside(options):
    states = Discs(length=3_000, seed=1, **options).states(np.arange(3))
    total = energy(states, options.get("gravity", 0.0))
    np.testing.assert_allclose(total, np.broadcast_to(total[:, :1], total.shape), rtol=1e-9)
    assert states.positions.min() > R - 1e-12 and states.positions.max() < 1 - R + 1e-12
    first, second = np.triu_indices(states.positions.shape[2], 1)
    gap = states.positions[:, :, first] - states.positions[:, :, second]
    assert np.linalg.norm(gap, axis=-1).min() > 2 * R - 1e-9


def test_momentum_is_conserved_between_walls():
    states = Discs(masses=(1, 5), seed=2).states(np.arange(300))
    momentum = (states.masses[:, None, :, None] * states.velocities).sum(2)
    touched = (states.positions < R + 0.05) | (states.positions > 1 - R - 0.05)
    free = ~touched.any((2, 3))
    both = free[:, 1:] & free[:, :-1]
    met = np.abs(np.diff(states.velocities, axis=1)).max((2, 3)) > 1e-9
    assert (both & met).sum() > 50
    np.testing.assert_allclose(momentum[:, 1:][both], momentum[:, :-1][both], atol=1e-12)


def test_reversed_motion_returns_to_the_start():
    discs = Discs(length=30, seed=3, masses=(1, 5))
    states = discs.states(np.arange(50))
    last = states.positions[:, -1].T.copy(), -states.velocities[:, -1].T
    positions, velocities = discs._move(*last, states.masses.T)
    np.testing.assert_allclose(positions[:, ::-1], states.positions, atol=1e-6)
    np.testing.assert_allclose(velocities[:, -1], -states.velocities[:, 0], atol=1e-6)


def test_single_ball_moves_in_a_triangle_wave():
    states = Discs(balls=1, seed=4, length=300).states(np.arange(20))
    room = 1 - 2 * R
    way = states.positions[:, :1] - R + states.velocities[:, :1] * np.arange(300)[:, None, None]
    folded = room - np.abs(way % (2 * room) - room)
    np.testing.assert_allclose(states.positions, R + folded, atol=1e-10)


def test_falling_ball_moves_in_parabolas():
    gravity = 1e-3
    states = Discs(balls=1, gravity=gravity, seed=5, length=3).states(np.arange(400))
    y, v = states.positions[..., 0, 1], states.velocities[..., 0, 1]
    far = (y > 0.2) & (y < 0.8)
    free = far.all(1)
    assert free.sum() > 100
    time = np.arange(3)
    expected = y[:, :1] + v[:, :1] * time + gravity / 2 * time**2
    np.testing.assert_allclose(y[free], expected[free], atol=1e-12)


# Random numbers


def test_initial_states_are_those_of_the_published_scenes():
    states = Discs(seed=6).states(np.arange(3000))
    start, velocity = states.positions[:, 0] * 800, states.velocities[:, 0] * 800
    for whole in (start, velocity):
        np.testing.assert_allclose(whole, whole.round(), atol=1e-9)
    assert start.round().min() == 61 and start.round().max() == 738
    assert set(velocity.round().astype(int).ravel()) == set(range(-19, 21))
    first, second = np.triu_indices(4, 1)
    assert np.linalg.norm(start[:, first] - start[:, second], axis=-1).min() >= 150
    assert (states.radii == R).all() and (states.masses == 1).all()


def test_scene_depends_on_its_number_and_seed_only():
    discs = Discs(seed=7, masses=(1, 2))
    together = discs.states(np.arange(3000))
    for number in (0, 2047, 2048, 2999):
        alone = discs.states(np.array([number]))
        for one, all_of_them in zip(alone[:4], together[:4], strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[number])
    other = Discs(seed=8, masses=(1, 2)).states(np.arange(5))
    assert not np.allclose(other.positions, together.positions[:5])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"balls": 0}, "data.balls: must be between 1 and 64, got 0"),
        ({"radius": 0.6}, "data.radius: must be between .*, got 0.6"),
        ({"masses": ()}, "data.masses: must be between .*, got 0"),
        ({"box": (0.5, 0.75)}, "data.box: longer side must be 1, got"),
        ({"gravity": -1.0}, "data.gravity: must be between 0 and 1, got -1.0"),
        ({"balls": 30}, "data.balls: 30 balls of radius 0.075 do not fit into the box; use fewer"),
    ],
)
def test_invalid_options_are_rejected(options, line):
    with pytest.raises(DataError, match=line):
        Discs(**options).states(np.arange(2))
