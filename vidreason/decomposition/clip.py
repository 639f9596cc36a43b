"""Currencies of the decomposition side: states, clips of moving objects, what models make of them.

Positions are pixels, x to the right and y down; pixel p covers [p, p + 1), so that an object of
28 pixels whose first column is x has its centre at x + 14.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Clip(NamedTuple):
    """A batch of clips with what is known of them.

    Attributes:
        frames: (B, T, C, S, S) uint8.
        positions: Centres of the objects, (B, T, N, 2) float32 px, x and y; NaN where there is no
            object. Never an input of a model.
        labels: (B, N) int64 class of each object; -1 where there is none. Never an input.
        index: (B,) int64 number of the clip in its split.
        velocities: Of objects with a physical state, at the time of each frame, (B, T, N, 2)
            float32 px per frame; NaN where there is no object. Never an input.
    """

    frames: Tensor
    positions: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]
    velocities: Tensor | None = None


class Decomposition(NamedTuple):
    """A clip taken apart: L = T_in reconstructed and T_out predicted frames, N components.

    Attributes:
        frames: Mean of the observation, (B, L, C, S, S) float32 in [0, 1].
        components: What each component draws, (B, L, N, C, S, S) float32 in [0, 1].
        positions: Centres of the components' windows, (B, L, N, 2) px, x and y.
        sides: Widths of these windows, (B, L, N) px.
    """

    frames: Tensor
    components: Tensor
    positions: Tensor
    sides: Tensor


class Balls(NamedTuple):
    """States of M scenes of up to N balls in a box, over T frames.

    Lengths are in widths of the box, whose longer side is 1: a matter-js world of 800 x 600 px has
    the box (1, 0.75). Velocities are per frame. x is to the right and y down.

    Attributes:
        positions: Centres, (M, T, N, 2); NaN where there is no ball.
        velocities: (M, T, N, 2), at the time of the frame; NaN where there is no ball.
        radii: (M, N); NaN where there is no ball.
        masses: (M, N), of any unit; NaN where there is no ball.
        box: (2,) width and height.
    """

    positions: np.ndarray
    velocities: np.ndarray
    radii: np.ndarray
    masses: np.ndarray
    box: np.ndarray
