"""`BallsData`: data module of bouncing balls, simulated or read from files, drawn on the fly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from vidreason.core.errors import DataError, check_choice, check_ranges
from vidreason.decomposition.ball_files import read_balls
from vidreason.decomposition.clip import Balls, Clip
from vidreason.decomposition.data import SEEDS, ClipData, Split
from vidreason.decomposition.digits import paste, sheets, uniforms
from vidreason.decomposition.discs import Discs

Look = Literal["disc", "smooth", "soft"]
_PHASES = 8  # subpixel positions along each axis


class Drawing:
    """Draws balls in white on black.

    A box width is S pixels, and the corner of the box is half a pixel inside the frame, as in the
    data of DDPAE (Hsieh et al., NeurIPS 2018), where coordinates are rounded to pixel indices.

    Args:
        radii: All radii that occur, in box widths.
        size: Frame side S in pixels.
        look: `disc` is OpenCV's filled circle around the nearest pixel with its radius rounded
            down, as in DDPAE. The others are drawn at a resolution of an eighth of a pixel:
            `smooth` is an anti-aliased disc, `soft` is exp(-(d/r)^8) at distance d (Sutskever et
            al., NeurIPS 2008).
    """

    def __init__(self, radii: np.ndarray, size: int, look: Look = "disc") -> None:
        self.radii, self.size, self.look = np.unique(radii[~np.isnan(radii)]), size, look
        self.reach = int(self.radii.max() * size) + 2  # pixels around the central one
        self.phases = 1 if look == "disc" else _PHASES
        images = np.concatenate([self._stamps(radius * size) for radius in self.radii])
        # The margin lets balls extend over the edge. The last image, of no ball, is black.
        self.sheets = sheets(np.concatenate([images, 0 * images[:1]]), size + 2 * self.reach)

    def _stamps(self, radius: float) -> np.ndarray:
        """Returns images of a ball at each subpixel position, (K, D, D) uint8."""
        side = 2 * self.reach + 1
        if self.look == "disc":
            stamp = np.zeros((side, side), np.uint8)
            cv2.circle(stamp, (self.reach, self.reach), int(radius), 255, cv2.FILLED)
            return stamp[None]
        place = (np.arange(self.phases) + 0.5) / self.phases
        away = np.arange(side) + 0.5 - self.reach - place[:, None]  # (phase, D)
        square = away[:, None, :, None] ** 2 + away[None, :, None] ** 2  # (y, x, D, D)
        if self.look == "soft":
            light = np.exp(-((square / radius**2) ** 4))
        else:
            light = (radius - np.sqrt(square) + 0.5).clip(0, 1)
        return (255 * light).round().astype(np.uint8).reshape(-1, side, side)

    def positions(self, balls: Balls) -> np.ndarray:
        """Returns the centres in the convention of `Clip`, (M, T, N, 2) px."""
        return balls.positions * self.size + 0.5

    def frames(self, balls: Balls) -> np.ndarray:
        """Draws M scenes of T frames, (M, T, S, S) uint8."""
        there = ~np.isnan(balls.radii)[:, None]
        phases = self.phases
        cell = np.floor(np.nan_to_num(self.positions(balls)) * phases).astype(np.int64)
        pixel, (x, y) = cell // phases, np.moveaxis(cell % phases, -1, 0)
        kind = np.searchsorted(self.radii, np.nan_to_num(balls.radii))[:, None]
        which = np.where(there, (kind * phases + y) * phases + x, len(self.sheets) - 2)
        shape = (*pixel.shape[:2], *self.sheets.shape[1:])
        drawn = np.empty(shape, np.uint8)
        for clip in range(len(drawn)):  # one by one, so that they stay in the CPU cache
            part = slice(clip, clip + 1)
            paste(drawn[part], self.sheets, which[part], pixel[part])
        inside = slice(self.reach, self.reach + self.size)
        return drawn[..., inside, inside]


class BallsData(ClipData):
    """Bouncing balls with an endless stream of training clips and fixed validation and test sets.

    Training clips are random windows of `trajectories` scenes, chosen as a function of the seed and
    the clip's number. Validation and test clips are the first frames of other scenes. The defaults
    are those of DDPAE (Hsieh et al., NeurIPS 2018), except for its physics engine.

    Args:
        balls: Balls in a simulated scene.
        radius: Radius of each simulated ball, in box widths.
        gravity: Downward acceleration in simulation, in box widths per frame².
        trajectories: Number of simulated training scenes.
        frames: Frames of a simulated training scene, at least `length`.
        size: Frame side S in pixels.
        length: Frames of a clip, input and predicted.
        channels: Number of identical channels C.
        look: How balls are drawn: `disc` as in DDPAE, `smooth` (anti-aliased) or `soft` (blurred).
        batch_size: Clips in a batch.
        epoch_clips: Training clips per epoch.
        val_clips: Validation clips.
        test_clips: Test clips.
        train_file: File of training scenes instead of simulated ones, in a format that
            `vidreason data card balls` lists.
        val_file: The same for validation.
        test_file: The same for test.
        workers: Data loader processes.
        seed: Random seed of the training clips.
        predict_split: Split that `predict` uses.

    Raises:
        DataError: An option is out of range, or a file is missing.
    """

    def __init__(
        self,
        balls: int = 4,
        radius: float = 0.075,
        gravity: float = 0.0,
        trajectories: int = 50_000,
        frames: int = 60,
        size: int = 128,
        length: int = 20,
        channels: int = 1,
        look: Look = "disc",
        batch_size: int = 64,
        epoch_clips: int = 50_000,
        val_clips: int = 1_000,
        test_clips: int = 2_000,
        train_file: str = "",
        val_file: str = "",
        test_file: str = "",
        workers: int = 0,
        seed: int = 0,
        predict_split: Split = "test",
    ) -> None:
        clips = {"train": epoch_clips, "val": val_clips, "test": test_clips}
        super().__init__(clips, length, batch_size, workers, predict_split)
        check_ranges(
            "data",
            ("size", size, 16, 1024),
            ("radius", radius, 1 / size, 0.5),
            ("channels", channels, 1, 16),
            ("trajectories", trajectories, 1, 10**9),
            ("frames", frames, length, 1_000_000),
            ("seed", seed, 0, 2**32 - 1),
        )
        check_choice("data.look", look, ("disc", "smooth", "soft"))
        self.files = {"train": train_file, "val": val_file, "test": test_file}
        for split, file in self.files.items():
            if file and not Path(file).exists():
                raise DataError(f"data.{split}_file", f"{file} does not exist", "correct the path")
        self.options: dict[str, Any] = {"balls": balls, "radius": radius, "gravity": gravity}
        Discs(**self.options)  # checks these options
        self.options |= {"size": size, "length": length, "channels": channels, "look": look}
        self.size, self.channels, self.look, self.seed = size, channels, look, seed
        self.trajectories, self.frames = trajectories, frames

    def make(self, split: Split) -> Dataset[Clip]:
        """Returns the clips of a split, whose scenes are read or simulated."""
        seed = SEEDS.get(split, self.seed)
        if file := self.files[split]:
            balls = read_balls(Path(file))
            scenes, frames = balls.positions.shape[:2]
            if frames < self.length:
                problem = f"scenes have {frames} frames, data.length is {self.length}"
                raise DataError(file, problem, f"set data.length to at most {frames}")
            radii = balls.radii

            def states(index: np.ndarray) -> Balls:
                return Balls._make([*(part[index] for part in balls[:4]), balls.box])
        else:
            names = ("balls", "radius", "gravity")
            options = {name: self.options[name] for name in names}
            frames = self.frames if split == "train" else self.length
            discs = Discs(**options, length=frames, seed=seed)
            states, radii = discs.states, np.array([discs.radius])
            scenes = self.trajectories if split == "train" else self.clips[split]
        drawing = Drawing(radii, self.size, self.look)
        if split != "train":
            self.clips[split] = min(self.clips[split], scenes)
        window = (self.seed, scenes, frames) if split == "train" else None
        return _Scenes(states, drawing, self.clips[split], self.length, self.channels, window)


class _Scenes(Dataset[Clip]):
    """Clips as windows of scenes: random windows, or the first frames of each scene."""

    def __init__(
        self,
        states: Callable[[np.ndarray], Balls],
        drawing: Drawing,
        clips: int,
        length: int,
        channels: int,
        window: tuple[int, int, int] | None,
    ) -> None:
        self.states, self.drawing, self.clips = states, drawing, clips
        self.length, self.channels, self.window = length, channels, window

    def __len__(self) -> int:
        return self.clips

    def __getitems__(self, index: list[int]) -> Clip:
        number = np.asarray(index, np.int64)
        scene, start = number, np.zeros_like(number)
        if self.window:
            seed, scenes, frames = self.window
            choices = np.array([scenes, frames - self.length + 1])
            scene, start = (uniforms(seed, number, 2) * choices).astype(np.int64).T
        states = self.states(scene)
        times = (start[:, None] + np.arange(self.length))[..., None, None]
        positions = np.take_along_axis(states.positions, times, 1)
        velocities = np.take_along_axis(states.velocities, times, 1)
        states = states._replace(positions=positions, velocities=velocities)
        drawn = torch.from_numpy(self.drawing.frames(states))[:, :, None]
        labels = np.where(np.isnan(states.radii), -1, 0)
        return Clip(
            drawn.expand(-1, -1, self.channels, -1, -1),
            torch.from_numpy(self.drawing.positions(states).astype(np.float32)),
            torch.from_numpy(labels),
            torch.from_numpy(number),
            torch.from_numpy((states.velocities * self.drawing.size).astype(np.float32)),
        )
