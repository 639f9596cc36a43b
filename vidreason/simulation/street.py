"""Annotation of simulated streets in the layout of JAAD 2.0.

`world.simulate` gives positions in metres; this module projects them into the camera and annotates
them as JAAD's annotators do.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.scenes.jaad import FOLDERS, SPLITS, annotation_path
from vidreason.scenes.scene import APPEARANCE, LABELS, OCCLUSION, ORIENTATION, TRAFFIC_LIGHT
from vidreason.simulation.world import CAR, CROSS, HEIGHT, WIDTH, Street, drift, simulate

FOLLOWS = 30, 80  # metres; the maximum distance of annotation is drawn per person in this range
SHORTEST = 12  # frames, minimum length of a track
SUFFIX = {"pedestrian": "b", "ped": "", "people": "p"}  # of track ids, by label
_TAGS = ("look", "reaction", "action", "cross", "hand_gesture", "occlusion", "nod")
_DATE = "2000-01-01 00:00:00.000000+00:00"


class Track(NamedTuple):
    """One annotated track of n boxes.

    Attributes:
        label: Key of `SUFFIX`.
        id: Identifier in the attribute file.
        old_id: Identifier in the appearance file.
        frame: (n,) frame numbers, from 0.
        box: (n, 4) whole pixels: x1, y1, x2, y2.
        tags: n words per tag: occlusion and, for a `pedestrian`, the tags of `LABELS`.
        flags: (n, 24) 0 or 1, columns as in `APPEARANCE`; (n, 0) for a group.
        facts: Attributes of a `pedestrian`, otherwise empty.
    """

    label: str
    id: str
    old_id: str
    frame: np.ndarray
    box: np.ndarray
    tags: dict[str, list[str]]
    flags: np.ndarray
    facts: dict[str, Any]


def view(street: Street) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projects P people into the camera in F frames.

    Returns:
        Boxes (F, P, 4) in whole pixels, clipped to the image; whether the person is annotated, that
        is in view and near enough, (F, P) bool; occlusion by people and cars in front (F, P), index
        into `OCCLUSION`.
    """
    who, (x, z) = street.people, np.moveaxis(street.position, -1, 0)
    rng = np.random.default_rng((street.place.seed, street.place.index, 1))
    foot, head = street.project(x, 0, z), street.project(x, who.height, z)
    tall = foot[..., 1] - head[..., 1]
    # Shoulders are wider than a chest is deep; in side view, legs and arms swing.
    frontal, sideways = abs(np.cos(street.heading)), abs(np.sin(street.heading))
    swing = abs(np.sin(street.stride / 2)) * np.minimum(street.speed, 1.5)
    half = tall * (0.16 * frontal + sideways * (0.11 + 0.09 * swing))
    whole = np.concatenate([head, foot], axis=-1) + half[..., None] * [-1, 0, 1, 0]
    whole += 0.008 * tall[..., None] * drift(rng, len(x), (x.shape[1], 4), 12)
    box = np.rint(np.clip(whole, 0, [WIDTH, HEIGHT] * 2))
    size = box[..., 2:] - box[..., :2]
    area, depth = size.prod(-1), z - street.ego_z[:, None]
    shown = (depth > 1) & (area > 0.7 * half * tall) & (size > (4, 18)).all(-1)
    late = np.where(rng.random(len(who.party)) < 0.3, rng.uniform(0, 0.5, len(who.party)), 0)
    followed = depth < rng.uniform(*FOLLOWS, len(who.party))
    followed &= np.arange(len(x))[:, None] >= late * len(x)

    cars, car_depth = _car_boxes(street)
    other = np.concatenate([box, cars], axis=1)
    corner = np.minimum(box[:, :, None, 2:], other[:, None, :, 2:])
    corner -= np.maximum(box[:, :, None, :2], other[:, None, :, :2])
    covered = np.maximum(corner, 0).prod(-1) / np.maximum(area, 1)[:, :, None]
    drawn = np.concatenate([shown, car_depth > 1], axis=1)
    far = np.concatenate([depth, car_depth], axis=1)
    in_front = drawn[:, None, :] & (far[:, None, :] < depth[:, :, None] - 0.2)
    worst = np.max(covered * in_front, axis=2)
    return box, shown & followed, (worst > 0.25) * 1 + (worst > 0.75)


def _car_boxes(street: Street) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (F, A, 4) of other cars, pixels, and depths (F, A) of near ends, metres."""
    (x, z), (wide, high, long) = np.moveaxis(street.cars, -1, 0), CAR
    corners = [
        street.project(x + side * wide / 2, y, z + depth)
        for side in (-1, 1)
        for y in (0.2, high)
        for depth in (0, long)
    ]
    box = np.concatenate([np.minimum.reduce(corners), np.maximum.reduce(corners)], -1)
    return box, z - street.ego_z[:, None]


def annotate(street: Street) -> list[Track]:
    """Returns the annotated tracks: pedestrians with behaviour, then bystanders, then groups."""
    who, (box, seen, occlusion) = street.people, view(street)
    ray = np.arctan2(street.position[..., 0], street.position[..., 1] - street.ego_z[:, None])
    quarter = np.rint((street.heading - ray) / (np.pi / 2)).astype(int) % 4
    pose = ("pose_back", "pose_right", "pose_front", "pose_left")  # by quarter turns from the ray
    turned = np.array([[name == pose[q] for name in ORIENTATION] for q in range(4)], np.int8)
    tracks: list[Track] = []
    for label, suffix in SUFFIX.items():
        ones = np.flatnonzero(who.label == label)
        units = [ones] if label == "people" else list(ones[:, None])
        units = [unit for unit in units if seen[:, unit].any(1).sum() >= SHORTEST]
        for number, unit in enumerate(units, 1):
            frame, first = np.flatnonzero(seen[:, unit].any(1)), unit[0]
            there = np.ix_(frame, unit)
            drawn = seen[there][..., None]
            low = np.where(drawn, box[there][..., :2], np.inf).min(1)
            high = np.where(drawn, box[there][..., 2:], 0).max(1)
            hidden = np.where(seen[there], occlusion[there], 2).min(1)
            tags = {"occlusion": [OCCLUSION[i] for i in hidden]}
            flags, facts = np.empty((len(frame), 0), np.int8), dict[str, Any]()
            if label != "people":
                outfit = np.tile(who.outfit[first], (len(frame), 1))
                flags = np.concatenate([turned[quarter[frame, first]], outfit], axis=1)
            if label == "pedestrian":
                facts = _facts(street, first, frame)
                for name, words in LABELS.items():
                    tags[name] = [words[i] for i in street.behaviour[name][frame, first]]
            old_id = label if len(units) == 1 and suffix else f"{label}{number}"
            name = f"0_{street.place.index}_{number}{suffix}"
            tracks.append(
                Track(label, name, old_id, frame, np.hstack([low, high]), tags, flags, facts)
            )
    return tracks


def _facts(street: Street, person: int, frame: np.ndarray) -> dict[str, Any]:
    place, who = street.place, street.people
    crossing = frame[street.behaviour["cross"][frame, person] == 1]
    if crossing.size:
        # As in JAAD, there is no crossing point if the track begins on the road.
        point = int(crossing[0]) if crossing[0] > frame[0] else -1
        verdict, decision = 1, int(street.decided[person])
    else:
        verdict = 0 if who.goal[person] == CROSS else -1
        # With intent but no crossing, the point is near the end; without intent there is none.
        point = int(frame[-3]) if verdict == 0 else -1
        decision = int(frame[len(frame) // 2])
    return {
        "age": who.age[person],
        "crossing": verdict,
        "crossing_point": point,
        "decision_point": decision,
        "designated": "D" if place.zebra else "ND",
        "gender": who.gender[person],
        "group_size": int((who.party == who.party[person]).sum()),
        "intersection": "yes" if place.intersection else "no",
        "motion_direction": ("LONG", "n/a", "LAT")[who.goal[person]],
        "num_lanes": place.lanes,
        "signalized": "n/a" if not place.zebra else "S" if place.light.any() else "NS",
        "traffic_direction": "OW" if place.one_way else "TW",
    }


def _xml(tag: str, content: str = "", **attributes: Any) -> str:
    """Formats an element as ElementTree serialises it; no value here needs escaping."""
    head = "".join([tag, *[f' {name}="{value}"' for name, value in attributes.items()]])
    return f"<{head}>{content}</{tag}>" if content else f"<{head} />"


@lru_cache(4096)  # tags rarely change from one box to the next
def _attributes(tags: tuple[tuple[str, str], ...]) -> str:
    return "".join(_xml("attribute", value, name=name) for name, value in tags)


def _meta(street: Street, video: str) -> str:
    place, words, labels = street.place, LABELS | {"occlusion": OCCLUSION}, ""
    behaviour = ("action", "nod", "look", "hand_gesture", "reaction", "cross")
    for label in SUFFIX:
        names = [*behaviour * (label == "pedestrian"), "occlusion"]
        lines = ["@text=id:", "@text=old_id:"]
        lines += [f"~select={name}:{','.join(words[name])}" for name in names]
        listed = _xml("attributes", "".join(_xml("attribute", line) for line in lines))
        labels += _xml("label", _xml("name", label) + listed)
    span = {"id": 1, "start": 0, "stop": place.length - 1, "url": "street"}
    parts = {
        "id": 1,
        "name": video,
        "size": place.length,
        "mode": "interpolation",
        "overlap": 5,
        "bugtracker": "",
        "flipped": False,
        "created": _DATE,
        "updated": _DATE,
        "source": f"data/{video}.mp4",
        "labels": labels,
        "segments": _xml("segment", _elements(span)),
        "owner": _elements({"username": "street", "email": "street@localhost"}),
        "original_size": _elements({"width": WIDTH, "height": HEIGHT}),
        "video_attributes": _elements(
            {"time_of_day": place.time_of_day, "weather": place.weather, "location": "street"}
        ),
    }
    return _xml("version", "1.1") + _xml(
        "meta", _xml("task", _elements(parts)) + _xml("dumped", _DATE)
    )


def _elements(parts: dict[str, Any]) -> str:
    return "".join(_xml(name, str(value)) for name, value in parts.items())


def _frames(street: Street) -> tuple[str, str]:
    """Returns the frame elements of the traffic file and of the vehicle file."""
    place, ahead = street.place, street.place.spot - street.ego_z
    near = (ahead > 2) & (ahead < 60)
    words = [TRAFFIC_LIGHT[i] for i in place.light * near]
    traffic = [
        _xml(
            "frame",
            id=t,
            ped_crossing=int(near[t] and place.zebra),
            ped_sign=int(near[t] and place.ped_sign),
            stop_sign=int(near[t] and place.stop_sign),
            traffic_light=word,
        )
        for t, word in enumerate(words)
    ]
    speed, push = street.ego_speed, street.ego_acceleration
    cases = {
        "stopped": speed < 0.3,
        "decelerating": push < -0.4,
        "accelerating": push > 0.4,
        "moving_slow": speed < 4,
    }
    action = np.select(list(cases.values()), list(cases), "moving_fast")
    vehicle = [_xml("frame", action=word, id=t) for t, word in enumerate(action)]
    return "".join(traffic), "".join(vehicle)


def write_video(root: Path, street: Street) -> str:
    """Writes the annotation files of one video.

    Args:
        root: Dataset folder with JAAD's subfolders, which must exist.
        street: Simulated street.

    Returns:
        Name of the video.
    """
    place, tracks = street.place, annotate(street)
    video = f"video_{place.index:04d}"
    # JAAD's appearance files have shuffled ids of bystanders; only `old_id` can be joined on.
    bystanders = [track.id for track in tracks if track.label == "ped"]
    shuffled = dict(zip(bystanders, bystanders[1:] + bystanders[:1], strict=True))
    drawn, dressed, facts = "", "", ""
    for track in tracks:
        name = {"id": track.id, "old_id": track.old_id}
        order = [tag for tag in _TAGS if tag in track.tags]
        boxes, outfits = [], []
        for i, (frame, (xtl, ytl, xbr, ybr)) in enumerate(
            zip(track.frame.tolist(), track.box.tolist(), strict=True)
        ):
            tags = name | {tag: track.tags[tag][i] for tag in order}
            hidden = int(tags["occlusion"] != "none")
            where = {"xbr": xbr, "xtl": xtl, "ybr": ybr, "ytl": ytl}
            head = {"frame": frame, "keyframe": 1, "occluded": hidden, "outside": 0} | where
            boxes.append(_xml("box", _attributes(tuple(tags.items())), **head))
            flags = dict(zip(APPEARANCE, track.flags[i].tolist(), strict=False))
            outfits.append(_xml("box", **dict(sorted((flags | {"frame": frame}).items()))))
        drawn += _xml("track", "".join(boxes), label=track.label)
        if track.label != "people":
            alias = {"id": shuffled.get(track.id, track.id), "label": track.label}
            dressed += _xml("track", "".join(outfits), **alias, old_id=track.old_id)
        if track.facts:
            facts += _xml("pedestrian", **dict(sorted((track.facts | name).items())))

    traffic, vehicle = _frames(street)
    files = {
        "annotations": _xml("annotations", _meta(street, video) + drawn),
        "annotations_attributes": _xml("ped_attributes", facts),
        "annotations_appearance": _xml("pedestrian_appearance", dressed),
        "annotations_traffic": _xml("traffic_scene", _xml("road_type", "street") + traffic),
        "annotations_vehicle": _xml("vehicle_info", vehicle),
    }
    for folder, text in files.items():
        annotation_path(root, folder, video).write_text(text, "ascii")
    return video


def write_street(
    root: Path,
    videos: int = 60,
    seed: int = 0,
    frames: tuple[int, int] = (90, 240),
    split: tuple[float, float, float] = (0.6, 0.15, 0.25),
) -> Path:
    """Writes a dataset of simulated videos: five kinds of annotation files and the split lists.

    Video i depends on the seed, i and `frames`, not on the number of videos. Splits are consecutive
    ranges of videos (training first) and the same for all subsets of JAAD.

    Args:
        root: Output folder, created if missing.
        videos: Number of videos, at least one per split.
        seed: Seed of the dataset.
        frames: Minimum and maximum length of a video, in frames.
        split: Shares of `train`, `val` and `test`.

    Returns:
        `root`.

    Raises:
        DataError: A split would be empty, or `root` contains annotations already.
    """
    ends = np.rint(np.cumsum(split) / sum(split) * videos).astype(int)
    if (np.diff(ends, prepend=0) < 1).any():
        problem = f"{videos} videos leave one of train, val, test empty"
        raise DataError("--videos", problem, "increase the number of videos")
    if (root / "annotations").exists():
        raise DataError(root, "contains annotations already", "choose a new folder")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    names = [write_video(root, simulate(seed, i, frames)) for i in range(1, videos + 1)]
    for subset in SPLITS:
        (root / "split_ids" / subset).mkdir(parents=True)
        for name, run in zip(("train", "val", "test"), np.split(names, ends[:-1]), strict=True):
            (root / "split_ids" / subset / f"{name}.txt").write_text("\n".join(run) + "\n")
    return root
