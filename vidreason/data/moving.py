"""Moving MNIST: digits that move straight and bounce off the walls of a small black frame.

Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using
LSTMs", ICML 2015; the physics are those of the benchmark's generator.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidreason.clip import Clip
from vidreason.errors import DataError

OFFICIAL = ((20, 10_000, 64, 64), "be083ec986bfe91a449d63653c411eb2")
"""Shape (T, clips, S, S) and MD5 of the benchmark's `mnist_test_seq.npy`."""

SPEED = 0.1
"""Share of the free range that a digit moves in a frame."""
_CHUNK = 16  # clips drawn at a time, so that their frames stay in the processor's cache


def uniforms(seed: int, index: np.ndarray, count: int) -> np.ndarray:
    """Random numbers that are a function of (seed, index), (len(index), count) in [0, 1).

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a hash: a generator for each clip would cost
    more than drawing it.

    Args:
        seed: Below 2**64.
        index: (M,) integers from 0 to below 2**53 / `count`.
        count: Numbers for each index.
    """

    def mix(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    step = np.uint64(0x9E3779B97F4A7C15)
    place = index.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        key = mix(np.array([seed], np.uint64) + step)
        return (mix(key + (place + np.uint64(1)) * step) >> np.uint64(11)) * 2.0**-53


def trajectories(start: np.ndarray, angle: np.ndarray, length: int) -> np.ndarray:
    """Positions (length, 2, ...) in [0, 1] of the free range: x, then y.

    Every frame is one step on, the first too. A step over a wall ends at the wall, and from there
    the digit moves back.

    Args:
        start: (2, ...) in [0, 1).
        angle: (...,) radians.
        length: Frames.
    """
    velocity = SPEED * np.stack([np.cos(angle), np.sin(angle)])
    position, path = start, np.empty((length, *start.shape))
    for frame in path:
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        frame[:] = position = np.clip(position, 0, 1)
    return path


class MovingDigits:
    """Clips of moving digits; number and seed alone decide what is in one.

    Args:
        images: (M, D, D) uint8.
        labels: (M,).
        counts: Numbers of digits, one of which each clip has.
        size: Pixels S of a side of the frames.
        length: Frames T.
        channels: Channels C, all alike.
        seed: Of everything.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        counts: Sequence[int] = (2,),
        size: int = 64,
        length: int = 20,
        channels: int = 1,
        seed: int = 0,
    ) -> None:
        self.images, self.labels = images, labels
        self.counts, self.size, self.length = np.asarray(counts), size, length
        self.channels, self.seed = channels, seed

    def scripts(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which digits, (B, N), -1 for none, and their top left pixels, (B, T, N, 2): x, y."""
        most = int(self.counts.max())
        draws = uniforms(self.seed, index, 1 + 4 * most)
        which, x, y, turn = draws[:, 1:].reshape(-1, most, 4).transpose(2, 0, 1)
        which = (which * len(self.images)).astype(np.int64)
        count = self.counts[(draws[:, 0] * len(self.counts)).astype(np.int64)]
        which[np.arange(most) >= count[:, None]] = -1
        path = trajectories(np.stack([x, y]), 2 * np.pi * turn, self.length)
        free = self.size - self.images.shape[-1]
        return which, (free * path).astype(np.int64).transpose(2, 0, 3, 1)

    def clips(self, index: np.ndarray) -> Clip:
        """The clips of these numbers, (B,)."""
        which, corner = self.scripts(index)
        frames = np.zeros((len(index), self.length, self.size, self.size), np.uint8)
        for start in range(0, len(index), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._draw(frames[part], which[part], corner[part])
        there = which >= 0
        middle = self.images.shape[-1] / 2
        position = np.where(there[:, None, :, None], corner + middle, np.nan)
        shape = (len(index), self.length, self.channels, self.size, self.size)
        return Clip(
            torch.from_numpy(frames)[:, :, None].expand(shape),
            torch.from_numpy(position.astype(np.float32)),
            torch.from_numpy(np.where(there, self.labels[which], -1).astype(np.int64)),
            torch.from_numpy(index.astype(np.int64)),
        )

    def _draw(self, frames: np.ndarray, which: np.ndarray, corner: np.ndarray) -> None:
        """Draws on black frames (B, T, S, S), the brighter over the darker.

        A frame's row of a digit is `size` bytes of the digit's row between zeros, so one copy of a
        fixed size: numpy copies such items much faster than it indexes pixels.
        """
        side, item = self.images.shape[-1], np.dtype(f"V{self.size}")
        free = self.size - side
        clips, length, digits = corner.shape[:3]
        padded = np.zeros((clips, digits, side, side + 2 * free), np.uint8)
        padded[..., free : free + side] = self.images[which]
        padded[which < 0] = 0
        windows = np.lib.stride_tricks.as_strided(
            np.frombuffer(padded, item, 1),
            (clips, digits, side, free + 1),
            (*padded.strides[:3], 1),
        )
        rows = frames.reshape(-1).view(item)
        clip, row = np.arange(clips)[:, None, None], np.arange(side)
        first = (np.arange(clips)[:, None] * length + np.arange(length)) * self.size
        for digit in range(digits):
            x, y = corner[:, :, digit].transpose(2, 0, 1)
            new = windows[clip, digit, row, free - x[..., None]]
            place = (first + y)[..., None] + row
            if digit:
                new = np.maximum(new.view(np.uint8), rows[place].view(np.uint8)).view(item)
            rows[place] = new


def render(digits: Tensor, corner: Tensor, size: int) -> Tensor:
    """The same frames from digits on any device.

    Args:
        digits: (B, N, D, D), black where there is none.
        corner: Top left pixels, (B, T, N, 2) integers: x, y.
        size: Pixels S of a side of the frames.

    Returns:
        (B, T, S, S), of the digits' type.
    """
    side = digits.shape[-1]
    axis = torch.arange(size, device=digits.device)
    inside = axis - corner[..., None]  # (B, T, N, 2, S): pixels of the digit
    column, row = inside.clamp(0, side - 1).unbind(-2)
    shown = ((inside >= 0) & (inside < side)).unbind(-2)
    clip = torch.arange(len(digits), device=digits.device)[:, None, None, None, None]
    number = torch.arange(digits.shape[1], device=digits.device)[:, None, None]
    drawn = digits[clip, number, row[..., :, None], column[..., None, :]]
    return (drawn * (shown[1][..., :, None] & shown[0][..., None, :])).amax(2)


def read_official(path: Path) -> np.ndarray:
    """The benchmark's test clips, (T, clips, S, S) uint8, mapped into memory.

    Raises:
        DataError: Not that file.
    """
    shape, checksum = OFFICIAL
    mend = "download mnist_test_seq.npy again, or leave data.test_file empty"
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "no such file", mend) from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(path, f"cannot be read as an array ({error})", mend) from None
    if not isinstance(clips, np.ndarray) or clips.shape != shape or clips.dtype != np.uint8:
        kind = f"{clips.dtype} {clips.shape}" if isinstance(clips, np.ndarray) else "an archive"
        raise DataError(path, f"holds {kind}, expected uint8 {shape}: time first", mend)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != checksum:
        raise DataError(path, f"has MD5 {found}, expected {checksum}", mend)
    return clips
