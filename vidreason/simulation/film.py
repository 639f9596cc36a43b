"""Rendering of a simulated street: video frames with ground-truth instance masks.

The street of `world.simulate`, its pedestrians and its cars are drawn from far to near. Every pixel
has a known instance, so that segmentation and tracking can be tested end to end.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from vidreason.core.files import write_atomic
from vidreason.perception import masks
from vidreason.perception.store import Instances, Writer
from vidreason.perception.video import write_video
from vidreason.scenes.scene import KINDS
from vidreason.simulation.world import CAR, EYE, FOCAL, FPS, HEIGHT, LANE, WIDTH, Street

_NEAR = 1.5  # metres, near clipping plane
_LAMPS = ((200, 30, 30), (60, 200, 80))
_STRIDE = 8  # pixels per cell of the feature map
_MIN_AREA = 64  # pixels; a segmenter finds nothing smaller


class Film:
    """Renders a simulated street frame by frame.

    Args:
        street: Simulated street.

    Attributes:
        street: The simulated street.
        kind: (N,) int8, index into `KINDS`, of the N drawn objects: the pedestrians in the order of
            the street, then the rest.
    """

    def __init__(self, street: Street) -> None:
        place, people = street.place, len(street.people.party)
        rng = np.random.default_rng((place.seed, place.index, 2))
        self.street, self.cars = street, street.cars
        self.skin = rng.integers(90, 225, (people, 1)) * np.array([1, 0.8, 0.7])
        self.shirt, self.trousers = rng.integers(20, 235, (2, people, 3))
        self.paint = rng.integers(20, 235, (self.cars.shape[1], 3))
        self.walls = rng.integers(70, 190, (24, 3))
        self.tall = rng.uniform(4, 14, 24)
        dark = place.time_of_day == "nighttime"
        self.light = 0.4 if dark else {"clear": 1.0, "cloudy": 0.85, "rain": 0.7}[place.weather]
        rest = ["vehicle"] * self.cars.shape[1]
        rest += ["zebra"] * place.zebra + ["traffic_light"] * bool(place.light.any())
        rest += ["sign"] * place.ped_sign
        kinds = ["person"] * people + rest
        self.kind = np.array([KINDS.index(name) for name in kinds], np.int8)

    def __call__(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Renders frame t: image (H, W, 3) uint8 RGB and object numbers (H, W) uint8, from 1."""
        canvas = _Canvas(self.street.aim[t], float(self.street.ego_z[t]))
        street, place = self.street, self.street.place
        canvas.picture[:] = (150, 185, 215)
        self._ground(canvas)
        number = len(street.people.party) + self.cars.shape[1]
        right = place.kerbs[1]
        if place.zebra:
            number += 1
            across = np.arange(place.kerbs[0] + 0.3, right - 0.3, 1.0)
            canvas.flat(
                (place.kerbs[0], right), (place.spot - 1.5, place.spot + 1.5), (84,) * 3, number
            )
            for x in across:
                canvas.flat((x, x + 0.5), (place.spot - 1.5, place.spot + 1.5), (225,) * 3, number)
        standing: list[tuple[float, Callable[[_Canvas, int, int], None], int]] = []
        if place.light.any():
            number += 1
            standing.append((place.spot + 2, self._traffic_light, number))
        if place.ped_sign:
            number += 1
            standing.append((place.spot - 2, self._sign, number))
        for a, z in enumerate(self.cars[t, :, 1]):
            standing.append((z, self._car, a))
        for p, z in enumerate(street.position[t, :, 1]):
            standing.append((z, self._person, p))
        for z, draw, which in sorted(standing, key=lambda one: -one[0]):
            if z - canvas.ego > _NEAR:
                draw(canvas, t, which)
        dimmed = (np.arange(256) * self.light).astype(np.uint8)
        return cv2.LUT(canvas.picture, dimmed), canvas.numbers

    def _ground(self, canvas: "_Canvas") -> None:
        left, right = self.street.place.kerbs
        far = canvas.ego + 150
        # Houses on both sides from far to near, then pavement and road.
        for k in reversed(range(24)):
            side, z = (-1, 1)[k % 2], canvas.ego // 12 * 12 + 12 * (k // 2)
            x = (left - 9) if side < 0 else (right + 9)
            house = int((z // 12 * 2 + k % 2) % 24)
            canvas.wall(x, (z, z + 12), self.tall[house], self.walls[house])
        canvas.flat((left - 9, right + 9), (canvas.ego, far), (128, 122, 115))
        canvas.flat((left, right), (canvas.ego, far), (84, 84, 88))
        for x in np.arange(left + LANE, right - 1, LANE):
            for z in np.arange(canvas.ego // 6 * 6, canvas.ego + 60, 6):
                canvas.flat((x - 0.06, x + 0.06), (z, z + 3), (200, 200, 190))

    def _traffic_light(self, canvas: "_Canvas", t: int, number: int) -> None:
        place = self.street.place
        x, z = place.kerbs[1] + 0.6, place.spot + 2
        canvas.upright(
            [(x - 0.05, 0), (x + 0.05, 0), (x + 0.05, 2.6), (x - 0.05, 2.6)], z, (60,) * 3
        )
        canvas.upright(
            [(x - 0.2, 2.6), (x + 0.2, 2.6), (x + 0.2, 3.5), (x - 0.2, 3.5)], z, (25,) * 3, number
        )
        if lit := int(place.light[t]):
            canvas.disc((x, (3.3, 2.8)[lit - 1]), z, 0.13, _LAMPS[lit - 1], number)

    def _sign(self, canvas: "_Canvas", t: int, number: int) -> None:
        x, z = self.street.place.kerbs[1] + 0.5, self.street.place.spot - 2
        canvas.upright([(x - 0.04, 0), (x + 0.04, 0), (x + 0.04, 2), (x - 0.04, 2)], z, (90,) * 3)
        canvas.upright([(x - 0.35, 2), (x + 0.35, 2), (x, 2.6)], z, (30, 70, 190), number)

    def _car(self, canvas: "_Canvas", t: int, a: int) -> None:
        x, near = self.cars[t, a]
        wide, high, long = CAR
        number, paint = len(self.street.people.party) + 1 + a, self.paint[a]
        corners = [
            (x + side * wide / 2, y, near + depth)
            for side in (-1, 1)
            for y in (0.2, high)
            for depth in (0, long)
        ]
        canvas.hull(corners, paint * 0.8, number)
        half = wide / 2
        canvas.upright(
            [(x - half, 0.2), (x + half, 0.2), (x + half, 0.9), (x - half, 0.9)],
            near,
            paint,
            number,
        )
        glass = [(x - half, 0.9), (x + half, 0.9), (x + 0.7, high), (x - 0.7, high)]
        canvas.upright(glass, near, (45, 55, 65), number)
        for side in (-1, 1):
            canvas.disc((x + side * 0.6, 0.65), near, 0.12, (245, 245, 220), number)

    def _person(self, canvas: "_Canvas", t: int, p: int) -> None:
        street = self.street
        (x, z), high = street.position[t, p], street.people.height[p]
        heading, phase = street.heading[t, p], street.stride[t, p]
        broad = high * (0.13 * abs(np.cos(heading)) + 0.075 * abs(np.sin(heading)))
        # Legs and arms swing along the heading, as far as in the annotated boxes.
        stride = 0.055 + 0.09 * abs(np.sin(phase / 2)) * min(street.speed[t, p], 1.5)
        swing = high * stride * np.sin(heading) * np.sign(np.sin(phase / 2))
        hip, neck, thick = 0.5 * high, 0.84 * high, 0.055 * high
        number = p + 1
        for side in (-1, 1):
            foot, top = x + side * (swing + 0.3 * broad), x + side * 0.3 * broad
            leg = [(top - thick, hip), (top + thick, hip), (foot + thick, 0), (foot - thick, 0)]
            canvas.upright(leg, z, self.trousers[p], number)
        hand = x + 0.8 * swing
        canvas.upright(
            [(x - broad, neck), (x + broad, neck), (hand + 0.03, hip), (hand - 0.03, hip)],
            z,
            self.shirt[p] * 0.8,
            number,
        )
        low = 0.8 * broad
        canvas.upright(
            [(x - broad, neck), (x + broad, neck), (x + low, hip - 0.02), (x - low, hip - 0.02)],
            z,
            self.shirt[p],
            number,
        )
        canvas.disc((x, 0.925 * high), z, 0.075 * high, self.skin[p], number)


class _Canvas:
    """Image and object numbers to draw into, in metres: x right of the lane, y up, z ahead."""

    def __init__(self, aim: np.ndarray, ego: float) -> None:
        self.picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self.numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.aim, self.ego = aim, ego

    def _pixels(self, points: Sequence[tuple[float, float, float]]) -> np.ndarray:
        x, y, z = np.array(points, float).T
        scale = FOCAL / np.maximum(z - self.ego, _NEAR)
        return np.stack([scale * x + self.aim[0], scale * (EYE - y) + self.aim[1]], 1)

    def _fill(self, pixels: np.ndarray, colour: object, number: int) -> None:
        polygon = np.rint(np.clip(pixels, -30000, 30000)).astype(np.int32)
        cv2.fillPoly(self.picture, [polygon], tuple(float(c) for c in colour))  # type: ignore[attr-defined]
        cv2.fillPoly(self.numbers, [polygon], number)

    def flat(
        self, x: tuple[float, float], z: tuple[float, float], colour: object, number: int = 0
    ) -> None:
        """Draws a rectangle on the ground."""
        if z[1] - self.ego > _NEAR:
            corners = [(x[0], 0, z[0]), (x[1], 0, z[0]), (x[1], 0, z[1]), (x[0], 0, z[1])]
            self._fill(self._pixels(corners), colour, number)

    def wall(self, x: float, z: tuple[float, float], high: float, colour: object) -> None:
        """Draws a vertical rectangle parallel to the street."""
        if z[1] - self.ego > _NEAR:
            corners = [(x, 0, z[0]), (x, high, z[0]), (x, high, z[1]), (x, 0, z[1])]
            self._fill(self._pixels(corners), colour, 0)

    def upright(
        self, points: list[tuple[float, float]], z: float, colour: object, number: int = 0
    ) -> None:
        """Draws a polygon that faces the camera."""
        self._fill(self._pixels([(x, y, z) for x, y in points]), colour, number)

    def hull(self, points: list[tuple[float, float, float]], colour: object, number: int) -> None:
        """Draws the convex hull of points."""
        pixels = self._pixels(points).astype(np.float32)
        self._fill(cv2.convexHull(pixels)[:, 0], colour, number)

    def disc(
        self, at: tuple[float, float], z: float, radius: float, colour: object, number: int
    ) -> None:
        """Draws a disc that faces the camera."""
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = [(at[0] + radius * np.cos(a), at[1] + radius * np.sin(a)) for a in turn]
        self.upright(ring, z, colour, number)


class TrueMasks:
    """A segmenter that returns the ground truth; its features are the colours of the image.

    Args:
        film: Rendered street.
    """

    features = 3

    def __init__(self, film: Film) -> None:
        self.film = film

    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        """Returns the instances of frame `number` that have at least 64 visible pixels."""
        return self.instances(frame, self.film(number)[1])

    def instances(self, frame: np.ndarray, numbers: np.ndarray) -> Instances:
        """Returns the instances of a frame, given its object numbers (H, W) uint8."""
        there = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256) >= _MIN_AREA)
        there = there[there > 0]
        rank = np.zeros(256, np.uint8)
        rank[there] = np.arange(1, len(there) + 1)
        kind = self.film.kind[there - 1]
        coarse = cv2.resize(
            frame, (WIDTH // _STRIDE, HEIGHT // _STRIDE), interpolation=cv2.INTER_AREA
        )
        return Instances(
            image=rank[numbers],
            label=[KINDS[k] for k in kind],
            kind=kind,
            score=np.ones(len(there), np.float32),
            features=np.moveaxis(coarse, 2, 0).astype(np.float32) / 255,
        )


def write_truth(path: Path, video: str, film: Film) -> None:
    """Writes the ground truth as a prepared video.

    Args:
        path: Output file of a store.
        video: Name of the video.
        film: Rendered street; track n is its object n, from 0.
    """
    truth, length = TrueMasks(film), film.street.place.length
    facts = {"video": video, "segmenter": "truth", "fps": FPS, "every": 1, "length": length}
    facts |= {"width": WIDTH, "height": HEIGHT}
    with write_atomic(path) as temporary, Writer(temporary, facts, truth.features) as writer:
        for t in range(length):
            picture, numbers = film(t)
            found = truth.instances(picture, numbers)
            mask = masks.encode(found.image, len(found.kind))
            track = np.array([numbers[found.image == n + 1][0] for n in range(len(found.kind))])
            appearance = masks.pool(found.features, found.image, len(found.kind))
            writer.add(t, found, track.astype(np.int32) - 1, mask, appearance)


def write_film(path: Path, film: Film) -> None:
    """Writes the frames as an mp4 video (H.264)."""
    frames = (film(t)[0] for t in range(film.street.place.length))
    write_video(path, frames, FPS)
