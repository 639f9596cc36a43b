"""Small sets of random images as MNIST's idx files."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(items: np.ndarray) -> bytes:
    """Returns an array of bytes in the idx format: magic number, dimensions, values."""
    head = struct.pack(">BBBB", 0, 0, 8, items.ndim) + struct.pack(f">{items.ndim}I", *items.shape)
    return head + items.astype(np.uint8).tobytes()


def mnist(root: Path, train: int = 5_020, test: int = 30) -> dict[str, np.ndarray]:
    """Writes the four files of MNIST, the labels gzipped, and returns their arrays by name."""
    rng = np.random.default_rng(5)
    root.mkdir(parents=True, exist_ok=True)
    items = {}
    for name, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        items[f"{name}-images-idx3-ubyte"] = images
        items[f"{name}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in items.items():
        if "images" in name:
            (root / name).write_bytes(idx(array))
        else:
            (root / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return items
