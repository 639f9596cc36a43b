"""Writes a synthetic dataset in the format of STIP: pedestrians along a street, some crossing."""

import json

import numpy as np

from vidreason.scenes.stip import TEST

WIDTH, HEIGHT = 1936, 1216
NAMES = (*TEST[:2], "downtown_ann_1", "sf_1", "sf_2", "sf_3", "palo_alto_1", "palo_alto_2")
SEGMENTS = ((4, 26), (30, 58))  # seconds


def walk(rng, segment, rate, crosses):
    """Returns frames (from 1), boxes (n, 4) and crossing states of a pedestrian in a segment."""
    start, stop = segment
    first = int((start + rng.uniform(0, 3)) * rate)
    last = int((stop - rng.uniform(0, 3)) * rate)
    t = np.arange(last - first) / max(last - first - 1, 1)
    height = rng.uniform(80, 200)
    side = rng.choice([-1, 1])
    x = 0.5 + side * np.where(crosses, 0.45 - 0.9 * t, 0.42 - 0.05 * t)
    foot = 700 + height + 40 * t
    x = x * WIDTH
    box = np.stack([x - 0.2 * height, foot - height, x + 0.2 * height, foot], 1).round(1)
    return np.arange(first, last) + 1, box, (abs(x / WIDTH - 0.5) < 0.22) & crosses


def row(name, box, state, **more):
    x1, y1, x2, y2 = box
    corners = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return {
        "box": corners,
        **corners,
        "matchIds": name,
        "boxId": name,
        "id": 1,
        "name": name,
        "UID": name,
        "tags": ["pedestrian"],
        "type": "Rectangle",
        "width": WIDTH,
        "height": HEIGHT,
        "locked": False,
        **({} if state is None else {"crossed": bool(state)}),
        **more,
    }


def sequence(folder, seed, people=6, cameras=("idx00", "idx97", "idx98"), rates=(2, 20)):
    """Writes one sequence.

    Returns:
        Frames (from 0), boxes and states, by (rate, camera, person, segment).
    """
    folder.mkdir(parents=True)
    lines = [
        f'{a // 60:02d}:{a % 60:02d} -- {b // 60:02d}:{b % 60:02d} "walks"' for a, b in SEGMENTS
    ]
    (folder / f"{folder.name}.txt").write_text("\n".join(lines) + "\n")
    truth = {}
    for rate in rates:
        for number, camera in enumerate(cameras):
            rng = np.random.default_rng((seed, number))  # the same pedestrians at both rates
            frames = {}
            for person in range(people):
                for s, segment in enumerate(SEGMENTS):
                    crosses = bool(rng.random() < 0.5)
                    frame, box, state = walk(rng, segment, rate, crosses)
                    truth[rate, camera, person, s] = frame - 1, box, state
                    for f, b, c in zip(frame.tolist(), box.tolist(), state.tolist(), strict=True):
                        kept = None if number else c
                        frames.setdefault(f, []).append(row(f"p{person}", b, kept))
            before = "processed_interpolations_new_" if rate == 20 else ""
            write(folder / f"{before}{folder.name}_{camera}.mkv.json", frames, rate)
    return truth


def write(path, frames, rate):
    content = {
        "frames": {str(f): frames[f] for f in sorted(frames)},
        "framerate": str(rate),
        "inputTags": "pedestrian",
        "suggestiontype": "copy",
        "scd": True,
        "tag_colors": ["#ffa20c"],
    }
    path.write_text(json.dumps(content))


def stip(root, people=6, rates=(2,), names=NAMES):
    """Writes sequences, `downtown_ann_1` without side cameras, and one folder without annotations.

    Returns:
        The content of each sequence, by name.
    """
    truth = {}
    for seed, name in enumerate(names):
        cameras = ("idx00",) if name == "downtown_ann_1" else ("idx00", "idx97", "idx98")
        truth[name] = sequence(root / name, seed, people, cameras, rates)
    (root / "not_annotated").mkdir()
    return truth
