"""The datasets of intent: what reads each, and which of its videos are for what."""

import re
from collections.abc import Sequence
from pathlib import Path

from vidreason.core.errors import DataError, check_choice
from vidreason.core.files import data_root
from vidreason.intent.places import with_place
from vidreason.intent.windows import Windows, make_windows
from vidreason.scenes.boxes import read_boxes
from vidreason.scenes.jaad import read_jaad, read_splits
from vidreason.scenes.pie import read_pie
from vidreason.scenes.pie import splits as pie_splits
from vidreason.scenes.scene import Scene
from vidreason.scenes.stip import Views, read_stip
from vidreason.scenes.stip import splits as stip_splits

DATASETS = ("jaad", "pie", "stip", "stip-all-views", "stip-20fps", "boxes")
"""`stip` is its centre camera at 2 frames per second; `boxes` are tables of one's own."""

RATES = {"jaad": 30.0, "pie": 30.0, "stip": 2.0, "stip-all-views": 2.0, "stip-20fps": 20.0}
"""Frames per second that windows were cut from; those of `boxes` are known to its tables alone."""

_STIP_TEST_FROM = 251  # number of the first test video (RA-L 2020; the ICCVW 2017 split)
_STIP_VAL_EVERY = 5
_PIE_STRIDE = 6  # boxes: windows of the benchmark overlap by 0.6 on PIE, on JAAD by 0.8


def dataset_root(dataset: str, root: Path | str | None = None) -> Path:
    """The folder given, or else the dataset's own in `$VIDREASON_DATA`.

    Raises:
        DataError: Neither is known.
    """
    return Path(root) if root else data_root(dataset.partition("-")[0])


def read_split(
    dataset: str, root: Path, protocol: str, split: str | None, subset: str = "all"
) -> list[Scene]:
    """Scenes of one split; with subset `place` they have the place ahead as a track.

    Args:
        dataset: Name in `DATASETS`.
        root: Its folder.
        protocol: What will be asked; on JAAD, `stip` has a split of its own.
        split: `train`, `val` or `test`; None reads all videos.
        subset: As in `make_windows`.

    Raises:
        DataError: Data that cannot be read, or a protocol that they do not serve.
    """
    check_choice("dataset", dataset, DATASETS)
    if dataset.startswith("stip") and protocol != "stip":
        problem = f"{protocol!r} with {dataset!r}, which has no crossing points"
        raise DataError("protocol", problem, "take the protocol 'stip'")
    if dataset == "jaad":
        scenes = read_jaad(root)
        names = [scene.id for scene in scenes]
        official = {} if protocol == "stip" or not split else read_splits(root)
        videos: Sequence[str] = split_videos(protocol, official, names, split) if split else ()
    elif dataset == "pie":
        scenes = read_pie(root)
        videos = pie_splits([scene.id for scene in scenes])[split] if split else ()
    elif dataset == "boxes":
        scenes, split_of = read_boxes(root, protocol)
        videos = [name for name, part in split_of.items() if part == (split or part)]
        if not videos:
            mend = f"give some videos the split {split!r}"
            raise DataError(root / "videos.csv", f"has no video of split {split!r}", mend)
    else:
        views: Views = "all" if dataset == "stip-all-views" else "centre"
        scenes = read_stip(root, 20 if dataset == "stip-20fps" else 2, views)
        videos = stip_splits([scene.id for scene in scenes])[split] if split else ()
    chosen = [scene for scene in scenes if not split or scene.id in set(videos)]
    return [with_place(scene) for scene in chosen] if subset == "place" else chosen


def clips_folder(dataset: str, root: Path | str | None) -> Path:
    """Where the videos of a dataset lie, as `NAME.mp4`, if they are there."""
    return dataset_root(dataset, root) / ("JAAD_clips" if dataset == "jaad" else "videos")


def split_windows(
    dataset: str,
    scenes: Sequence[Scene],
    protocol: str,
    subset: str = "all",
    horizon: int = 30,
    stride: int = 0,
    observed: int = 0,
) -> Windows:
    """`make_windows` with the dataset's own stride; 0 leaves a choice to dataset and protocol.

    Of JAAD, bystanders without tags never cross; in tables of one's own nothing is known of whoever
    has none, so there `all` means `beh`.
    """
    if dataset == "boxes" and subset == "all":
        subset = "beh"
    if dataset == "pie" and protocol != "stip":
        stride = stride or _PIE_STRIDE
    return make_windows(scenes, protocol, subset, horizon, stride or None, observed or None)


def split_videos(
    protocol: str,
    official: dict[str, tuple[str, ...]],
    names: Sequence[str],
    split: str,
) -> tuple[str, ...]:
    """JAAD's videos of a split: the official lists, or by number for `stip`.

    The `stip` protocol has no validation set; every fifth of its training videos becomes one.
    """
    if protocol != "stip":
        return official[split]
    number = {name: int(re.sub(r"\D", "", name)) for name in names}
    part = {
        name: "test" if n >= _STIP_TEST_FROM else "train" if n % _STIP_VAL_EVERY else "val"
        for name, n in number.items()
    }
    return tuple(name for name in names if part[name] == split)
