"""JAAD 2.0: reads five kinds of annotation XML into `Scene` objects.

Format: the README of github.com/ykotseruba/JAAD. Three properties of the files shape the code:
appearance tracks of bystanders have scrambled ids, so they are joined on `old_id`; tracks have
gaps, so a row number is not a frame number; and the tags of a track rarely change from box to box,
so each distinct block of tags is parsed only once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.scenes.cache import cached, content_key, read_each
from vidreason.scenes.cvat import (
    attributes,
    box_numbers,
    code_of,
    content,
    named_values,
    read_xml,
    repeated_tags,
    sizes,
    start_tags,
)
from vidreason.scenes.scene import (
    APPEARANCE,
    EGO_ACTIONS,
    FACTS,
    KINDS,
    LABELS,
    OCCLUSION,
    SIGNALS,
    TRAFFIC_LIGHT,
    Scene,
)

FPS = 29.97
FOLDERS = {
    "annotations": "",
    "annotations_attributes": "_attributes",
    "annotations_appearance": "_appearance",
    "annotations_traffic": "_traffic",
    "annotations_vehicle": "_vehicle",
}
SPLITS = ("default", "high_visibility", "all_videos")

_KIND = {"pedestrian": "person", "ped": "person", "people": "group"}
_FLAG = ("0", "1")
_TAGS = {"occlusion": OCCLUSION, **LABELS}
_FIX = "fix the file, or restore it with `vidreason data get jaad` into another folder"


class _Tracks(NamedTuple):
    ids: list[str]
    old_ids: list[str]
    labels: list[str]
    offsets: np.ndarray  # (K + 1,)
    frame: np.ndarray  # (L,) int32
    box: np.ndarray  # (L, 4) float32
    tags: np.ndarray  # (7, L) int8, rows by `_TAGS`


def video_names(root: Path) -> list[str]:
    """Returns the sorted names of the videos with box annotations under `root`.

    Raises:
        DataError: `root` or one of the five annotation folders is missing.
    """
    if not root.is_dir():
        raise DataError(
            root, "no such folder", "download it with `vidreason data get jaad --root DIR`"
        )
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            raise DataError(
                root / folder,
                "annotation folder is missing",
                "restore it with `vidreason data get jaad`; a JAAD root contains "
                + ", ".join(FOLDERS),
            )
    names = sorted(p.stem for p in (root / "annotations").glob("video_*.xml"))
    if not names:
        raise DataError(root / "annotations", "contains no video_*.xml", _FIX)
    return names


def annotation_path(root: Path, folder: str, video: str) -> Path:
    """Returns the path of one of the five annotation files of a video."""
    return root / folder / f"{video}{FOLDERS[folder]}.xml"


def read_splits(root: Path, subset: str = "default") -> dict[str, tuple[str, ...]]:
    """Returns the official `train`, `val` and `test` videos of one of the `SPLITS`.

    Raises:
        DataError: A list is missing or empty, or has duplicates or videos without annotations.
    """
    known = {path.stem for path in (root / "annotations").glob("video_*.xml")}
    splits: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = root / "split_ids" / subset / f"{split}.txt"
        try:
            names = path.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(path, f"split list cannot be read ({error})", _FIX) from None
        if not names:
            raise DataError(path, "lists no videos", _FIX)
        for line, name in enumerate(names, 1):
            if name not in known:
                raise DataError(
                    path,
                    f"lists {name!r}, which has no annotations",
                    _FIX,
                    f"line {line}",
                )
            if name in seen:
                problem = f"lists {name!r}, which is already in {seen[name]}"
                raise DataError(path, problem, _FIX, f"line {line}")
            seen[name] = split
        splits[split] = tuple(names)
    return splits


def read_jaad(root: Path, cache: bool = True) -> list[Scene]:
    """Reads all videos under `root`, sorted by name.

    Args:
        root: Folder of JAAD, as made by `vidreason data get jaad`.
        cache: Keep a cache in `root`, from which unchanged files are loaded the next time.

    Raises:
        DataError: A file is missing, damaged or contradicts another; names the first.
    """
    names = video_names(root)

    def read() -> list[Scene]:
        return read_each("JAAD", names, lambda name: read_video(root, name))

    if not cache:
        return read()
    paths = [annotation_path(root, folder, name) for name in names for folder in FOLDERS]
    for path in paths:
        if not path.is_file():
            raise DataError(path, "no such file", _FIX)
    parts = ("jaad.py", "cvat.py", "scene.py", "cache.py")
    code = [Path(__file__).with_name(part) for part in parts]
    return cached(root / ".vidreason" / "scenes.npz", content_key(paths, code), read)


def read_video(root: Path, video: str, partial: bool = False) -> Scene:
    """Reads the five files of one video.

    Args:
        root: Folder of JAAD.
        video: Name of the video, such as `video_0001`.
        partial: Set values from missing files to unknown (-1) instead of raising; the boxes are
            always required.

    Raises:
        DataError: A file is missing, damaged or contradicts another; names the place.
    """
    path = annotation_path(root, "annotations", video)
    text = read_xml(path)
    meta, _, body = text.partition("</meta>")
    length, width, height = sizes(path, meta)
    tracks = _read_tracks(path, body, length)
    kind = np.array([KINDS.index(_KIND[label]) for label in tracks.labels], np.int8)
    behaviour = np.array([label == "pedestrian" for label in tracks.labels], bool)
    tags = dict(zip(_TAGS, tracks.tags, strict=True))
    occlusion = tags.pop("occlusion")

    def absent(folder: str) -> bool:
        return partial and not annotation_path(root, folder, video).exists()

    def source(folder: str) -> Path:
        return annotation_path(root, folder, video)

    unknown = np.full(length, -1, np.int8)
    road_type, signals = "", dict.fromkeys(SIGNALS, unknown)
    if not absent("annotations_traffic"):
        road_type, signals = _read_traffic(source("annotations_traffic"), length)
    ego_action = unknown
    if not absent("annotations_vehicle"):
        ego_action = _read_vehicle(source("annotations_vehicle"), length)
    facts = {name: np.full(len(tracks.ids), -1, np.int32) for name in FACTS}
    if not absent("annotations_attributes"):
        facts = _read_facts(source("annotations_attributes"), tracks.ids, behaviour)
    appearance = dict.fromkeys(APPEARANCE, np.full(len(tracks.frame), -1, np.int8))
    if not absent("annotations_appearance"):
        appearance = _read_appearance(source("annotations_appearance"), tracks)
    return Scene(
        id=video,
        fps=FPS,
        width=width,
        height=height,
        length=length,
        attributes={n: content(meta, n) for n in ("time_of_day", "weather", "location")}
        | {"road_type": road_type},
        ego_action=ego_action,
        signals=signals,
        track_ids=tuple(tracks.ids),
        kind=kind,
        facts=facts | {"behaviour": behaviour.astype(np.int32)},
        offsets=tracks.offsets,
        frame=tracks.frame,
        box=tracks.box,
        cues={"occlusion": occlusion} | appearance,
        labels=tags,
    )


def _read_tracks(path: Path, body: str, length: int) -> _Tracks:
    ids: list[str] = []
    old_ids: list[str] = []
    labels: list[str] = []
    counts: list[int] = []
    numbers: list[str] = []
    tags: list[int] = []
    blocks: dict[str, int] = {}  # tag block -> row of `coded`
    coded: list[tuple[int, ...]] = []
    owners: list[tuple[str, str]] = []
    layout: list[str] | None = None
    for head, boxes in start_tags(body, "track"):
        label = attributes(head).get("label", "")
        place = f"track {len(ids) + 1}"
        if label not in _KIND:
            problem = f"label={label!r} is not one of {', '.join(_KIND)}"
            raise DataError(path, problem, _FIX, place)
        first = len(tags)
        for box_head, block in start_tags(boxes, "box"):
            parts = box_head.split('"')
            if layout is None:
                layout = parts[0::2]
            elif parts[0::2] != layout:
                raise DataError(
                    path, f"box attributes differ between boxes: {box_head!r}", _FIX, place
                )
            numbers += parts[1::2]
            row = blocks.get(block)
            if row is None:
                row = blocks[block] = len(coded)
                values = named_values(block)
                known = _TAGS if label == "pedestrian" else {"occlusion": OCCLUSION}
                number = attributes(box_head).get("frame")
                where = f"track {values.get('id', len(ids) + 1)}, frame {number}"
                coded.append(
                    tuple(
                        code_of(path, name, values.get(name, "(missing)"), words, where)
                        if name in known
                        else -1
                        for name, words in _TAGS.items()
                    )
                )
                owners.append((values.get("id", ""), values.get("old_id", "")))
            tags.append(row)
        owner = {owners[row] for row in set(tags[first:])}
        if len(owner) != 1 or not all(next(iter(owner))):
            problem = f"boxes refer to {len(owner)} pedestrians, expected one"
            raise DataError(path, problem, _FIX, place)
        (name, old_id), *_ = owner
        if name in ids:
            raise DataError(path, f"duplicate track {name!r}", _FIX, place)
        ids.append(name)
        old_ids.append(old_id)
        labels.append(label)
        counts.append(len(tags) - first)

    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    frame, box = box_numbers(path, layout or [], numbers, ids, offsets, length)
    codes = np.array(coded or np.empty((0, len(_TAGS))), np.int8).reshape(-1, len(_TAGS))
    columns = np.ascontiguousarray(codes[tags].T) if tags else np.empty((len(_TAGS), 0), np.int8)
    return _Tracks(ids, old_ids, labels, offsets, frame, box, columns)


def _read_facts(path: Path, ids: list[str], behaviour: np.ndarray) -> dict[str, np.ndarray]:
    facts = {name: np.full(len(ids), -1, np.int32) for name in FACTS}
    index = {name: k for k, name in enumerate(ids)}
    described = np.zeros(len(ids), bool)
    for head, _ in start_tags(read_xml(path), "pedestrian"):
        values = attributes(head)
        k = index.get(values.get("id", ""))
        if k is None:
            continue
        described[k] = True
        for name, words in FACTS.items():
            value = values.get(name, "(missing)")
            place = f"pedestrian {values['id']}"
            try:
                facts[name][k] = code_of(path, name, value, words, place) if words else int(value)
            except (ValueError, OverflowError):
                problem = f"{name}={value!r} is not an integer"
                raise DataError(path, problem, _FIX, place) from None
    if (missing := behaviour & ~described).any():
        problem = "behaviour pedestrian has no attributes"
        raise DataError(path, problem, _FIX, f"pedestrian {ids[int(missing.argmax())]}")
    return facts


def _read_appearance(path: Path, tracks: _Tracks) -> dict[str, np.ndarray]:
    flags = np.full((len(tracks.frame), len(APPEARANCE)), -1, np.int8)
    index = {name: k for k, name in enumerate(tracks.old_ids)}
    for head, boxes in start_tags(read_xml(path), "track"):
        # The ids of bystanders are scrambled in these files; old_id is not.
        k = index.get(attributes(head).get("old_id", ""))
        if k is None:
            continue
        frames, rows, distinct = repeated_tags(boxes, "box", "frame")
        if not frames:
            continue
        coded = [
            [
                code_of(
                    path,
                    name,
                    row.get(name, "(missing)"),
                    _FLAG,
                    f"track {tracks.ids[k]}",
                )
                for name in APPEARANCE
            ]
            for row in distinct
        ]
        try:
            frame = np.fromiter(map(int, frames), np.int64, len(frames))
            if (np.diff(frame) <= 0).any():
                raise ValueError("they do not increase")
        except (ValueError, OverflowError) as error:
            problem = f"frames must be increasing integers ({error})"
            raise DataError(path, problem, _FIX, f"track {tracks.ids[k]}") from None
        begin, end = tracks.offsets[k : k + 2]
        _, ours, theirs = np.intersect1d(
            tracks.frame[begin:end], frame, assume_unique=True, return_indices=True
        )
        flags[begin + ours] = np.array(coded, np.int8)[np.array(rows)[theirs]]
    return dict(zip(APPEARANCE, np.ascontiguousarray(flags.T), strict=True))


def _frame_codes(
    path: Path, text: str, length: int, names: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    numbers, rows, distinct = repeated_tags(text, "frame", "id")
    if numbers != [str(i) for i in range(length)]:
        problem = f"describes {len(numbers)} frames, expected frames 0 to {length - 1} in order"
        raise DataError(path, problem, _FIX)
    codes = {}
    for name, words in names.items():
        coded = [
            code_of(
                path,
                name,
                row.get(name, "(missing)"),
                words,
                f"frame {numbers[rows.index(i)]}",
            )
            for i, row in enumerate(distinct)
        ]
        codes[name] = np.array(coded, np.int8)[rows]
    return codes


def _read_traffic(path: Path, length: int) -> tuple[str, dict[str, np.ndarray]]:
    text = read_xml(path)
    words = {name: TRAFFIC_LIGHT if name == "traffic_light" else _FLAG for name in SIGNALS}
    return content(text, "road_type"), _frame_codes(path, text, length, words)


def _read_vehicle(path: Path, length: int) -> np.ndarray:
    return _frame_codes(path, read_xml(path), length, {"action": EGO_ACTIONS})["action"]
