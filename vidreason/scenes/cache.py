"""A cache of scenes: one NumPy archive, keyed by the content of the files it was read from.

The key covers every source file's bytes and the code that read them, so a stale cache cannot be
mistaken for a fresh one; hashing the 287 MB of JAAD takes about as long as loading it.
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
    """SHA-256 over names and bytes of `paths` and over the bytes of `code`."""
    # hashlib lets go of the interpreter lock, so threads share the work.
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(lambda p: hashlib.sha256(p.read_bytes()).hexdigest(), [*paths, *code])
        lines = [
            f"{p.parent.name}/{p.name} {d}" for p, d in zip([*paths, *code], digests, strict=True)
        ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cached(path: Path, key: str, read: Callable[[], list[Scene]]) -> list[Scene]:
    """Returns the scenes at `path` if they were stored under `key`; else reads and stores them."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            # A damaged header would be believed: NumPy does not check what it does not read.
            if archive.zip.testzip() is None and bytes(archive["key"]).decode() == key:
                return _unpack(archive)
    except Exception:  # a damaged archive can raise anything
        pass  # no cache, or a damaged one: the source files are the truth and are read again
    scenes = read()
    try:
        path.parent.mkdir(exist_ok=True)
        with write_atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.frombuffer(key.encode(), np.uint8), **_pack(scenes))
    except OSError as error:
        warnings.warn(f"{path}: cache not written ({error.strerror})", stacklevel=2)
    return scenes


def read_each(dataset: str, names: Sequence[str], read: Callable[[str], Scene]) -> list[Scene]:
    """The scenes of the named videos, with a progress bar."""
    # Not rich's track(): an error would leave its generator to the garbage collector, which may
    # close it inside rich's own thread and wait for ever.
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
        # One offset more than there are tracks, in every scene before this one and in this one.
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
