"""The datasets for intent prediction: their readers and splits."""

import re
from collections.abc import Mapping, Sequence
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
"""`stip` is the centre camera at 2 frames per second; `boxes` is for your own tables."""

RATES = {"jaad": 30.0, "pie": 30.0, "stip": 2.0, "stip-all-views": 2.0, "stip-20fps": 20.0}
"""Frame rate of the windows in frames per second; that of `boxes` is in its tables."""

_SPLITS = ("train", "val", "test")
_STIP_TEST_FROM = 251  # number of the first test video (RA-L 2020; split of ICCVW 2017)
_STIP_VAL_EVERY = 5
_PIE_STRIDE = 6  # boxes: benchmark windows overlap by 0.6 on PIE and by 0.8 on JAAD


def dataset_root(dataset: str, root: Path | str | None = None) -> Path:
    """Returns `root`, or the dataset's folder in `$VIDREASON_DATA` if it is not given.

    Raises:
        DataError: If neither is set.
    """
    return Path(root) if root else data_root(dataset.partition("-")[0])


def read_split(
    dataset: str, root: Path, protocol: str, split: str | None, subset: str = "all"
) -> list[Scene]:
    """Reads the scenes of one split; with subset `place`, the place ahead is an added track.

    Args:
        dataset: Name from `DATASETS`.
        root: Dataset folder.
        protocol: Evaluation protocol; on JAAD, `stip` has its own split.
        split: `train`, `val` or `test`; None reads all videos.
        subset: Subset of the targets, as in `make_windows`.

    Raises:
        DataError: If the data cannot be read, or the dataset does not support the protocol.
    """
    check_choice("dataset", dataset, DATASETS)
    if dataset.startswith("stip") and protocol != "stip":
        problem = f"{protocol!r} with {dataset!r}, which has no crossing points"
        raise DataError("protocol", problem, "use the protocol 'stip'")
    if split is not None:
        check_choice("split", split, _SPLITS)
    scenes, videos = _read(dataset, root, protocol)
    if split is not None:
        if dataset == "boxes" and not videos[split]:
            fix = f"assign some videos to the split {split!r}"
            raise DataError(root / "videos.csv", f"has no video of split {split!r}", fix)
        scenes = [scene for scene in scenes if scene.id in set(videos[split])]
    return [with_place(scene) for scene in scenes] if subset == "place" else scenes


def _read(
    dataset: str, root: Path, protocol: str
) -> tuple[list[Scene], Mapping[str, Sequence[str]]]:
    """Reads all scenes of a dataset, and the names of the videos of each split."""
    if dataset == "jaad":
        scenes = read_jaad(root)
        names = [scene.id for scene in scenes]
        official = {} if protocol == "stip" else read_splits(root)
        return scenes, {part: split_videos(protocol, official, names, part) for part in _SPLITS}
    if dataset == "pie":
        scenes = read_pie(root)
        return scenes, pie_splits([scene.id for scene in scenes])
    if dataset == "boxes":
        scenes, split_of = read_boxes(root, protocol)
        return scenes, {part: [v for v, of in split_of.items() if of == part] for part in _SPLITS}
    assert dataset.startswith("stip"), f"{dataset} has no reader"
    views: Views = "all" if dataset == "stip-all-views" else "centre"
    scenes = read_stip(root, 20 if dataset == "stip-20fps" else 2, views)
    return scenes, stip_splits([scene.id for scene in scenes])


def clips_folder(dataset: str, root: Path | str | None) -> Path:
    """Returns the folder for the videos `NAME.mp4` of a dataset; it may be missing."""
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
    """Calls `make_windows` with the stride of the dataset; 0 selects the default.

    JAAD's bystanders have no tags but never cross. In your own tables, pedestrians without tags
    have no known label, so that `all` means `beh` for `boxes`.
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
    """Returns the JAAD videos of a split: the official lists, or by video number for `stip`.

    The `stip` protocol has no validation set; every fifth training video is used for it.
    """
    if protocol != "stip":
        return official[split]
    number = {name: int(re.sub(r"\D", "", name)) for name in names}
    part = {
        name: "test" if n >= _STIP_TEST_FROM else "train" if n % _STIP_VAL_EVERY else "val"
        for name, n in number.items()
    }
    return tuple(name for name in names if part[name] == split)
