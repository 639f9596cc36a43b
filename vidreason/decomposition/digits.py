"""Moving MNIST: digits that move in straight lines and bounce off the walls of a black frame.

Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using
LSTMs", ICML 2015. The motion is that of the benchmark's generator.
"""

import hashlib
import tokenize
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidreason.core.errors import DataError
from vidreason.core.loading import GOLDEN, splitmix64
from vidreason.decomposition.clip import Clip

OFFICIAL = ((20, 10_000, 64, 64), "be083ec986bfe91a449d63653c411eb2")
"""Shape (T, clips, S, S) and MD5 of the benchmark's `mnist_test_seq.npy`."""

SPEED = 0.1
"""Fraction of the free range that a digit moves per frame."""
_CACHED = 350_000  # bytes of frames drawn at a time, so that they stay in the CPU cache


def uniforms(seed: int, index: np.ndarray, count: int) -> np.ndarray:
    """Returns random numbers that are a function of (seed, index), (M, count) in [0, 1).

    Args:
        seed: From 0 to below 2**64.
        index: (M,) integers from 0 to below 2**53 / `count`.
        count: Random numbers per index.
    """
    place = index.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    key = splitmix64(np.array([seed], np.uint64))
    return (splitmix64(key + place * GOLDEN) >> np.uint64(11)) * 2.0**-53


def trajectories(start: np.ndarray, angle: np.ndarray, length: int) -> np.ndarray:
    """Simulates the motion of digits.

    Every frame is one step further, including the first. A step across a wall ends at the wall,
    and the digit moves back from there.

    Args:
        start: Start positions x and y, as fractions of the free range, (2, ...) in [0, 1).
        angle: Directions, (...,) radians.
        length: Number of frames T.

    Returns:
        Positions x and y, (T, 2, ...) in [0, 1] of the free range.
    """
    velocity = SPEED * np.stack([np.cos(angle), np.sin(angle)])
    position, path = start, np.empty((length, *start.shape))
    for frame in path:
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        frame[:] = position = np.clip(position, 0, 1)
    return path


class MovingDigits:
    """Generates clips of moving digits, each a function of the seed and the clip's number only.

    Args:
        images: Digits to choose from, (M, D, D) uint8.
        labels: Their classes, (M,).
        counts: Possible numbers of digits per clip, equally likely.
        size: Frame side S in pixels.
        length: Frames T of a clip.
        channels: Number of identical channels C.
        seed: Random seed, from 0 to below 2**64.
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
        self.images, self.labels = images, labels.astype(np.int64)  # bytes cannot be -1
        self.counts, self.size, self.length = np.asarray(counts), size, length
        self.channels, self.seed = channels, seed

    def scripts(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what is drawn in clips.

        Args:
            index: Clip numbers, (B,) integers.

        Returns:
            Indices of the images, (B, N) int64, -1 for none; and the x and y of their top left
            pixels, (B, T, N, 2) int64.
        """
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
        """Draws the clips with the given numbers, (B,) integers."""
        which, corner = self.scripts(index)
        frames = np.empty((len(index), self.length, self.size, self.size), np.uint8)
        step = max(1, _CACHED // (self.length * self.size**2))
        for start in range(0, len(index), step):
            part = slice(start, start + step)
            number = np.arange(which[part].size).reshape(-1, 1, which.shape[1])
            shown = (which[part] >= 0).reshape(-1, 1, 1)
            pasted = sheets(self.images[which[part].ravel()] * shown, self.size)
            paste(frames[part], pasted, number, corner[part])
        there = which >= 0
        middle = self.images.shape[-1] / 2
        position = np.where(there[:, None, :, None], corner + middle, np.nan)
        shape = (len(index), self.length, self.channels, self.size, self.size)
        return Clip(
            torch.from_numpy(frames)[:, :, None].expand(shape),
            torch.from_numpy(position.astype(np.float32)),
            torch.from_numpy(np.where(there, self.labels[which], -1)),
            torch.from_numpy(index.astype(np.int64)),
        )


def sheets(images: np.ndarray, size: int) -> np.ndarray:
    """Prepares images (K, D, D) for `paste`: in the top left corners of (1 + K, S, S), uint8."""
    side = images.shape[-1]
    found = np.zeros((1 + len(images), size, size), np.uint8)
    found[1:, :side, :side] = images
    return found


def paste(frames: np.ndarray, sheets: np.ndarray, which: np.ndarray, corner: np.ndarray) -> None:
    """Draws images into frames; where they overlap, the brighter pixel is kept.

    Sheets follow one another in memory, each with an image in its top left corner. A frame with the
    image at (x, y) is therefore the S * S bytes that begin y * S + x before its sheet, because what
    comes from the previous sheet is black. A frame is thus one copy of a fixed size, which numpy
    makes many times faster than it indexes pixels or rows.

    Args:
        frames: Output, (B, T, S, S) uint8.
        sheets: Sheets of K images, from the function of that name.
        which: Index of each image, (B, T or 1, N).
        corner: Top left pixels, x and y, (B, T, N, 2) from 0; images lie inside the frame.
    """
    size = frames.shape[-1]
    item = np.dtype(f"V{size * size}")
    count = (len(sheets) - 1) * item.itemsize + 1
    windows = np.lib.stride_tricks.as_strided(np.frombuffer(sheets, item, 1), (count,), (1,))
    start = (1 + which) * item.itemsize - corner @ (1, size)
    drawn = windows[np.ascontiguousarray(start.transpose(2, 0, 1))].view(np.uint8)
    drawn, *others = drawn.reshape(-1, *frames.shape)
    if not others:
        frames[:] = drawn
    for other in others:
        drawn = np.maximum(drawn, other, out=frames)


def render(digits: Tensor, corner: Tensor, size: int) -> Tensor:
    """Draws the same frames as `paste`, with PyTorch and on any device.

    Args:
        digits: (B, N, D, D), black where there is no digit.
        corner: Top left pixels, x and y, (B, T, N, 2) integers.
        size: Frame side S in pixels.

    Returns:
        (B, T, S, S), of the dtype of `digits`.
    """
    side = digits.shape[-1]
    axis = torch.arange(size, device=digits.device)
    inside = axis - corner[..., None]  # pixel of the digit, (B, T, N, 2, S)
    column, row = inside.clamp(0, side - 1).unbind(-2)
    shown = ((inside >= 0) & (inside < side)).unbind(-2)
    clip = torch.arange(len(digits), device=digits.device)[:, None, None, None, None]
    number = torch.arange(digits.shape[1], device=digits.device)[:, None, None]
    drawn = digits[clip, number, row[..., :, None], column[..., None, :]]
    return (drawn * (shown[1][..., :, None] & shown[0][..., None, :])).amax(2)


# numpy raises any of these for a damaged header.
_NOT_NPY = (
    *(ValueError, EOFError, OSError, OverflowError, SyntaxError, TypeError),
    *(MemoryError, tokenize.TokenError, zipfile.BadZipFile),
)


def read_official(path: Path) -> np.ndarray:
    """Maps the benchmark's test clips into memory, (T, clips, S, S) uint8.

    Raises:
        DataError: The file is missing, damaged or another one.
    """
    shape, checksum = OFFICIAL
    fix = "download mnist_test_seq.npy again, or leave data.test_file empty"
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "no such file", fix) from None
    except _NOT_NPY as error:
        raise DataError(path, f"is not a readable .npy array ({error})", fix) from None
    if not isinstance(clips, np.ndarray) or clips.shape != shape or clips.dtype != np.uint8:
        kind = f"{clips.dtype} {clips.shape}" if isinstance(clips, np.ndarray) else "an archive"
        raise DataError(path, f"holds {kind}, expected uint8 {shape} with time first", fix)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != checksum:
        raise DataError(path, f"has MD5 {found}, expected {checksum}", fix)
    return clips
