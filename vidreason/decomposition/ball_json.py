"""Reader of matter-js worlds in JSON (Neural Physics Engine, Chang et al., ICLR 2017)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_states import (
    AGAIN,
    FORMATS,
    MOST_BYTES,
    RADIUS,
    check_count,
    scale_states,
)
from vidreason.decomposition.clip import Balls


def read_json(source: Path, files: list[Path]) -> Balls:
    """Reads files of `{"trajectories": [trajectory][ball][frame], "config": ...}` in px.

    Args:
        source: File or folder, for errors.
        files: Files to join, in this order.

    Raises:
        DataError: A file is damaged, or trajectories are invalid or differ in length.
    """
    if not files:
        raise DataError(source, "no .json files in this folder", FORMATS)
    trajectories: list[np.ndarray] = []
    worlds = set()
    count = 0
    for file in files:
        if file.stat().st_size > MOST_BYTES:
            fix = "write fewer trajectories per file and pass the folder"
            raise DataError(file, f"is larger than {MOST_BYTES:,} bytes", fix)
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(file, f"is not valid JSON ({error})", AGAIN) from None
        if not isinstance(content, dict) or not isinstance(content.get("trajectories"), list):
            raise DataError(file, "has no list `trajectories`", FORMATS)
        for number, trajectory in enumerate(content["trajectories"]):
            states = _trajectory(file, f"trajectory {number}", trajectory)
            if trajectories and len(states) != len(trajectories[0]):
                problem = f"has {len(states)} frames, others have {len(trajectories[0])}"
                fix = "use trajectories of the same length"
                raise DataError(file, problem, fix, f"trajectory {number}")
            check_count(source, count := count + states.shape[0] * states.shape[1])
            trajectories.append(states)
        config = content.get("config")
        if isinstance(config, dict) and {"cx", "cy"} <= set(config):
            centre = config["cx"], config["cy"]
            if not all(type(value) in (int, float) and 0 < value < 1e9 for value in centre):
                raise DataError(file, f"cx, cy are {centre!r:.80}", "use numbers in px", "config")
            worlds.add((2 * centre[0], 2 * centre[1]))
    if not trajectories:
        raise DataError(source, "has no trajectories", FORMATS)
    most = max(states.shape[1] for states in trajectories)
    padded = np.full((len(trajectories), len(trajectories[0]), most, 6), np.nan)
    for row, states in zip(padded, trajectories, strict=True):
        row[:, : states.shape[1]] = states
    positions, velocities, (sizes, masses) = (
        *(padded[..., :2], padded[..., 2:4]),
        padded[:, 0, :, 4:].transpose(2, 0, 1),
    )
    radii = RADIUS * sizes
    world = _world(source, worlds, np.nanmax(positions[..., 1] + radii[:, None]))
    return scale_states(source, positions, radii, masses, world, velocities)


def _trajectory(file: Path, place: str, trajectory: Any) -> np.ndarray:
    """Returns x, y (px), vx, vy (px per frame), sizemul and mass, (T, N, 6)."""
    try:
        rows = [
            [
                (
                    *(state["position"]["x"], state["position"]["y"]),
                    *(state["velocity"]["x"], state["velocity"]["y"]),
                    *(state["sizemul"], state["mass"]),
                )
                for state in ball
            ]
            for ball in trajectory
        ]
        others = {state.get("objtype", "ball") for ball in trajectory for state in ball} - {"ball"}
    except KeyError as error:
        raise DataError(file, f"a state has no {error}", FORMATS, place) from None
    except (TypeError, AttributeError):
        problem = "is not a list of balls, each a list of states"
        raise DataError(file, problem, FORMATS, place) from None
    if others:
        fix = "keep balls only"
        raise DataError(file, f"has objects of type {sorted(map(str, others))}", fix, place)
    if len(lengths := {len(row) for row in rows}) > 1:
        problem = f"balls have {min(lengths)} to {max(lengths)} frames"
        raise DataError(file, problem, "use the same number for all balls of a trajectory", place)
    if not rows or not rows[0]:
        raise DataError(file, "is empty", AGAIN, place)
    try:
        states = np.array(rows)
    except ValueError:  # a value is a list
        states = np.array(None)
    if states.dtype.kind in "if" and np.isfinite(states).all():
        return states.astype(float).swapaxes(0, 1)
    ball, frame, value = next(
        (ball, frame, value)
        for ball, row in enumerate(rows)
        for frame, state in enumerate(row)
        for value in state
        if type(value) not in (int, float) or not abs(value) < 1e9
    )
    where = f"{place}, ball {ball}, frame {frame}"
    raise DataError(file, f"{value!r:.40} is not a finite number", AGAIN, where)


def _world(source: Path, worlds: set[tuple[float, float]], lowest: float) -> tuple[float, float]:
    """Returns width and height in px, from `config` or from the lowest point of any ball.

    At up to 20 px per frame, a ball that bounces off a wall is seen within 20 px of it.
    """
    if len(worlds) > 1:
        problem = f"worlds have different sizes, {sorted(worlds)} px"
        raise DataError(source, problem, "read them one by one", "config")
    if worlds:
        return worlds.pop()
    if lowest > 620:
        return 800, 800
    if lowest >= 580:
        return 800, 600
    problem = "no ball comes near 600 px, so the world may be 800 x 600 or 800 x 800 px"
    raise DataError(source, problem, 'add its centre, as in `"cx": 400, "cy": 300`', "config")
