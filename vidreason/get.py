"""`vidreason data get`: fetch a dataset, or simulate it, check all of it, put it in place."""

import gzip
import hashlib
import os
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vidreason.core.errors import DataError
from vidreason.core.files import fetch, load_manifest, progress, sha256, unpack

# Seed and number of trajectories; the sets that `BallsData` simulates with no files.
BALLS = {"train": (0, 50_000), "val": (1 << 40, 2_000), "test": (2 << 40, 2_000)}


def verify(root: Path, manifest: dict[str, Any]) -> None:
    """Checks that `root` holds exactly the files that the manifest pins.

    Raises:
        DataError: Files are missing, too many, or differ.
    """
    mend = "get the pinned release into another folder with `vidreason data get`"
    lines = []
    for pattern, count in manifest["files"].items():
        paths = list(root.glob(pattern))
        if len(paths) != count:
            raise DataError(root, f"{len(paths)} files, expected {count}", mend, pattern)
        lines += [f"{path.relative_to(root).as_posix()} {sha256(path)}\n" for path in paths]
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    if digest != manifest["sha256"]:
        problem = f"content has SHA-256 {digest}, expected {manifest['sha256']}"
        raise DataError(root, problem, mend)


def get(dataset: str, root: Path, source: str | None = None) -> None:
    """Puts the verified files of a dataset under `root`; there already, they are only verified.

    Other things under `root`, such as video clips, are left alone.

    Args:
        dataset: Name of a folder in `datasets/`.
        root: Folder to fill.
        source: Archive to take them from, address or file, or folder of single files; the
            manifest's address if not given.

    Raises:
        DataError: The archive cannot be had or is not the pinned release, or `root` holds
            another one.
    """
    if dataset == "balls":
        if source:
            raise DataError("--from", "balls are simulated, not fetched", "leave it out")
        return simulate(root, BALLS)
    manifest = load_manifest(dataset)
    if "uncompressed" in manifest:
        return _get_files(root, source or manifest["source"], manifest)
    if any((root / name).exists() for name in manifest["take"]):
        return verify(root, manifest)
    root = root.resolve()  # beside the folder itself, not beside a link to it
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        archive, unpacked = Path(temporary, "archive"), Path(temporary, "unpacked")
        source = source or manifest["source"]
        fetch(source, archive, max_bytes=manifest["max_bytes"])
        try:
            unpack(archive, unpacked, max_bytes=manifest["max_bytes"])
            base = _locate(unpacked, manifest["take"])
            verify(base, manifest)
        except DataError as error:
            # The user knows the archive by where it came from, not by its copy.
            mend = f"use the archive {manifest['source']}"
            raise DataError(source, error.problem, mend, error.place) from error
        root.mkdir(exist_ok=True)
        with ExitStack() as undo:
            for name in manifest["take"]:
                os.rename(base / name, root / name)
                undo.callback(os.rename, root / name, base / name)
            undo.pop_all()


def _get_files(root: Path, source: str, manifest: dict[str, Any]) -> None:
    """The same for single files that may be gzipped; `source` is a folder or an address."""
    pinned, root = manifest["uncompressed"], root.resolve()

    def check(path: Path, where: object) -> None:
        mend = f"use the files of {manifest['source']}"
        try:
            found = _uncompressed(path, manifest["max_bytes"])
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(where, f"is damaged ({error})", mend, path.name) from error
        if found != pinned[path.name.removesuffix(".gz")]:
            raise DataError(where, f"content has SHA-256 {found}", mend, path.name)

    missing = []
    for name in pinned:
        here = [path for path in (root / f"{name}.gz", root / name) if path.is_file()]
        for path in here:
            check(path, root)
        if not here:
            missing.append(name)
    if not missing:
        return
    if "://" not in source and not Path(source).is_dir():
        mend = f"give the folder that has {', '.join(missing)}"
        raise DataError(source, "is no folder", mend)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        for name in missing:
            suffix = "" if Path(source, name).is_file() else ".gz"
            path = Path(temporary, f"{name}{suffix}")
            fetch(f"{source}/{name}{suffix}", path, max_bytes=manifest["max_bytes"])
            check(path, source)
        root.mkdir(exist_ok=True)
        for path in sorted(Path(temporary).iterdir()):
            os.rename(path, root / path.name)


def simulate(root: Path, sets: dict[str, tuple[int, int]]) -> None:
    """Writes sets of four balls of DDPAE's as `train.npz`, `val.npz` and `test.npz`.

    Those that are there already are simulated again and compared.

    Args:
        root: Folder to fill.
        sets: Seed and number of trajectories of each.

    Raises:
        DataError: A file that is there holds others.
    """
    # Here, because they bring torch, which the other datasets need not wait for.
    import numpy as np

    from vidreason.decomposition.ball_files import read_balls, write_balls
    from vidreason.decomposition.clip import Balls
    from vidreason.decomposition.discs import Discs

    with progress() as bar:
        for name, (seed, count) in sets.items():
            discs, parts = Discs(seed=seed), []
            for start in bar.track(range(0, count, 500), description=name):
                states = discs.states(np.arange(start, min(start + 500, count)))
                parts.append([array.astype(np.float32) for array in states])
            *arrays, boxes = zip(*parts, strict=True)
            balls = Balls._make([*map(np.concatenate, arrays), boxes[0]])
            path = root / f"{name}.npz"
            if not path.exists():
                write_balls(path, balls)
                continue
            for array, found in zip(balls, read_balls(path), strict=True):
                # Processors differ in the last bits, and collisions make more of that. Velocities
                # are let off: one that turns round just at a frame may do so before or after.
                if array is balls.velocities:
                    continue
                if array.shape != found.shape or not np.allclose(array, found, rtol=0, atol=1e-4):
                    problem = "holds other trajectories than this version simulates"
                    raise DataError(path, problem, "choose another folder, or remove the file")


def _uncompressed(path: Path, max_bytes: int) -> str:
    """SHA-256 of the content without gzip; of the first `max_bytes`, which are more than it has."""
    digest = hashlib.sha256()
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for _ in range(0, max_bytes, 1 << 20):
            digest.update(file.read(1 << 20))
    return digest.hexdigest()


def _locate(unpacked: Path, names: list[str]) -> Path:
    """The folder that holds `names`: archives of GitHub have one folder on top."""
    for base in (unpacked, *unpacked.iterdir()):
        if all((base / name).exists() for name in names):
            return base
    raise DataError(unpacked, "no folder with " + ", ".join(names), "")
