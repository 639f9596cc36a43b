"""Data structures of the decomposition subsystem: clips, their decomposition, and states of balls.

Positions are in pixels, x to the right and y down. Pixel p covers [p, p + 1), so an object 28
pixels wide whose first column is x has its centre at x + 14.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Clip(NamedTuple):
    """Batch of B clips of T frames with up to N objects, as data loaders return it.

    A model is given `frames` only; the other fields are ground truth for evaluation.

    Attributes:
        frames: (B, T, C, S, S) uint8 in [0, 255].
        positions: Centres of the objects, x and y, (B, T, N, 2) float32 px; NaN where there is no
            object.
        labels: Class of each object, (B, N) int64; -1 where there is no object.
        index: Number of each clip in its split, (B,) int64.
        velocities: Velocities of the objects at the time of each frame, (B, T, N, 2) float32 px
            per frame; NaN where there is no object. None for objects without a physical state.
    """

    frames: Tensor
    positions: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]
    velocities: Tensor | None = None


class Decomposition(NamedTuple):
    """Decomposition of B clips into N components over L = T_in + T_out frames.

    The first T_in frames are reconstructed from the input, the other T_out are predicted.

    Attributes:
        frames: Mean of the observation, all components together, (B, L, C, S, S) float32 in [0, 1].
        components: Image that each component draws, (B, L, N, C, S, S) float32 in [0, 1].
        positions: Centres of the components' windows, x and y, (B, L, N, 2) float32 px.
        sides: Widths of these square windows, (B, L, N) float32 px.
    """

    frames: Tensor
    components: Tensor
    positions: Tensor
    sides: Tensor


class Balls(NamedTuple):
    """Physical states of M scenes of up to N balls in a box over T frames.

    The unit of length is the longer side of the box: a matter-js world of 800 x 600 px has the box
    (1, 0.75). x is to the right and y down. Arrays are float32 or float64; those of balls are NaN
    where there is no ball.

    Attributes:
        positions: Centres, x and y, (M, T, N, 2) in [0, 1].
        velocities: Velocities at the time of each frame, (M, T, N, 2) lengths per frame.
        radii: (M, N), lengths.
        masses: (M, N), in any unit.
        box: Width and height, (2,); the larger is 1.
    """

    positions: np.ndarray
    velocities: np.ndarray
    radii: np.ndarray
    masses: np.ndarray
    box: np.ndarray
