"""Cache of scenes: one NumPy archive, keyed by the content of its source files.

The key covers the bytes of every source file and of the code that reads them, so a stale cache is
never used. Hashing the 287 MB of JAAD takes about as long as loading the cache.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.files import progress, write_atomic
from vidreason.scenes.scene import Scene

_SCALARS = ("id", "fps", "width", "height", "length", "attributes", "track_ids")
_ARRAYS = ("ego_action", "kind", "offsets", "frame", "box")
_TABLES = ("signals", "facts", "cues", "labels", "odometry")


def content_key(paths: Sequence[Path], code: Sequence[Path]) -> str:
    """Returns the SHA-256 of the names and contents of `paths` and `code`."""
    # hashlib releases the interpreter lock, so threads run in parallel.
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(lambda p: hashlib.sha256(p.read_bytes()).hexdigest(), [*paths, *code])
        lines = [
            f"{p.parent.name}/{p.name} {d}" for p, d in zip([*paths, *code], digests, strict=True)
        ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cached(path: Path, key: str, read: Callable[[], list[Scene]]) -> list[Scene]:
    """Returns the scenes cached at `path` if the key matches; otherwise reads and caches them."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            # NumPy checks only what it reads, so a damaged header could go unnoticed.
            if archive.zip.testzip() is None and bytes(archive["key"]).decode() == key:
                return _unpack(archive)
    except Exception:  # a damaged archive can raise anything
        pass  # without a usable cache, the source files are read
    scenes = read()
    try:
        path.parent.mkdir(exist_ok=True)
        with write_atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.frombuffer(key.encode(), np.uint8), **_pack(scenes))
    except OSError as error:
        warnings.warn(f"{path}: cache not written ({error.strerror})", stacklevel=2)
    return scenes


def read_each(dataset: str, names: Sequence[str], read: Callable[[str], Scene]) -> list[Scene]:
    """Reads the named videos, with a progress bar."""
    # rich's track() could deadlock after an error: the garbage collector may close its generator
    # inside rich's own thread.
    scenes = []
    with progress() as bar:
        task = bar.add_task(f"reading {dataset}", total=len(names))
        for name in names:
            scenes.append(read(name))
            bar.advance(task)
    return scenes


def _pack(scenes: list[Scene]) -> dict[str, Any]:
    text: dict[str, Any] = {
        "scenes": [{name: getattr(s, name) for name in _SCALARS} for s in scenes],
        "columns": {name: list(getattr(scenes[0], name)) for name in _TABLES},
    }
    arrays = {name: np.concatenate([getattr(s, name) for s in scenes]) for name in _ARRAYS}
    for name in _TABLES:
        if text["columns"][name]:
            tables = [np.stack(list(getattr(s, name).values())) for s in scenes]
            arrays[name] = np.concatenate(tables, axis=1)
    return {"text": np.frombuffer(json.dumps(text).encode(), np.uint8), **arrays}


def _unpack(archive: Mapping[str, np.ndarray]) -> list[Scene]:
    text = json.loads(bytes(archive["text"]))
    arrays = {name: archive[name] for name in (*_ARRAYS, *_TABLES) if name in archive}
    scenes: list[Scene] = []
    frames = tracks = boxes = 0
    for scalars in text["scenes"]:
        scalars["track_ids"] = tuple(scalars["track_ids"])
        f = slice(frames, frames := frames + scalars["length"])
        t = slice(tracks, tracks := tracks + len(scalars["track_ids"]))
        # Each scene, including those before this one, has one more offset than tracks.
        offsets = arrays["offsets"][t.start + len(scenes) : t.stop + len(scenes) + 1]
        b = slice(boxes, boxes := boxes + int(offsets[-1]))
        part = {"signals": f, "facts": t, "cues": b, "labels": b, "odometry": f}
        tables: dict[str, Any] = {
            name: dict(zip(columns, arrays[name][:, part[name]], strict=True)) if columns else {}
            for name, columns in text["columns"].items()
        }
        scenes.append(
            Scene(
                **scalars,
                **tables,
                ego_action=arrays["ego_action"][f],
                kind=arrays["kind"][t],
                offsets=offsets,
                frame=arrays["frame"][b],
                box=arrays["box"][b],
            )
        )
    return scenes
