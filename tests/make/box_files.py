"""Writes scenes as the tables of a custom dataset."""

import csv

from vidreason.scenes.scene import KINDS, OCCLUSION

BOXES = ["video", "pedestrian", "frame", "x1", "y1", "x2", "y2", "crossing", "kind", "occlusion"]
VIDEOS = ["video", "split", "fps", "width", "height", "length", "weather"]


def rows_of(scenes, splits=("train",)):
    """Returns the rows of both tables for scenes; splits are assigned in turn."""
    boxes, videos = [], []
    for number, scene in enumerate(scenes):
        split = splits[number % len(splits)]
        size = scene.width, scene.height, scene.length
        weather = scene.attributes.get("weather", "")
        videos.append([scene.id, split, scene.fps, *size, weather])
        for k, (name, rows) in enumerate(scene.rows()):
            kind = KINDS[scene.kind[k]]
            for row in range(rows.start, rows.stop):
                cross, hidden = scene.labels["cross"][row], scene.cues["occlusion"][row]
                words = "" if cross < 0 else cross, kind, OCCLUSION[hidden] if hidden >= 0 else ""
                corners = [repr(float(x)) for x in scene.box[row]]
                boxes.append([scene.id, name, scene.frame[row], *corners, *words])
    return boxes, videos


def write(root, boxes, videos, names=BOXES):
    root.mkdir(exist_ok=True)
    for file, head, rows in (("boxes", names, boxes), ("videos", VIDEOS, videos)):
        with (root / f"{file}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([head, *rows])
    return root
