"""PIE: reads XML of boxes, attributes and odometry into `Scene` objects.

Format: the README of github.com/aras62/PIE (Rasouli et al., ICCV 2019). Like JAAD's, the files come
from CVAT, but videos are longer, and vehicles, traffic lights, signs, crosswalks and stations have
tracks too.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vidreason.core.errors import DataError
from vidreason.scenes.cache import cached, content_key, read_each
from vidreason.scenes.cvat import attributes, box_numbers, code_of, read_xml, sizes, start_tags
from vidreason.scenes.cvat import named_values as values_of
from vidreason.scenes.scene import CROSS, KINDS, LABELS, LIGHTS, OCCLUSION, ODOMETRY, SIGNALS, Scene
from vidreason.scenes.scene import FACTS as JAAD_FACTS

FPS = 30.0
FOLDERS = {"annotations": "_annt", "annotations_attributes": "_attributes"}
VEHICLE = "annotations_vehicle"
SETS = {"train": (1, 2, 4), "val": (5, 6), "test": (3,)}
"""Set numbers of each split, which reproduce the counts of Kotseruba et al. (WACV 2021)."""

_KIND = {
    "pedestrian": "person",
    "vehicle": "vehicle",
    "traffic_light": "traffic_light",
    "sign": "sign",
    "crosswalk": "crosswalk",
    "transit_station": "station",
}
_NONE = "__undefined__"
# Vocabularies of the files and the codes of their words; -1 is unknown or not applicable.
_WORDS: dict[str, dict[str, int]] = {
    "occlusion": {word: i for i, word in enumerate(OCCLUSION)} | {str(i): i for i in range(3)},
    "cross": {word: i for i, word in enumerate(CROSS)} | {"crossing-irrelevant": -1},
    "action": {word: i for i, word in enumerate(LABELS["action"])} | {_NONE: -1},
    "look": {word: i for i, word in enumerate(LABELS["look"])} | {_NONE: -1},
    "gesture": {
        word: i
        for i, word in enumerate(
            (_NONE, "hand_ack", "hand_yield", "hand_rightofway", "other", "nod")
        )
    },
    "state": {word: i for i, word in enumerate(LIGHTS)} | {_NONE: -1},
}
_TAGS = {
    "pedestrian": ("occlusion", "cross", "action", "look", "gesture"),
    "traffic_light": ("state",),
}
FACTS: dict[str, tuple[str, ...] | None] = {
    "crossing": None,
    "crossing_point": None,
    "critical_point": None,
    "exp_start_point": None,
    "num_lanes": None,
    "age": ("child", "young", "adult", "senior"),
    "gender": ("n/a", "female", "male"),
    "signalized": ("n/a", "C", "S", "CS"),
    "traffic_direction": ("OW", "TW"),
}
_PERCENT = "intention_prob"
_FIX = "restore it as `vidreason data card pie` describes"


def splits(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Assigns videos to `train`, `val` and `test` by the number of their set."""
    return {split: tuple(n for n in names if int(n[3:5]) in sets) for split, sets in SETS.items()}


def read_pie(root: Path, cache: bool = True) -> list[Scene]:
    """Reads all videos under `root`, sorted by set and number.

    Args:
        root: Folder of PIE, with any part of its sets and videos.
        cache: Keep a cache in `root`, from which unchanged files are loaded the next time.

    Raises:
        DataError: There are no videos, or a file is missing, damaged or contradicts another.
    """
    if not (root / "annotations").is_dir():
        fix = "a PIE root contains annotations, annotations_attributes, annotations_vehicle"
        raise DataError(root / "annotations", "no such folder", fix)
    found = sorted((root / "annotations").glob("set[0-9][0-9]/video_*_annt.xml"))
    names = [f"{p.parent.name}/{p.name.removesuffix('_annt.xml')}" for p in found]
    if not names:
        raise DataError(
            root / "annotations", "contains no files such as set01/video_0001_annt.xml", _FIX
        )

    def read() -> list[Scene]:
        return read_each("PIE", names, lambda name: read_video(root, name))

    if not cache:
        return read()
    paths = [annotation_path(root, folder, name) for name in names for folder in FOLDERS]
    paths += [p for name in names if (p := annotation_path(root, VEHICLE, name)).exists()]
    for path in paths:
        if not path.is_file():
            raise DataError(path, "no such file", _FIX)
    parts = ("pie.py", "cvat.py", "scene.py", "cache.py")
    code = [Path(__file__).with_name(part) for part in parts]
    return cached(root / ".vidreason" / "scenes.npz", content_key(paths, code), read)


def annotation_path(root: Path, folder: str, video: str) -> Path:
    """Returns the path of one of the three files of a video such as `set01/video_0001`."""
    return root / folder / f"{video}{FOLDERS.get(folder, '_obd')}.xml"


def read_video(root: Path, video: str) -> Scene:
    """Reads the files of one video; the vehicle file is optional.

    A crossing point in a frame without a box is moved to the preceding box, with a warning, since
    windows end at boxes.

    Raises:
        DataError: A file is missing, damaged or contradicts another; names the place.
    """
    path = annotation_path(root, "annotations", video)
    meta, _, body = read_xml(path).partition("</meta>")
    length, width, height = sizes(path, meta)
    ids, labels, offsets, frame, box, tags = _tracks(path, body, length)
    facts = _facts(annotation_path(root, "annotations_attributes", video), ids)
    _move_points(path, facts["crossing_point"], ids, offsets, frame)
    vehicle = annotation_path(root, VEHICLE, video)
    gesture = tags["gesture"]
    hand = np.where(gesture < 5, gesture, 0)
    nod = np.where(gesture < 0, -1, gesture == 5)
    unknown = np.full(len(frame), -1, np.int8)
    return Scene(
        id=video,
        fps=FPS,
        width=width,
        height=height,
        length=length,
        attributes={},
        ego_action=np.full(length, -1, np.int8),
        signals=dict.fromkeys(SIGNALS, np.full(length, -1, np.int8)),
        track_ids=tuple(ids),
        kind=np.array([KINDS.index(_KIND[label]) for label in labels], np.int8),
        facts=facts,
        offsets=offsets,
        frame=frame,
        box=box,
        cues={"occlusion": tags["occlusion"], "light": tags["state"]},
        labels={
            "cross": tags["cross"],
            "action": tags["action"],
            "look": tags["look"],
            "nod": nod.astype(np.int8),
            "hand_gesture": hand.astype(np.int8),
            "reaction": unknown,
        },
        odometry=_odometry(vehicle, length) if vehicle.exists() else _no_odometry(length),
    )


def _tracks(
    path: Path, body: str, length: int
) -> tuple[list[str], list[str], np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    ids: list[str] = []
    known: set[str] = set()
    labels: list[str] = []
    counts: list[int] = []
    numbers: list[str] = []
    rows: list[int] = []
    blocks: dict[tuple[str, str], int] = {}  # label and tags of a box -> row of `coded`
    coded: list[list[int]] = []
    names: list[str] = []
    layout: list[str] | None = None
    outside = 0
    for head, boxes in start_tags(body, "track"):
        label = attributes(head).get("label", "")
        place = f"track {len(ids) + 1}"
        if label not in _KIND:
            raise DataError(path, f"label={label!r} is not one of {', '.join(_KIND)}", _FIX, place)
        first, name = len(rows), ""
        for box_head, block in start_tags(boxes, "box"):
            parts = box_head.split('"')
            if layout is None:
                layout = parts[0::2]
                outside = next((i for i, n in enumerate(layout) if n.strip(" =") == "outside"), -1)
            elif parts[0::2] != layout:
                raise DataError(
                    path, f"box attributes differ between boxes: {box_head!r}", _FIX, place
                )
            row = blocks.get((label, block))
            if row is None:
                values = values_of(block)
                row = blocks[label, block] = len(coded)
                tags = _TAGS.get(label, ())
                where = f"track {values.get('id', len(ids) + 1)}"
                coded.append([_code(path, tag, values, tag in tags, where) for tag in _WORDS])
                names.append(values.get("id", ""))
            if name and names[row] != name:
                problem = f"boxes refer to {name!r} and {names[row]!r}, expected one id"
                raise DataError(path, problem, _FIX, place)
            name = names[row]
            # CVAT also writes a box, marked as outside, where a track is interrupted.
            if outside >= 0 and parts[2 * outside + 1] == "1":
                continue
            numbers += parts[1::2]
            rows.append(row)
        if len(rows) == first:
            continue
        if not name or name in known:
            problem = f"duplicate track {name!r}" if name else "has no id"
            raise DataError(path, problem, _FIX, place)
        known.add(name)
        ids.append(name)
        labels.append(label)
        counts.append(len(rows) - first)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    frame, box = box_numbers(path, layout or [], numbers, ids, offsets, length)
    table = np.array(coded or np.empty((0, len(_WORDS))), np.int8).reshape(-1, len(_WORDS))
    columns = table[np.array(rows, np.int64)].T
    return ids, labels, offsets, frame, box, dict(zip(_WORDS, columns, strict=True))


def _code(path: Path, tag: str, values: dict[str, str], applies: bool, place: str) -> int:
    if not applies:
        return -1
    word = values.get(tag, "(missing)")
    if word not in _WORDS[tag]:
        problem = f"{tag}={word!r} is not one of {', '.join(_WORDS[tag])}"
        raise DataError(path, problem, _FIX, place)
    return _WORDS[tag][word]


def _facts(path: Path, ids: list[str]) -> dict[str, np.ndarray]:
    names = dict.fromkeys([*JAAD_FACTS, *FACTS, _PERCENT, "behaviour"])
    facts = {name: np.full(len(ids), -1, np.int32) for name in names}
    facts["behaviour"][:] = 0
    index = {name: k for k, name in enumerate(ids)}
    for head, _ in start_tags(read_xml(path), "pedestrian"):
        values = attributes(head)
        k = index.get(values.get("id", ""))
        if k is None:
            continue
        facts["behaviour"][k] = 1
        place = f"pedestrian {values['id']}"

        for name, words in FACTS.items():
            if words:
                facts[name][k] = code_of(path, name, values.get(name, "(missing)"), words, place)
            else:
                facts[name][k] = _number(
                    path, values, name, -1, 1 if name == "crossing" else 10_000_000
                )
        facts[_PERCENT][k] = round(100 * _number(path, values, _PERCENT, 0, 1))
    return facts


def _number(path: Path, values: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        value = float(values.get(name, "(missing)"))
    except ValueError:
        value = math.nan
    whole = name != _PERCENT
    if not low <= value <= high or (whole and value != int(value)):
        kind = "an integer" if whole else "a number"
        problem = f"{name}={values.get(name)!r} is not {kind} from {low:g} to {high:g}"
        raise DataError(path, problem, _FIX, f"pedestrian {values['id']}")
    return value


def _move_points(
    path: Path, point: np.ndarray, ids: list[str], offsets: np.ndarray, frame: np.ndarray
) -> None:
    """Moves crossing points (K,), in place, to frames in which their tracks have a box."""
    moved = []
    for k in np.flatnonzero(point >= 0):
        frames = frame[offsets[k] : offsets[k + 1]]
        at = max(int(np.searchsorted(frames, point[k], side="right")) - 1, 0)
        if frames[at] != point[k]:
            moved.append(ids[k])
            point[k] = frames[at]
    if moved:
        problem = f"moved {len(moved)} crossing points without a box to the preceding box"
        warnings.warn(f"{path}: {problem} ({', '.join(moved[:3])})", stacklevel=2)


def _no_odometry(length: int) -> dict[str, np.ndarray]:
    return {name: np.full(length, np.nan, np.float32) for name in ODOMETRY}


def _odometry(path: Path, length: int) -> dict[str, np.ndarray]:
    found = _no_odometry(length)
    sources = {"speed": ("OBD_speed", 1 / 3.6), "heading": ("heading_angle", math.pi / 180)}
    for head, _ in start_tags(read_xml(path), "frame"):
        values = attributes(head)
        number = values.get("id", "(missing)")
        if not number.isdecimal() or int(number) >= length:
            raise DataError(
                path, f"frame id={number!r} is not an integer from 0 to {length - 1}", _FIX
            )
        for name, (source, unit) in sources.items():
            try:
                value = float(values.get(source, "nan")) * unit
            except ValueError:
                value = math.inf
            if math.isinf(value):
                problem = f"{source}={values[source]!r} is not a number"
                raise DataError(path, problem, _FIX, f"frame {number}")
            found[name][int(number)] = value
    return found
