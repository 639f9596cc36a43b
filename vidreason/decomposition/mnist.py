"""MNIST's digits from the original idx files, or drawn ones where there is no MNIST."""

import gzip
import zlib
from pathlib import Path

import cv2
import numpy as np

from vidreason.core.errors import DataError

SIDE = 28
FILES = {"train": "train", "val": "train", "test": "t10k"}
HELD_OUT = 5_000
"""Last training images, kept for validation."""

_MOST = 60_000  # images in a file
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)


def read_idx(path: Path, sides: tuple[int, ...] = ()) -> np.ndarray:
    """Reads an idx file of bytes, gzipped or not.

    Args:
        path: The file.
        sides: Shape of an item: () for labels, (28, 28) for images.

    Returns:
        (n, *sides) uint8, n at most 60,000.

    Raises:
        DataError: Not such a file.
    """
    mend = "get a whole copy with `vidreason data get mnist`"
    header, item = 4 * (2 + len(sides)), int(np.prod(sides))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + _MOST * item + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(path, f"is damaged ({error})", mend) from None
    magic = bytes((0, 0, 8, 1 + len(sides)))  # bytes, and how many dimensions
    if not content.startswith(magic):
        found = content[:4].hex() or "nothing"
        raise DataError(path, f"starts with {found}, expected {magic.hex()}", mend)
    if len(content) <= header:
        raise DataError(path, "holds no items", mend)
    count, *shape = np.frombuffer(content[4:header], ">u4").tolist()
    if tuple(shape) != sides:
        raise DataError(path, f"holds images of {shape}, expected {list(sides)}", mend)
    body = content[header:]
    if len(body) != count * item:
        problem = f"holds {len(body):,} bytes, expected {count} times {item}"
        raise DataError(path, problem, mend)
    return np.frombuffer(body, np.uint8).reshape(count, *sides)


def read_digits(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) uint8 and labels (n,) of a split.

    `val` are the last 5,000 of the training images, `train` those before, `test` the test images.

    Args:
        root: Folder of the idx files.
        split: `train`, `val` or `test`.

    Raises:
        DataError: Files are missing or damaged.
    """
    images, labels = (
        read_idx(_find(root, f"{FILES[split]}-{kind}"), sides)
        for kind, sides in (("images-idx3-ubyte", (SIDE, SIDE)), ("labels-idx1-ubyte", ()))
    )
    if len(images) != len(labels):
        problem = f"{len(images)} images and {len(labels)} labels"
        raise DataError(root, problem, "take both files of one release", FILES[split])
    if labels.max() > 9:
        raise DataError(root, f"label {labels.max()}", "take MNIST's digits", FILES[split])
    if split == "test":
        return images, labels
    if len(images) <= HELD_OUT:
        problem = f"{len(images)} training images, of which {HELD_OUT} are for validation"
        raise DataError(root, problem, "take the whole set")
    part = slice(-HELD_OUT, None) if split == "val" else slice(-HELD_OUT)
    return images[part], labels[part]


def _find(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    mend = "run `vidreason data get mnist`, or set data.source to drawn"
    raise DataError(root / f"{name}.gz", "no such file", mend)


def drawn_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits in OpenCV's fonts, each slanted, turned and weighted otherwise, centred as MNIST's.

    Args:
        count: n.
        seed: Of all of them.

    Returns:
        Images (n, 28, 28) uint8 and labels (n,).
    """
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((count, SIDE, SIDE), np.uint8), rng.integers(0, 10, count)
    zoom = 4  # drawn larger, then averaged
    for image, label in zip(images, labels, strict=True):
        canvas = np.zeros((SIDE * zoom, SIDE * zoom), np.uint8)
        font, thick = _FONTS[rng.integers(len(_FONTS))], int(rng.integers(7, 12))
        (wide, high), _ = cv2.getTextSize(str(label), font, 2.6, thick)
        corner = ((SIDE * zoom - wide) // 2, (SIDE * zoom + high) // 2)
        cv2.putText(canvas, str(label), corner, font, 2.6, 255, thick, cv2.LINE_AA)
        turn, slant, grow = rng.uniform((-0.2, -0.3, 0.85), (0.2, 0.3, 1.1))
        shape = np.array([[1, slant], [0, 1]]) @ [
            [np.cos(turn), -np.sin(turn)],
            [np.sin(turn), np.cos(turn)],
        ]
        smooth = cv2.blur(canvas, (zoom, zoom))  # by as much as it shrinks
        moments = cv2.moments(smooth)
        centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
        shape = shape * grow / zoom
        move = SIDE / 2 - shape @ centre
        image[:] = cv2.warpAffine(smooth, np.column_stack([shape, move]), (SIDE, SIDE))
    return images, labels.astype(np.uint8)
