"""Digit images from MNIST's idx files, or drawn with fonts where MNIST is not available."""

import gzip
import zlib
from pathlib import Path

import cv2
import numpy as np

from vidreason.core.errors import DataError

SIDE = 28
FILES = {"train": "train", "val": "train", "test": "t10k"}
HELD_OUT = 5_000
"""Number of training images, at the end of the file, that form the validation split."""

_MOST = 60_000  # images in a file
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)


def read_idx(path: Path, sides: tuple[int, ...] = ()) -> np.ndarray:
    """Reads an idx file of bytes.

    Args:
        path: The file, gzipped if its suffix is `.gz`.
        sides: Shape of an item: () for labels, (28, 28) for images.

    Returns:
        (n, *sides) uint8 with n at most 60,000.

    Raises:
        DataError: The file is damaged or holds something else.
    """
    fix = "get a complete copy with `vidreason data get mnist`"
    header, item = 4 * (2 + len(sides)), int(np.prod(sides))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + _MOST * item + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(path, f"is damaged ({error})", fix) from None
    magic = bytes((0, 0, 8, 1 + len(sides)))  # type code of bytes, number of dimensions
    if not content.startswith(magic):
        found = content[:4].hex() or "nothing"
        raise DataError(path, f"starts with {found}, expected {magic.hex()}", fix)
    if len(content) <= header:
        raise DataError(path, "holds no items", fix)
    count, *shape = np.frombuffer(content[4:header], ">u4").tolist()
    if tuple(shape) != sides:
        raise DataError(path, f"holds images of {shape}, expected {list(sides)}", fix)
    body = content[header:]
    if len(body) != count * item:
        problem = f"holds {len(body):,} bytes, expected {count} x {item}"
        raise DataError(path, problem, fix)
    return np.frombuffer(body, np.uint8).reshape(count, *sides)


def read_digits(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the digits of a split.

    `val` is the last 5,000 training images, `train` is those before, `test` is the test images.

    Args:
        root: Folder of the idx files.
        split: `train`, `val` or `test`.

    Returns:
        Images (n, 28, 28) uint8 and labels (n,) uint8 from 0 to 9.

    Raises:
        DataError: Files are missing or damaged.
    """
    images, labels = (
        read_idx(_find(root, f"{FILES[split]}-{kind}"), sides)
        for kind, sides in (("images-idx3-ubyte", (SIDE, SIDE)), ("labels-idx1-ubyte", ()))
    )
    if len(images) != len(labels):
        problem = f"{len(images)} images and {len(labels)} labels"
        raise DataError(root, problem, "use both files of one release", FILES[split])
    if labels.max() > 9:
        problem = f"labels must be between 0 and 9, got {labels.max()}"
        raise DataError(root, problem, "use the digits of MNIST", FILES[split])
    if split == "test":
        return images, labels
    if len(images) <= HELD_OUT:
        problem = f"{len(images)} training images, of which {HELD_OUT} are for validation"
        raise DataError(root, problem, "use the complete set")
    part = slice(-HELD_OUT, None) if split == "val" else slice(-HELD_OUT)
    return images[part], labels[part]


def _find(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    fix = "run `vidreason data get mnist`, or set data.source to drawn"
    raise DataError(root / f"{name}.gz", "no such file", fix)


def drawn_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws digits in OpenCV's fonts with random slant, rotation, scale and stroke width.

    They are centred by their centre of mass, as in MNIST.

    Args:
        count: Number of digits n.
        seed: Random seed of the whole set.

    Returns:
        Images (n, 28, 28) uint8 and labels (n,) uint8 from 0 to 9.
    """
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((count, SIDE, SIDE), np.uint8), rng.integers(0, 10, count)
    zoom = 4  # drawn at this scale, then averaged
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
        smooth = cv2.blur(canvas, (zoom, zoom))  # anti-aliasing for the reduction by `zoom`
        moments = cv2.moments(smooth)
        centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
        shape = shape * grow / zoom
        move = SIDE / 2 - shape @ centre
        image[:] = cv2.warpAffine(smooth, np.column_stack([shape, move]), (SIDE, SIDE))
    return images, labels.astype(np.uint8)
