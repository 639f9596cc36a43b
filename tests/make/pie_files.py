"""Writes a synthetic dataset in the format of PIE: pedestrians who approach the road cross it."""

from xml.sax.saxutils import quoteattr

import numpy as np

LENGTH, WIDTH, HEIGHT = 420, 1920, 1080
VIDEOS = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1), (6, 1)]
GESTURES = ("__undefined__", "hand_ack", "hand_yield", "hand_rightofway", "nod", "other")


def element(tag, content="", **values):
    words = "".join(f" {k}={quoteattr(str(v))}" for k, v in values.items())
    return f"<{tag}{words}>{content}</{tag}>"


def named(**values):
    return "".join(element("attribute", str(v), name=k) for k, v in values.items())


def track(label, frames, boxes, tags, outside=()):
    """Returns a track as XML; `tags` is one dict for all boxes, or a list with one for each."""
    rows = []
    for i, (frame, (x1, y1, x2, y2)) in enumerate(zip(frames, boxes, strict=True)):
        where = {"xbr": x2, "xtl": x1, "ybr": y2, "ytl": y1}
        state = {"frame": frame, "keyframe": 1, "occluded": 0, "outside": int(frame in outside)}
        rows.append(
            element("box", named(**(tags[i] if isinstance(tags, list) else tags)), **state, **where)
        )
    return element("track", "".join(rows), label=label)


def document(tracks, length=LENGTH):
    size = element("original_size", element("width", WIDTH) + element("height", HEIGHT))
    meta = element("meta", element("task", element("size", length) + size))
    return element("annotations", element("version", "1.1") + meta + "".join(tracks))


def pedestrian(rng, name, crosses, length=LENGTH):
    """Returns frames, boxes, tags and attributes of a pedestrian, who crosses or stays away."""
    first = int(rng.integers(0, 40))
    frames = np.arange(first, int(rng.integers(length - 60, length)))
    point = int(frames[0] + 250 + rng.integers(0, 40))
    t = (frames - frames[0]) / 250
    height = rng.uniform(90, 180)
    side = rng.choice([-1, 1])
    x = 960 + side * (700 - (560 if crosses else 60) * t)
    box = np.stack([x - 0.2 * height, 600 + 0 * t, x + 0.2 * height, 600 + height + 0 * t], 1)
    box = np.clip(box, 0, [WIDTH, HEIGHT] * 2).round(2)
    gesture = GESTURES[int(rng.integers(len(GESTURES)))]
    tags = [
        {
            "id": name,
            "old_id": name,
            "occlusion": ("none", "part", "full")[int(rng.integers(3))],
            "action": ("standing", "walking")[int(f % 90 > 20)],
            "look": ("not-looking", "looking")[int(f % 50 > 30)],
            "gesture": gesture,
            "cross": "crossing" if crosses and f >= point else "not-crossing",
        }
        for f in frames
    ]
    facts = {
        "age": "adult",
        "critical_point": point - 20,
        "crossing": 1 if crosses else 0,
        "crossing_point": point if crosses else int(frames[-4]),
        "exp_start_point": int(frames[0]) + 100,
        "gender": "male",
        "id": name,
        "intention_prob": 0.85 if crosses else 0.15,
        "intersection": "four-way",
        "num_lanes": 4,
        "signalized": "CS",
        "traffic_direction": "TW",
    }
    return frames, box, tags, facts


def things(rng, number, length=LENGTH):
    """Returns label, frames, boxes and tags of objects other than pedestrians."""
    found = []
    labels = ("vehicle", "traffic_light", "sign", "crosswalk", "transit_station")
    for n, label in enumerate(labels):
        frames = np.arange(int(rng.integers(0, 30)), int(rng.integers(200, length)))
        corner = rng.uniform(0, 800, 2).round(2)
        box = np.tile([*corner, *(corner + rng.uniform(20, 200, 2)).round(2)], (len(frames), 1))
        states = ("red", "yellow", "green", "__undefined__")
        tags = [{"id": f"{number}_{label}_{n}"} for _ in frames]
        for i, tag in enumerate(tags):
            if label == "traffic_light":
                tag |= {"type": "regular", "state": states[i // 40 % 4]}
            elif label in ("vehicle", "sign"):
                tag |= {"type": "car" if label == "vehicle" else "stop_sign"}
        found.append((label, frames, box, tags))
    return found


def write(root, folder, video, text):
    suffix = {"annotations": "annt", "annotations_attributes": "attributes"}.get(folder, "obd")
    path = root / folder / f"{video}_{suffix}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def video(root, number, people=8, seed=0, length=LENGTH):
    """Writes one video and returns its content."""
    rng = np.random.default_rng((seed, *number))
    folder = f"set{number[0]:02d}/video_{number[1]:04d}"
    someone = [
        pedestrian(rng, f"{number[0]}_{number[1]}_{p}", bool(p % 2), length) for p in range(people)
    ]
    rest = things(rng, f"{number[0]}_{number[1]}", length)
    tracks = [track("pedestrian", f.tolist(), b.tolist(), t) for f, b, t, _ in someone]
    tracks += [track(label, f.tolist(), b.tolist(), t) for label, f, b, t in rest]
    write(root, "annotations", folder, document(tracks, length))
    facts = "".join(element("pedestrian", **facts) for *_, facts in someone)
    write(root, "annotations_attributes", folder, element("ped_attributes", facts))
    speed = (20 + 10 * np.sin(np.arange(length) / 60)).round(2)
    heading = (np.arange(length) / 10 % 360).round(2)
    lines = "".join(
        element("frame", id=f, OBD_speed=speed[f], GPS_speed=0, heading_angle=heading[f], accX=0.1)
        for f in range(length)
    )
    write(root, "annotations_vehicle", folder, element("vehicle_info", lines))
    return {"people": someone, "things": rest, "speed": speed, "heading": heading}


def pie(root, people=8, videos=VIDEOS):
    """Writes a dataset and returns the content of its videos, by name."""
    return {f"set{s:02d}/video_{v:04d}": video(root, (s, v), people) for s, v in videos}
