"""A tiny dataset in the layout of JAAD, and faults to plant in it.

Each fault damages one file or folder and returns its path, which tests expect in the error.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from vidreason.scenes.jaad import annotation_path
from vidreason.simulation.street import write_street

VIDEOS = ("video_0001", "video_0002", "video_0003")  # train, val, test
VIDEO = VIDEOS[1]


def jaad(root: Path, **damage: dict[str, Any]) -> Path:
    """Writes three videos of 110 to 130 frames, one for each split, with all kinds of tracks.

    Each has a crossing pedestrian whose track is long enough for windows of the benchmark. The
    first also has pedestrians without intent to cross and pedestrians who do not cross.

    Args:
        root: Output folder.
        damage: Faults by name and their arguments, as in `jaad(root, gap={"first": 30})`.
    """
    write_street(root, videos=3, seed=30, frames=(110, 130), split=(1, 1, 1))
    for fault, arguments in damage.items():
        FAULTS[fault](root, **arguments)
    return root


def _edit(path: Path, pattern: str, replacement: Any, count: int = 1) -> Path:
    text, found = re.subn(pattern, replacement, path.read_text("utf-8"), count=count)
    assert found, f"{pattern!r} is not in {path}"
    path.write_text(text, "utf-8")
    return path


def edit(
    root: Path, folder: str, pattern: str, replacement: Any, video: str = VIDEO, count: int = 1
) -> Path:
    """Replaces the first `count` matches of a pattern in one file, or all if 0."""
    return _edit(annotation_path(root, folder, video), pattern, replacement, count)


def truncate(root: Path, folder: str = "annotations", video: str = VIDEO) -> Path:
    """Cuts a file in half."""
    path = annotation_path(root, folder, video)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def doctype(root: Path, folder: str = "annotations", video: str = VIDEO) -> Path:
    """Prepends a DOCTYPE that defines an entity."""
    path = annotation_path(root, folder, video)
    return _edit(path, "^", '<!DOCTYPE a [<!ENTITY b "c">]>')


def unknown_tag(root: Path, name: str = "look", video: str = VIDEO) -> Path:
    """Sets the first behaviour tag of that name to `winking`."""
    path = annotation_path(root, "annotations", video)
    return _edit(path, f'(<attribute name="{name}">)[^<]*', r"\1winking")


def degenerate_box(root: Path, video: str = VIDEO) -> Path:
    """Sets the width of the first box to 0."""
    path = annotation_path(root, "annotations", video)
    return _edit(path, r'xbr="[^"]*" xtl="([^"]*)"', r'xbr="\1" xtl="\1"')


def stray_video(root: Path, subset: str = "default", split: str = "train") -> Path:
    """Adds a missing video to a split list."""
    path = root / "split_ids" / subset / f"{split}.txt"
    path.write_text(path.read_text() + "video_9999\n")
    return path


def remove_kind(root: Path, folder: str = "annotations_traffic") -> Path:
    """Removes one kind of annotation for all videos."""
    shutil.rmtree(root / folder)
    return root / folder


def remove_file(root: Path, folder: str = "annotations_traffic", video: str = VIDEO) -> Path:
    """Removes one kind of annotation for one video."""
    path = annotation_path(root, folder, video)
    path.unlink()
    return path


def gap(root: Path, first: int = 20, last: int = 24, video: str = VIDEO) -> Path:
    """Removes the boxes in frames `first` to `last` from all tracks, which is valid."""
    path = annotation_path(root, "annotations", video)
    frames = "|".join(map(str, range(first, last + 1)))
    return _edit(path, f'<box frame="({frames})".*?</box>', "", count=0)


FAULTS = {
    fault.__name__: fault
    for fault in (
        truncate,
        doctype,
        unknown_tag,
        degenerate_box,
        stray_video,
        remove_kind,
        remove_file,
        gap,
    )
}
