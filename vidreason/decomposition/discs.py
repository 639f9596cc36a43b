"""Event-driven simulation of elastic discs in a box.

The scenes are those of Hsieh et al. (NeurIPS 2018), who used a game physics engine: four discs of
radius 60 px in a box of 800 px, without friction, damping or spin. Here collisions are exact.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidreason.core.errors import DataError, check_ranges
from vidreason.core.loading import splitmix64
from vidreason.decomposition.clip import Balls
from vidreason.decomposition.digits import uniforms

GRID = 800
"""Initial positions and velocities are integer multiples of one box width over this."""
_APART = 2.5  # minimum distance between two discs at the start, in radii
_TRIES, _ROUNDS = 8, 64  # positions drawn at a time for a disc, and how often at most
_CHUNK = 2048  # scenes simulated together: few enough for the CPU cache, many enough for numpy


class Discs:
    """Simulates scenes of bouncing discs, each a function of the seed and the scene's number only.

    Between events (collisions of a disc with a wall or another disc) discs move along lines, or
    along parabolas under gravity. Frame t shows the scene at time t, starting from 0.

    Args:
        balls: Number of discs N.
        radius: Radius of each disc, in box widths.
        masses: Possible masses of a disc, equally likely.
        box: Width and height of the box; the longer is 1.
        speed: Maximum initial velocity along an axis, in box widths per frame.
        gravity: Downward acceleration, in box widths per frame².
        length: Frames T of a scene.
        seed: Random seed, from 0 to below 2**64.

    Raises:
        DataError: An option is out of range.
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
            problem = f"longer side must be 1, got {box}"
            raise DataError("data.box", problem, "divide both sides by the longer")
        self.balls, self.radius, self.masses = balls, radius, np.asarray(masses, float)
        self.box, self.speed, self.gravity = np.asarray(box, float), speed, gravity
        self.length, self.seed = length, seed
        self.pairs = np.triu_indices(balls, 1)

    def states(self, index: np.ndarray) -> Balls:
        """Simulates the scenes with the given numbers.

        Args:
            index: (M,) integers from 0 to below 2**40.

        Raises:
            DataError: The discs do not fit into the box.
        """
        parts = []
        for part in np.split(index, range(_CHUNK, len(index), _CHUNK)):
            place, velocity, mass = self._start(part)
            parts.append((*self._move(place, velocity, mass), mass.T))
        arrays = (np.concatenate(part) for part in zip(*parts, strict=True))
        positions, velocities, masses = arrays
        return Balls(positions, velocities, np.full_like(masses, self.radius), masses, self.box)

    def _draw(self, index: np.ndarray, ball: int, purpose: int, count: int) -> np.ndarray:
        """Returns random numbers of a disc, (M, count) in [0, 1)."""
        state = np.array([self.seed], np.uint64)
        for part in (ball, purpose):
            state = splitmix64(state) ^ np.uint64(part)
        return uniforms(int(state[0]), index, count)

    def _places(self, index: np.ndarray) -> np.ndarray:
        """Returns the initial positions, (2, N, M), drawn by rejection so that discs are apart."""
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
                problem = f"{self.balls} balls of radius {self.radius} do not fit into the box"
                raise DataError("data.balls", problem, "use fewer or smaller balls")
        return place

    def _start(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns initial positions and velocities, (2, N, M), and masses, (N, M)."""
        place = self._places(index)
        drawn = np.stack([self._draw(index, ball, 1, 2) for ball in range(self.balls)])
        fast = self.speed * GRID
        velocity = (np.floor(2 * fast * drawn.transpose(2, 0, 1)) - (fast - 1)) / GRID
        chosen = np.stack([self._draw(index, ball, 0, 1)[:, 0] for ball in range(self.balls)])
        return place, velocity, self.masses[(chosen * len(self.masses)).astype(np.int64)]

    def _move(
        self, place: np.ndarray, velocity: np.ndarray, mass: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities (M, T, N, 2) from the initial state of `_start`."""
        scenes = place.shape[-1]
        time, active, events = np.zeros(scenes), np.arange(scenes), []
        while len(active):
            events.append((active, time, place, velocity))
            until, event = self._next(place, velocity)
            going = np.flatnonzero(time + until < self.length - 1)
            active, until, event = active[going], until[going], event[going]
            time, mass = time[going] + until, mass[:, going]
            place, velocity = self._drift(place[..., going], velocity[..., going], until)
            self._collide(place, velocity, mass, event)
        return self._frames(scenes, events)

    def _next(self, place: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the time to the next event of each scene and the event's index, (M,) each.

        Indices are wall collisions along x of each disc, those along y, then pairs of discs.
        """
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
        event = times.argmin(0)
        return times[event, np.arange(times.shape[1])], event

    def _fall(self, height: np.ndarray, velocity: np.ndarray, floor: float) -> np.ndarray:
        """Returns the time until floor or ceiling is hit, with numerically stable roots."""
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
        """Returns positions and velocities (2, ...) after free motion for a time (...)."""
        place = place + velocity * time
        if self.gravity:
            velocity = velocity.copy()
            place[1] += self.gravity / 2 * np.square(time)
            velocity[1] += self.gravity * time
        return place, velocity

    def _collide(
        self, place: np.ndarray, velocity: np.ndarray, mass: np.ndarray, event: np.ndarray
    ) -> None:
        """Updates the state by one event of each scene, in place."""
        scene = np.arange(len(event))
        at_wall = event < 2 * self.balls
        axis, ball = np.divmod(event[at_wall], self.balls)
        spot = (axis, ball, scene[at_wall])
        far = velocity[spot] > 0
        place[spot] = np.where(far, self.box[axis] - self.radius, self.radius)
        velocity[spot] *= -1
        scene, pair = scene[~at_wall], event[~at_wall] - 2 * self.balls
        one, other = self.pairs[0][pair], self.pairs[1][pair]
        normal = place[:, one, scene] - place[:, other, scene]
        normal /= np.sqrt(np.square(normal).sum(0))
        closing = ((velocity[:, one, scene] - velocity[:, other, scene]) * normal).sum(0)
        first, second = mass[one, scene], mass[other, scene]
        impulse = 2 * first * second / (first + second) * closing * normal
        velocity[:, one, scene] -= impulse / first
        velocity[:, other, scene] += impulse / second

    def _frames(self, scenes: int, events: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities (M, T, N, 2) from the states after each event."""
        start = np.full((len(events), scenes), np.inf)
        # The state after an event of a scene is contiguous, so that frames copy it whole.
        state = np.empty((len(events), scenes, 2, self.balls, 2))
        for number, (active, time, place, velocity) in enumerate(events):
            start[number, active] = time
            state[number, active] = np.stack([place, velocity]).transpose(3, 0, 2, 1)
        frame = np.arange(self.length, dtype=float)
        latest = np.zeros((scenes, self.length), np.int64)
        for begin in start[1:]:
            latest += begin[:, None] <= frame
        event = latest, np.arange(scenes)[:, None]
        found = np.moveaxis(state[event], (2, 4), (0, 1))  # (2, 2, M, T, N)
        place, velocity = self._drift(found[0], found[1], (frame - start[event])[..., None])
        return np.moveaxis(place, 0, -1), np.moveaxis(velocity, 0, -1)
