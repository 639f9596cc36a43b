"""Overlay on the frames of a video: boxes, trails, edges of the scene graph, probabilities.

Drawn after scaling to the output size, so that lines and text stay sharp.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.colors import TABLEAU_COLORS, to_rgb

from vidreason.core.colours import COLOURS
from vidreason.scenes.scene import KINDS

RISES, FALLS, OTHER = (
    tuple(round(255 * part) for part in to_rgb(colour))
    for colour in (COLOURS[1], COLOURS[0], "0.7")
)
"""RGB of a probability at or above the threshold, of one below it, and without prediction."""

TRACKS = tuple(
    tuple(round(255 * part) for part in to_rgb(colour)) for colour in TABLEAU_COLORS.values()
)
"""RGB of tracks, by track number."""

_SKY, _GROUND, _INK, _SHADE = (96, 108, 120), (70, 68, 66), (255, 255, 255), (20, 20, 24)
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_TRAIL = 1.0  # seconds
_FULL, _WIDEST = 0.2, 7  # influence that gets the widest edge, and its width, px
_BAR = 6  # width of the probability bar, px
_HEAD = 24  # height of the header, px
_BITS = 3  # fractional bits of coordinates, for smooth lines


class Shown(NamedTuple):
    """What is drawn on one frame: N boxes and E edges.

    Attributes:
        box: (N, 4) corners x1, y1, x2, y2, px of the source frame.
        name: Names of the N tracks.
        kind: (N,) int8, index into `vidreason.scenes.scene.KINDS`.
        probability: (N,) in [0, 1], NaN without a prediction.
        label: (N,) int8: 1 is crossing, 0 is not, -1 unknown.
        edge: (E, 2) rows of `box`: sender and target.
        weight: (E,) influence of the sender on the probability of the target, NaN unknown.
    """

    box: np.ndarray
    name: Sequence[str]
    kind: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    edge: np.ndarray
    weight: np.ndarray


class Overlay:
    """Draws on the frames of a video, in order.

    Args:
        width: Width of the source, px.
        height: Height of the source, px.
        fps: Frame rate of the drawn frames.
        threshold: Decision threshold of the probabilities.
        words: Prediction target, such as "crosses in 1 to 2 s"; empty without predictions.
        out_height: Height of the output, px, at most that of the source.

    Attributes:
        size: Width and height of the output, px, both even.
    """

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        threshold: float,
        words: str,
        out_height: int = 720,
    ) -> None:
        self.scale = min(1.0, out_height / height)
        self.size = (round(width * self.scale) // 2 * 2, round(height * self.scale) // 2 * 2)
        self.fps, self.threshold, self.words = fps, threshold, words
        self.edges = self.labels = False  # seen so far, and then explained in the header
        self.trails: dict[str, deque[tuple[int, float, float]]] = {}
        self.drawn = 0

    def __call__(self, number: int, picture: np.ndarray | None, shown: Shown) -> np.ndarray:
        """Returns the frame with the overlay, (h, w, 3) uint8 RGB of `size`.

        Args:
            number: Frame number.
            picture: (H, W, 3) uint8 RGB, of the source's size or of `size`; None for a plain
                background.
            shown: What to draw.
        """
        canvas = self._canvas(picture)
        box = shown.box * self.scale
        self._trails(canvas, shown, box)
        self._edges(canvas, shown, box)
        # Nearer boxes are drawn over farther ones.
        for n in np.argsort(box[:, 3], kind="stable").tolist():
            self._box(canvas, shown, box[n], n)
        self.edges |= len(shown.edge) > 0
        self.labels |= bool((shown.label >= 0).any())
        self._head(canvas, number)
        self.drawn += 1
        return canvas

    def _canvas(self, picture: np.ndarray | None) -> np.ndarray:
        wide, tall = self.size
        if picture is None:
            canvas = np.full((tall, wide, 3), _GROUND, np.uint8)
            canvas[: tall // 2] = _SKY
            return canvas
        if picture.shape[:2] == (tall, wide):
            return np.array(picture)
        return cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)

    def colour(self, probability: float) -> tuple[int, ...]:
        """Returns the RGB colour of a probability."""
        if np.isnan(probability):
            return OTHER
        return RISES if probability >= self.threshold else FALLS

    def _trails(self, canvas: np.ndarray, shown: Shown, box: np.ndarray) -> None:
        keep = max(2, round(_TRAIL * self.fps))
        feet = np.stack([box[:, 0::2].mean(1), box[:, 3]], 1)
        for n, name in enumerate(shown.name):
            trail = self.trails.setdefault(name, deque(maxlen=keep))
            trail.append((self.drawn, *feet[n].tolist()))
            if len(trail) > 1 and not np.isnan(shown.probability[n]):
                points = np.rint(np.array(trail)[:, 1:] * (1 << _BITS)).astype(np.int32)
                colour = self.colour(shown.probability[n])
                cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA, _BITS)
        gone = [name for name, trail in self.trails.items() if trail[-1][0] < self.drawn - keep]
        for name in gone:
            del self.trails[name]

    def _edges(self, canvas: np.ndarray, shown: Shown, box: np.ndarray) -> None:
        middle = np.rint((box[:, :2] + box[:, 2:]) / 2).astype(int)
        order = np.argsort(np.nan_to_num(np.abs(shown.weight)), kind="stable")
        for (sender, target), weight in zip(
            shown.edge[order].tolist(), shown.weight[order].tolist(), strict=True
        ):
            colour = edge_colour(weight)
            strength = 0 if np.isnan(weight) else min(abs(weight) / _FULL, 1)
            width = 1 + round((_WIDEST - 1) * strength)
            ends = middle[sender].tolist(), middle[target].tolist()
            cv2.line(canvas, *ends, colour, width, cv2.LINE_AA)

    def _box(self, canvas: np.ndarray, shown: Shown, box: np.ndarray, n: int) -> None:
        probability, label = float(shown.probability[n]), int(shown.label[n])
        colour = self.colour(probability)
        x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
        known = not np.isnan(probability)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 2 if known or label >= 0 else 1)
        if label >= 0:
            # The label is a line under the feet.
            truth = RISES if label else FALLS
            cv2.line(canvas, (x1, y2 + 4), (x2, y2 + 4), truth, 3)
        kind = KINDS[shown.kind[n]]
        name = shown.name[n] if kind == "person" else f"{kind.replace('_', ' ')} {shown.name[n]}"
        if not known:
            if not self.words:
                _words(canvas, name, (x1, y1 - 4))
            return
        left, tall = x1 - _BAR - 3, max(y2 - y1, 24)
        top = y2 - tall
        cv2.rectangle(canvas, (left, top), (left + _BAR, y2), _SHADE, cv2.FILLED)
        full = y2 - round(tall * probability)
        cv2.rectangle(canvas, (left, full), (left + _BAR, y2), colour, cv2.FILLED)
        mark = y2 - round(tall * self.threshold)
        cv2.line(canvas, (left - 2, mark), (left + _BAR + 2, mark), _INK, 1)
        _words(canvas, f"{name}: {probability:.0%}", (left, top - 4))

    def _head(self, canvas: np.ndarray, number: int) -> None:
        canvas[:_HEAD] //= 3
        said = f"frame {number}, {number / self.fps:.1f} s"
        parts: list[tuple[str, tuple[int, ...]]] = [(said, _INK)]
        if self.words:
            parts.append((f"{self.words}: p >= {self.threshold:.0%}", RISES))
            parts.append((f"p < {self.threshold:.0%}", FALLS))
            if self.edges:
                parts += [("neighbour raises p", RISES), ("lowers p", FALLS)]
        if self.labels:
            parts += [("line: crossing", RISES), ("not crossing", FALLS)]
        x = 8
        for text, colour in parts:
            (width, _), _ = cv2.getTextSize(text, _FONT, _SIZE, 1)
            light = tuple(min(255, part + 60) for part in colour)
            cv2.putText(canvas, text, (x, 16), _FONT, _SIZE, light, 1, cv2.LINE_AA)
            x += width + 16


def edge_colour(weight: float) -> tuple[int, ...]:
    """Returns the RGB colour of an edge that raises or lowers a probability; NaN unknown."""
    return OTHER if np.isnan(weight) or not weight else RISES if weight > 0 else FALLS


def _words(canvas: np.ndarray, text: str, at: tuple[int, int]) -> None:
    """White text on a darkened background, moved into the image."""
    text = text.encode("ascii", "replace").decode()  # the font has no other characters
    (width, tall), below = cv2.getTextSize(text, _FONT, _SIZE, 1)
    x = min(max(at[0], 2), max(canvas.shape[1] - width - 4, 2))
    y = min(max(at[1], _HEAD + tall + 4), canvas.shape[0] - below - 2)
    part = canvas[y - tall - 2 : y + below, x - 2 : x + width + 2]
    part //= 3
    cv2.putText(canvas, text, (x, y), _FONT, _SIZE, _INK, 1, cv2.LINE_AA)
