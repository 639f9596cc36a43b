"""Validation and units of ball states read from files."""

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidreason.core.errors import DataError
from vidreason.decomposition.clip import Balls

RADIUS = 60
"""Radius in px of a matter-js ball with sizemul 1."""
MOST_STATES = 100_000_000
"""Maximum number of balls times frames in a file."""
MOST_BYTES = 1 << 28
"""Maximum number of bytes in a JSON file, and of pixels in a sequence."""
FORMATS = "`vidreason data card balls` describes the formats"
AGAIN = "create or download the file again"
# numpy and h5py raise any of these for damaged files.
DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, MemoryError, SyntaxError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, KeyError, TypeError),
)


def check_states(
    source: Path,
    positions: np.ndarray,
    radii: np.ndarray,
    masses: np.ndarray,
    box: np.ndarray,
    velocities: np.ndarray | None = None,
) -> Balls:
    """Checks states, and adds velocities if there are none.

    Args:
        source: File to name in errors.
        positions: Centres, (M, T, N, 2) box widths.
        radii: (M, N) box widths.
        masses: (M, N).
        box: Width and height, (2,) box widths.
        velocities: (M, T, N, 2) box widths per frame; by default the differences from the previous
            frame.

    Raises:
        DataError: Shapes or dtypes are wrong, or a value is not finite or out of range.
    """
    scenes, frames, balls, axes = positions.shape if positions.ndim == 4 else (0, 0, 0, 0)
    if min(scenes, balls) < 1 or frames < 2 or axes != 2:
        problem = f"must be (scenes, at least 2 frames, balls, 2), got {positions.shape}"
        raise DataError(source, problem, FORMATS, "positions")
    if velocities is None:
        with np.errstate(invalid="ignore"):  # infinite positions are rejected below
            steps = np.diff(positions, axis=1)
        velocities = np.concatenate([steps[:, :1], steps], 1)
    shapes = {
        "positions": (positions, positions.shape),
        "velocities": (velocities, positions.shape),
        "radii": (radii, (scenes, balls)),
        "masses": (masses, (scenes, balls)),
        "box": (box, (2,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape or array.dtype not in (np.float32, np.float64):
            problem = f"must be float32 or float64 {shape}, got {array.dtype} {array.shape}"
            raise DataError(source, problem, FORMATS, name)
    if not (abs(box.max() - 1) < 1e-6 and box.min() > 0):
        problem = f"must be positive and its longer side 1, got {box[0]:g} x {box[1]:g}"
        raise DataError(source, problem, "divide all lengths by the longer side", "box")

    def reject(name: str, wrong: np.ndarray, problem: str, fix: str) -> None:
        if wrong.any():
            array, place = shapes[name][0], np.argwhere(wrong)[0].tolist()
            scene, *frame, ball = place[:-1] if array.ndim == 4 else place
            where = "".join(f", frame {number}" for number in frame)
            problem = problem.format(array[tuple(place)], radii[scene, ball])
            raise DataError(source, f"{name} {problem}", fix, f"scene {scene}, ball {ball}{where}")

    wrong = (radii <= 0) | (2 * radii > box.min())
    reject("radii", wrong, "must be positive and fit into the box, got {:g}", FORMATS)
    there = ~np.isnan(radii)
    for name in ("masses", "positions", "velocities"):
        array = shapes[name][0]
        shown = there[:, None, :, None] if array.ndim == 4 else there
        wrong = np.where(shown, ~np.isfinite(array), ~np.isnan(array))
        fix = "use numbers, or NaN throughout where there is no ball"
        reject(name, wrong, "{:g} where the radius is {:g}", fix)
    reject("masses", masses <= 0, "must be above 0, got {:g}", "correct the masses")
    # float32 may round up the position of a ball at a wall.
    out = (positions < -1e-6) | (positions > box + 1e-6)
    size = f"{box[0]:g} x {box[1]:g}"
    reject("positions", out, f"{{:g}} outside the {size} box", "divide lengths by the box width")
    fix = "use box widths per frame"
    reject("velocities", abs(velocities) > 1, "{:g} above 1 box width per frame", fix)
    return Balls(positions, velocities, radii, masses, box)


def scale_states(
    source: Path,
    positions: np.ndarray,
    radii: np.ndarray,
    masses: np.ndarray,
    world: Sequence[float],
    velocities: np.ndarray | None = None,
) -> Balls:
    """Converts lengths to box widths, and checks the states.

    Args:
        source: File to name in errors.
        positions: Centres, (M, T, N, 2), in pixels or any other unit of length.
        radii: (M, N), in this unit.
        masses: (M, N).
        world: Width and height of the box, in this unit.
        velocities: (M, T, N, 2), in this unit per frame.

    Raises:
        DataError: As for `check_states`.
    """
    width = max(world)
    if velocities is not None:
        velocities = velocities / width
    return check_states(
        source, positions / width, radii / width, masses, np.array(world) / width, velocities
    )


def check_count(source: Path, count: float) -> None:
    """Raises `DataError` for more than `MOST_STATES` states, before they are read."""
    if count > MOST_STATES:
        problem = f"has more than {MOST_STATES:,} states"
        raise DataError(source, problem, "split it into several files")
