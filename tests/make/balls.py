"""Balls in straight motion, and the error lines of `read_balls`."""

from pathlib import Path

import numpy as np
import pytest

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls
from vidreason.decomposition.clip import Balls

FORMATS = "`vidreason data card balls` describes the formats"
AGAIN = "create or download the file again"
TOO_MANY = "has more than 100,000,000 states; split it into several files"


def error_line(path: Path) -> str:
    """Returns the error that `read_balls` raises for a file, without its path."""
    with pytest.raises(DataError) as error:
        read_balls(path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


def straight(scenes=2, frames=5, balls=3, width=800.0, height=800.0, seed=0):
    """Returns positions (M, T, N, 2) px and velocities of balls in straight motion."""
    rng = np.random.default_rng(seed)
    velocity = np.broadcast_to(
        rng.uniform(-9, 9, (scenes, 1, balls, 2)), (scenes, frames, balls, 2)
    )
    start = rng.uniform(0.2, 0.8, (scenes, 1, balls, 2)) * (width, height)
    return start + velocity * np.arange(frames)[:, None, None], velocity


def assert_states(balls: Balls, positions, velocities, radii, masses, box, rtol=1e-12):
    """Asserts that all fields are equal; the expected ones broadcast."""
    for found, expected in zip(balls, (positions, velocities, radii, masses, box), strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol, 1e-12)
    assert balls.velocities.shape == balls.positions.shape
    assert balls.masses.shape == balls.radii.shape == balls.positions[:, 0, :, 0].shape
