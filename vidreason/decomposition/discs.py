"""Elastic discs in a box, from event to event: the motion of bouncing balls.

The worlds are those of Hsieh et al. (NeurIPS 2018), who ran a game's physics engine: four discs of
60 px in a box of 800 px, without friction, loss or spin. Here collisions are solved exactly.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidreason.core.errors import DataError, check_ranges
from vidreason.core.loading import splitmix64
from vidreason.decomposition.clip import Balls
from vidreason.decomposition.digits import uniforms

GRID = 800
"""Starts and velocities are whole multiples of one box width over this."""
_APART = 2.5  # radii between the centres of two balls at the start
_TRIES, _ROUNDS = 8, 64  # places drawn at a time for a ball, and how often
_CHUNK = 2048  # scenes worked on at once: few enough for the cache, many enough for numpy


class Discs:
    """Scenes of discs that bounce off the walls and each other, a function of (seed, number).

    Between events, which are collisions of a disc with a wall or another disc, the motion is a
    line, or a parabola under gravity. Frame t shows the scene at time t, from 0 on.

    Args:
        balls: Number of discs N.
        radius: Of each, box widths.
        masses: One of which each disc has.
        box: Width and height, the longer of them 1.
        speed: Greatest velocity along an axis, box widths per frame.
        gravity: Downward, box widths per frame².
        length: Frames T.
        seed: Of everything, below 2**64.

    Raises:
        DataError: An option out of range.
    """

    def __init__(
        self,
        balls: int = 4,
        radius: float = 0.075,
        masses: Sequence[float] = (1.0,),
        box: tuple[float, float] = (1.0, 1.0),
        speed: float = 20 / GRID,
        gravity: float = 0.0,
        length: int = 60,
        seed: int = 0,
    ) -> None:
        check_ranges(
            "data",
            ("balls", balls, 1, 64),
            ("radius", radius, 1 / GRID, min(box) / 2 - 2 / GRID),
            *(("masses", mass, 1e-6, 1e6) for mass in masses or (0,)),
            *(("box", side, 0.01, 1) for side in box),
            ("speed", speed, 1 / GRID, 1),
            ("gravity", gravity, 0, 1),
            ("length", length, 2, 1_000_000),
            ("seed", seed, 0, 2**64 - 1),
        )
        if max(box) != 1:
            raise DataError("data.box", f"{box} has no side of 1", "divide by the longer one")
        self.balls, self.radius, self.masses = balls, radius, np.asarray(masses, float)
        self.box, self.speed, self.gravity = np.asarray(box, float), speed, gravity
        self.length, self.seed = length, seed
        self.pairs = np.triu_indices(balls, 1)

    def states(self, index: np.ndarray) -> Balls:
        """The scenes of these numbers, (M,) from 0 to below 2**40.

        Raises:
            DataError: The discs find no room.
        """
        parts = []
        for part in np.split(index, range(_CHUNK, len(index), _CHUNK)):
            place, velocity, mass = self._start(part)
            parts.append((*self._move(place, velocity, mass), mass.T))
        arrays = (np.concatenate(part) for part in zip(*parts, strict=True))
        positions, velocities, masses = arrays
        return Balls(positions, velocities, np.full_like(masses, self.radius), masses, self.box)

    def _draw(self, index: np.ndarray, ball: int, purpose: int, count: int) -> np.ndarray:
        """Random numbers (M, count) in [0, 1) of a disc."""
        state = np.array([self.seed], np.uint64)
        for part in (ball, purpose):
            state = splitmix64(state) ^ np.uint64(part)
        return uniforms(int(state[0]), index, count)

    def _places(self, index: np.ndarray) -> np.ndarray:
        """Where the discs start, (2, N, M)."""
        low = np.floor(self.radius * GRID) + 1
        free = np.floor(self.box * GRID - low) - low
        place = np.empty((2, self.balls, len(index)))
        for ball in range(self.balls):
            left = np.arange(len(index))
            for attempt in range(_ROUNDS):
                drawn = self._draw(index[left], ball, 2 + attempt, 2 * _TRIES)
                tried = (low + np.floor(drawn.reshape(-1, _TRIES, 2) * free)) / GRID
                others = place[:, :ball, left].transpose(2, 1, 0)[:, None]  # (m, 1, ball, 2)
                away = np.square(tried[:, :, None] - others).sum(-1)
                good = (away >= (_APART * self.radius) ** 2).all(-1)
                found = good.any(1)
                chosen = tried[np.arange(len(left)), good.argmax(1)]
                place[:, ball, left[found]] = chosen[found].T
                left = left[~found]
                if not len(left):
                    break
            else:
                problem = f"{self.balls} of radius {self.radius} find no room"
                raise DataError("data.balls", problem, "take fewer or smaller ones")
        return place

    def _start(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First places and velocities, (2, N, M), and masses, (N, M)."""
        place = self._places(index)
        drawn = np.stack([self._draw(index, ball, 1, 2) for ball in range(self.balls)])
        fast = self.speed * GRID
        velocity = (np.floor(2 * fast * drawn.transpose(2, 0, 1)) - (fast - 1)) / GRID
        chosen = np.stack([self._draw(index, ball, 0, 1)[:, 0] for ball in range(self.balls)])
        return place, velocity, self.masses[(chosen * len(self.masses)).astype(np.int64)]

    def _move(
        self, place: np.ndarray, velocity: np.ndarray, mass: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities (M, T, N, 2) from what `_start` gives."""
        scenes = place.shape[-1]
        time, who, events = np.zeros(scenes), np.arange(scenes), []
        while len(who):
            events.append((who, time, place, velocity))
            until, what = self._next(place, velocity)
            going = np.flatnonzero(time + until < self.length - 1)
            who, until, what = who[going], until[going], what[going]
            time, mass = time[going] + until, mass[:, going]
            place, velocity = self._drift(place[..., going], velocity[..., going], until)
            self._collide(place, velocity, mass, what)
        return self._frames(scenes, events)

    def _next(self, place: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Time to the next event of each scene, (M,), and which it is: x, y of discs, pairs."""
        room = self.box[:, None, None] - self.radius
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.where(velocity > 0, room - place, place - self.radius).clip(0)
            wall = np.where(velocity == 0, np.inf, gap / abs(velocity))
            if self.gravity:
                wall[1] = self._fall(place[1], velocity[1], float(room[1, 0, 0]))
        first, second = self.pairs
        away, against = place[:, first] - place[:, second], velocity[:, first] - velocity[:, second]
        inward = (away * against).sum(0)
        square = np.square(against).sum(0)
        beyond = (np.square(away).sum(0) - (2 * self.radius) ** 2).clip(0)
        root = np.square(inward) - square * beyond
        meets = (inward < 0) & (root > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            meeting = np.where(meets, beyond / (np.sqrt(root.clip(0)) - inward), np.inf)
        times = np.concatenate([wall[0], wall[1], meeting])
        what = times.argmin(0)
        return times[what, np.arange(times.shape[1])], what

    def _fall(self, height: np.ndarray, velocity: np.ndarray, floor: float) -> np.ndarray:
        """Time until floor or ceiling is met, with roots in the form that loses no digits."""
        down, up = (floor - height).clip(0), (height - self.radius).clip(0)
        root = np.sqrt(np.square(velocity) + 2 * self.gravity * down)
        late = (root - velocity) / self.gravity
        land = np.where(velocity > 0, 2 * down / (root + velocity), late)
        square = np.square(velocity) - 2 * self.gravity * up
        rises = (velocity < 0) & (square >= 0)
        hit = 2 * up / (np.sqrt(square.clip(0)) - velocity)
        return np.where(rises, hit, land)

    def _drift(
        self, place: np.ndarray, velocity: np.ndarray, time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Free motion of (2, ...) for a time that broadcasts to (...)."""
        place = place + velocity * time
        if self.gravity:
            velocity = velocity.copy()
            place[1] += self.gravity / 2 * np.square(time)
            velocity[1] += self.gravity * time
        return place, velocity

    def _collide(
        self, place: np.ndarray, velocity: np.ndarray, mass: np.ndarray, what: np.ndarray
    ) -> None:
        """Resolves one event of each scene in place."""
        scene = np.arange(len(what))
        at_wall = what < 2 * self.balls
        axis, ball = np.divmod(what[at_wall], self.balls)
        spot = (axis, ball, scene[at_wall])
        far = velocity[spot] > 0
        place[spot] = np.where(far, self.box[axis] - self.radius, self.radius)
        velocity[spot] *= -1
        scene, pair = scene[~at_wall], what[~at_wall] - 2 * self.balls
        one, other = self.pairs[0][pair], self.pairs[1][pair]
        normal = place[:, one, scene] - place[:, other, scene]
        normal /= np.sqrt(np.square(normal).sum(0))
        closing = ((velocity[:, one, scene] - velocity[:, other, scene]) * normal).sum(0)
        first, second = mass[one, scene], mass[other, scene]
        impulse = 2 * first * second / (first + second) * closing * normal
        velocity[:, one, scene] -= impulse / first
        velocity[:, other, scene] += impulse / second

    def _frames(self, scenes: int, events: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities (M, T, N, 2) from what followed each event."""
        start = np.full((len(events), scenes), np.inf)
        # A row of memory for each event of a scene, which frames copy whole.
        state = np.empty((len(events), scenes, 2, self.balls, 2))
        for number, (who, time, place, velocity) in enumerate(events):
            start[number, who] = time
            state[number, who] = np.stack([place, velocity]).transpose(3, 0, 2, 1)
        frame = np.arange(self.length, dtype=float)
        latest = np.zeros((scenes, self.length), np.int64)
        for begin in start[1:]:
            latest += begin[:, None] <= frame
        event = latest, np.arange(scenes)[:, None]
        found = np.moveaxis(state[event], (2, 4), (0, 1))  # (2, 2, M, T, N)
        place, velocity = self._drift(found[0], found[1], (frame - start[event])[..., None])
        return np.moveaxis(place, 0, -1), np.moveaxis(velocity, 0, -1)
