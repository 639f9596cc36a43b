"""Downloads or simulates datasets, and verifies every file."""

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

# Seed and number of trajectories of the sets that `BallsData` simulates without files.
BALLS = {"train": (0, 50_000), "val": (1 << 40, 2_000), "test": (2 << 40, 2_000)}


def verify(root: Path, manifest: dict[str, Any]) -> None:
    """Checks that a folder holds exactly the files that a manifest pins.

    Args:
        root: Dataset folder.
        manifest: Contents of the dataset's `manifest.yaml`.

    Raises:
        DataError: If files are missing, additional, or different.
    """
    fix = "get the pinned release into another folder with `vidreason data get`, and compare"
    lines = []
    for pattern, count in manifest["files"].items():
        paths = list(root.glob(pattern))
        if len(paths) != count:
            raise DataError(root, f"{len(paths)} files, expected {count}", fix, pattern)
        lines += [f"{path.relative_to(root).as_posix()} {sha256(path)}\n" for path in paths]
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    if digest != manifest["sha256"]:
        problem = f"content has SHA-256 {digest}, expected {manifest['sha256']}"
        raise DataError(root, problem, fix)


def get(dataset: str, root: Path, source: str | None = None) -> None:
    """Downloads the files of a dataset, or verifies them if they are there already.

    Other files in the folder, such as video clips, are not touched.

    Args:
        dataset: `jaad`, `mnist` or `balls`.
        root: Output folder.
        source: URL or path of an archive, or folder or URL of single files; the address in the
            dataset's manifest by default.

    Raises:
        DataError: If the archive is not available or not the pinned release, or `root` holds
            another release.
    """
    if dataset == "balls":
        if source:
            raise DataError("--from", "balls are simulated, not downloaded", "omit it")
        return simulate(root, BALLS)
    manifest = load_manifest(dataset)
    if "uncompressed" in manifest:
        return _get_files(root, source or manifest["source"], manifest)
    if any((root / name).exists() for name in manifest["take"]):
        return verify(root, manifest)
    root = root.resolve()  # temporary files next to the folder itself, not to a link to it
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
            # Name the source, which the user knows, not the temporary copy.
            fix = f"use the archive {manifest['source']}"
            raise DataError(source, error.problem, fix, error.place) from error
        root.mkdir(exist_ok=True)
        with ExitStack() as undo:
            for name in manifest["take"]:
                os.rename(base / name, root / name)
                undo.callback(os.rename, root / name, base / name)
            undo.pop_all()


def _get_files(root: Path, source: str, manifest: dict[str, Any]) -> None:
    """Gets single files, which may be gzipped, from a folder or a URL."""
    pinned, root = manifest["uncompressed"], root.resolve()

    def check(path: Path, where: object) -> None:
        fix = f"use the files of {manifest['source']}"
        try:
            found = _uncompressed(path, manifest["max_bytes"])
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(where, f"is damaged ({error})", fix, path.name) from error
        if found != pinned[path.name.removesuffix(".gz")]:
            raise DataError(where, f"content has SHA-256 {found}", fix, path.name)

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
        fix = f"give the folder that holds {', '.join(missing)}"
        raise DataError(source, "is not a folder", fix)
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
    """Writes sets of DDPAE's four bouncing balls, one file `NAME.npz` each.

    Files that exist are simulated again and compared.

    Args:
        root: Output folder.
        sets: Seed and number of trajectories by name.

    Raises:
        DataError: If an existing file holds other trajectories.
    """
    # Imported here because they import torch, which the other datasets do not need.
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
                # Processors differ by rounding, and collisions amplify it. Velocities are skipped:
                # a collision close to a frame may fall before or after it.
                if array is balls.velocities:
                    continue
                if array.shape != found.shape or not np.allclose(array, found, rtol=0, atol=1e-4):
                    problem = "holds other trajectories than this version simulates"
                    raise DataError(path, problem, "give another folder, or remove the file")


def _uncompressed(path: Path, max_bytes: int) -> str:
    """Returns the SHA-256 of the content without gzip; stops reading after `max_bytes`."""
    digest = hashlib.sha256()
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for _ in range(0, max_bytes, 1 << 20):
            digest.update(file.read(1 << 20))
    return digest.hexdigest()


def _locate(unpacked: Path, names: list[str]) -> Path:
    """Returns the folder that holds `names`; archives of GitHub have one folder on top."""
    for base in (unpacked, *unpacked.iterdir()):
        if all((base / name).exists() for name in names):
            return base
    raise DataError(unpacked, "no folder with " + ", ".join(names), "")
