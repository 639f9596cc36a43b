"""A slow reference for scene graphs: one window, node and frame at a time, in Python numbers."""

import numpy as np

from vidreason.intent.features import RELATION, ROADS, feature_names
from vidreason.scenes.scene import (
    EGO_ACTIONS,
    KINDS,
    LIGHTS,
    OBJECTS,
    OCCLUSION,
    ORIENTATION,
    SIGNALS,
    TRAFFIC_LIGHT,
)


def reference_graph(scenes, windows, w, features, mirror):
    """Returns the graph of window `w` as nested lists."""
    scene, target = scenes[windows.scene[w]], int(windows.track[w])
    rows = range(int(windows.row[w]), int(windows.row[w]) + windows.observed)
    frames = [int(scene.frame[r]) for r in rows]
    boxes, row_of = {}, {}
    for k in range(len(scene.track_ids)):
        for r in range(int(scene.offsets[k]), int(scene.offsets[k + 1])):
            x1, y1, x2, y2 = map(float, scene.box[r])
            if mirror:
                x1, x2 = scene.width - x2, scene.width - x1
            boxes[k, int(scene.frame[r])], row_of[k, int(scene.frame[r])] = (x1, y1, x2, y2), r
    others = [
        k
        for k in range(len(scene.track_ids))
        if k != target and any((k, f) in boxes for f in frames)
        if ("neighbours" if KINDS[scene.kind[k]] in ("person", "group") else "objects") in features
    ]
    tracks = [target, *others]
    return {
        "valid": [[(k, f) in boxes for f in frames] for k in tracks],
        "x": [_person(scene, k, frames, boxes, row_of, features, mirror) for k in tracks],
        "edges": [_relation(scene, k, target, frames, boxes) for k in others],
        "infra": [
            [_signal(name, int(scene.signals[name][f]), features) for f in frames]
            for name in SIGNALS
        ],
        "ego": [_ego(scene, f, frames[0], features, mirror) for f in frames],
    }


def _x_center(box):
    return (box[0] + box[2]) / 2


def _person(scene, k, frames, boxes, row_of, features, mirror):
    track = [boxes.get((k, f)) for f in frames]
    names = feature_names(features)["person"]
    first = next(box for box in track if box is not None)
    out = []
    for t, box in enumerate(track):
        if box is None:
            out.append([0.0] * len(names))
            continue
        r, before = row_of[k, frames[t]], track[t - 1] if t else None
        width, height = box[2] - box[0], box[3] - box[1]
        log = np.log(height / scene.height)
        log_first = np.log((first[3] - first[1]) / scene.height)
        value = {
            "x_center": _x_center(box) / scene.width,
            "y_center": (box[1] + box[3]) / 2 / scene.height,
            "width": width / scene.width,
            "height": height / scene.height,
            "y_bottom": box[3] / scene.height,
            "log_height": log,
            "x_distance_to_image_center": abs(_x_center(box) / scene.width - 0.5),
            "x_velocity": 0.0,
            "y_bottom_velocity": 0.0,
            "log_height_velocity": 0.0,
            "x_displacement": (_x_center(box) - _x_center(first)) / height,
            "y_bottom_displacement": (box[3] - first[3]) / height,
            "log_height_change": log - log_first,
            "approach_to_image_center": (0.5 - _x_center(box) / scene.width)
            * np.sign(_x_center(box) - _x_center(first)),
            "occluded_partly": scene.cues["occlusion"][r] == OCCLUSION.index("part"),
            "occluded_fully": scene.cues["occlusion"][r] == OCCLUSION.index("full"),
            "is_group": scene.kind[k] == KINDS.index("group"),
            **{f"is_{name}": scene.kind[k] == KINDS.index(name) for name in OBJECTS},
            **{f"light_{n}": scene.cues["light"][r] == i for i, n in enumerate(LIGHTS)},
            "walking": max(scene.labels["action"][r], 0),
            "looking": max(scene.labels["look"][r], 0),
            "nodding": max(scene.labels["nod"][r], 0),
            "hand_gesture": max(scene.labels["hand_gesture"][r], 0),
            "has_behaviour_tags": scene.facts["behaviour"][k],
            "moves_laterally": scene.facts["motion_direction"][k] == 1,
            "moves_longitudinally": scene.facts["motion_direction"][k] == 2,
        }
        if before is not None:
            seconds = (frames[t] - frames[t - 1]) / scene.fps
            value["x_velocity"] = (_x_center(box) - _x_center(before)) / height / seconds
            value["y_bottom_velocity"] = (box[3] - before[3]) / height / seconds
            log_before = np.log((before[3] - before[1]) / scene.height)
            value["log_height_velocity"] = (log - log_before) / seconds
        swap = {"pose_left": "pose_right", "pose_right": "pose_left"} if mirror else {}
        for name in ORIENTATION:
            value[name] = max(scene.cues[swap.get(name, name)][r], 0)
        out.append([float(value[n]) for n in names])
    return out


def _relation(scene, k, target, frames, boxes):
    out = []
    for t, f in enumerate(frames):
        if (k, f) not in boxes:
            out.append([0.0] * len(RELATION))
            continue
        a, b = boxes[k, f], boxes[target, f]
        height = b[3] - b[1]
        speed = {}
        for who in (k, target):
            now, then = boxes[who, f], boxes.get((who, frames[t - 1])) if t else None
            seconds = (f - frames[t - 1]) / scene.fps
            speed[who] = (
                (0, 0)
                if then is None
                else ((_x_center(now) - _x_center(then)) / seconds, (now[3] - then[3]) / seconds)
            )
        shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(
            0, min(a[3], b[3]) - max(a[1], b[1])
        )
        area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        value = {
            "abs_dx1": abs(a[0] - b[0]) / scene.width,
            "abs_dy1": abs(a[1] - b[1]) / scene.height,
            "abs_dx2": abs(a[2] - b[2]) / scene.width,
            "abs_dy2": abs(a[3] - b[3]) / scene.height,
            "abs_dx_center": abs(_x_center(a) - _x_center(b)) / scene.width,
            "abs_dy_center": abs(a[1] + a[3] - b[1] - b[3]) / 2 / scene.height,
            "neighbour_width": (a[2] - a[0]) / scene.width,
            "neighbour_height": (a[3] - a[1]) / scene.height,
            "x_offset": (_x_center(a) - _x_center(b)) / height,
            "y_bottom_offset": (a[3] - b[3]) / height,
            "x_relative_velocity": (speed[k][0] - speed[target][0]) / height,
            "y_bottom_relative_velocity": (speed[k][1] - speed[target][1]) / height,
            "log_height_ratio": np.log((a[3] - a[1]) / (b[3] - b[1])),
            "iou": shared / (area - shared),
        }
        out.append([float(value[n]) for n in RELATION])
    return out


def _signal(name, code, features):
    word = TRAFFIC_LIGHT[code] if name == "traffic_light" and code > 0 else ""
    value = {"present": code > 0, "light_red": word == "red", "light_green": word == "green"}
    return [float(value[n]) for n in feature_names(features)["infra"]]


def _ego(scene, f, first, features, mirror):
    value = {f"road_{n}": scene.attributes["road_type"] == n for n in ROADS}
    value |= {f"ego_{n}": scene.ego_action[f] == i for i, n in enumerate(EGO_ACTIONS)}
    speed, heading = (scene.odometry[n].astype(float) for n in ("speed", "heading"))
    turned = (heading[f] - heading[first] + np.pi) % (2 * np.pi) - np.pi
    value |= {"ego_speed": speed[f] / 10, "ego_speed_change": (speed[f] - speed[first]) / 10}
    value["ego_heading_change"] = -turned if mirror else turned
    return [float(np.nan_to_num(value[n])) for n in feature_names(features)["ego"]]
