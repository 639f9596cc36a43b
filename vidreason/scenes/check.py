"""Dataset check for JAAD: counts the content of a copy and lists its defects."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidreason.core.errors import DataError
from vidreason.core.files import progress
from vidreason.scenes.cvat import attributes, named_values, read_xml, start_tags
from vidreason.scenes.jaad import FOLDERS, SPLITS, annotation_path, read_splits, read_video
from vidreason.scenes.scene import Scene

KINDS = {
    "missing": "file is missing",
    "unreadable": "file is damaged or has invalid values",
    "split": "split list contradicts the annotations",
    "gap": "frames are missing inside a track",
    "outside": "box extends beyond the image",
    "no tracks": "video has no annotated tracks",
    "no crossing point": "pedestrian crosses, but crossing_point is -1",
    "crossing point off": "crossing_point is over 5 frames from the first frame tagged crossing",
    "crossing point of a non-crosser": "crossing is -1, but crossing_point is set",
    "non-crosser without point": "crossing is 0, but crossing_point is -1",
    "non-crosser crosses": "crossing is 0 or -1, but frames are tagged crossing",
    "late decision": "decision_point is after crossing_point",
    "appearance id": "id differs from that of the track with the same old_id",
    "no appearance": "boxes of a person lack appearance flags",
}
"""Kinds of defects. The first three make a copy incomplete or unusable."""
_BROKEN = ("missing", "unreadable", "split")


@dataclass(frozen=True)
class Finding:
    """A defect.

    Attributes:
        kind: Key of `KINDS`.
        file: Path relative to the root.
        place: Location inside the file; may be empty.
        seen: Values found.
    """

    kind: str
    file: str
    place: str
    seen: str


@dataclass
class Report:
    """Result of the check.

    Attributes:
        root: Folder that was checked.
        counts: Number of videos, tracks, boxes and so on, by name.
        findings: All defects.
    """

    root: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether files are missing or unreadable, or contradict the split lists."""
        return any(finding.kind in _BROKEN for finding in self.findings)


def check(root: Path) -> Report:
    """Checks the JAAD files under `root`, which may be any part of the dataset.

    Raises:
        DataError: The folder is missing or contains no annotations.
    """
    if not root.is_dir():
        raise DataError(
            root, "no such folder", "download it with `vidreason data get jaad --root DIR`"
        )
    report = Report(str(root))
    names = sorted(
        {
            path.stem.removesuffix(suffix)
            for folder, suffix in FOLDERS.items()
            for path in (root / folder).glob(f"video_*{suffix}.xml")
        }
    )
    if not names:
        raise DataError(root, "contains no annotations", "set --root to their parent folder")
    counts: Counter[str] = Counter({"videos": len(names)})
    with progress() as bar:
        task = bar.add_task("checking JAAD", total=len(names))
        for name in names:
            report.findings += _video_findings(root, name, counts)
            bar.advance(task)
    for subset in SPLITS:
        try:
            for split, listed in read_splits(root, subset).items():
                counts[f"videos in {subset}/{split}"] = len(listed)
        except DataError as error:
            file = str(Path(error.source).relative_to(root))
            report.findings.append(Finding("split", file, error.place, error.problem))
    report.counts = dict(counts)
    return report


def _video_findings(root: Path, name: str, counts: Counter[str]) -> Iterator[Finding]:
    for folder in FOLDERS:
        path = annotation_path(root, folder, name)
        if not path.is_file():
            yield Finding("missing", str(path.relative_to(root)), "", "no such file")
    if not annotation_path(root, "annotations", name).is_file():
        return
    try:
        scene = read_video(root, name, partial=True)
        counts.update(_count(scene))
        yield from _scene_findings(scene)
        yield from _appearance_findings(root, scene)
    except DataError as error:
        file = str(Path(error.source).relative_to(root))
        yield Finding("unreadable", file, error.place, error.problem)


def _count(scene: Scene) -> dict[str, int]:
    person, behaviour = scene.kind == 0, scene.facts["behaviour"] == 1
    tracks = {
        "pedestrian": behaviour,
        "bystander (ped)": person & ~behaviour,
        "group (people)": ~person,
    }
    boxes = np.diff(scene.offsets)
    joined = [
        (scene.cues["pose_left"][rows] >= 0).all()
        for k, (_, rows) in enumerate(scene.rows())
        if person[k]
    ]
    return {
        "frames": scene.length,
        **{f"tracks {name}": int(chosen.sum()) for name, chosen in tracks.items()},
        "tracks": len(scene.track_ids),
        **{f"boxes {name}": int(boxes[chosen].sum()) for name, chosen in tracks.items()},
        "boxes": len(scene.frame),
        "tracks with gaps": sum(bool(_gap(scene, rows).any()) for _, rows in scene.rows()),
        "videos without tracks": int(not scene.track_ids),
        "videos without behaviour pedestrian": int(not behaviour.any()),
        "persons": int(person.sum()),
        "persons with appearance in every box": int(sum(joined)),
        "boxes tagged crossing": int((scene.labels["cross"] == 1).sum()),
        "pedestrians who cross": int((behaviour & (scene.facts["crossing"] == 1)).sum()),
        f"videos of {scene.width}x{scene.height}": 1,
    }


def _gap(scene: Scene, rows: slice) -> np.ndarray:
    return np.diff(scene.frame[rows]) > 1


def _scene_findings(scene: Scene) -> Iterator[Finding]:
    boxes, facts = f"annotations/{scene.id}.xml", scene.facts
    about = f"annotations_attributes/{scene.id}_attributes.xml"
    if not scene.track_ids:
        yield Finding("no tracks", boxes, "", f"{scene.length} frames")
    edge = np.array([0, 0, scene.width, scene.height])
    for k, (name, rows) in enumerate(scene.rows()):
        frames = scene.frame[rows]
        for i in np.flatnonzero(_gap(scene, rows)):
            seen = f"frame {frames[i]} is followed by {frames[i + 1]}"
            yield Finding("gap", boxes, f"track {name}", seen)
        box = scene.box[rows]
        out = ((box[:, :2] < edge[:2]) | (box[:, 2:] > edge[2:])).any(1)
        for i in np.flatnonzero(out):
            seen = f"{box[i].tolist()} in {scene.width}x{scene.height}"
            yield Finding("outside", boxes, f"track {name}, frame {frames[i]}", seen)
        if facts["group_size"][k] < 0:  # no behaviour tags, or no attributes file
            continue
        crossing, point = int(facts["crossing"][k]), int(facts["crossing_point"][k])
        decision = int(facts["decision_point"][k])
        tagged = frames[scene.labels["cross"][rows] == 1]
        place = f"pedestrian {name}"
        if crossing == 1 and point < 0:
            first = int(tagged[0]) if len(tagged) else None
            seen = f"track starts at frame {frames[0]}, first tagged crossing is {first}"
            yield Finding("no crossing point", about, place, seen)
        if crossing == 1 and point >= 0 and (not len(tagged) or abs(point - tagged[0]) > 5):
            first = int(tagged[0]) if len(tagged) else None
            seen = f"crossing_point {point}, first frame tagged crossing {first}"
            yield Finding("crossing point off", about, place, seen)
        if crossing == -1 and point >= 0:
            yield Finding("crossing point of a non-crosser", about, place, f"{point}")
        if crossing == 0 and point < 0:
            yield Finding("non-crosser without point", about, place, f"{point}")
        if crossing < 1 and len(tagged):
            seen = f"crossing {crossing}, {len(tagged)} frames tagged crossing from {tagged[0]}"
            yield Finding("non-crosser crosses", about, place, seen)
        if decision > point >= 0:
            yield Finding("late decision", about, place, f"decision {decision}, crossing {point}")


def _appearance_findings(root: Path, scene: Scene) -> Iterator[Finding]:
    path = annotation_path(root, "annotations_appearance", scene.id)
    if not path.is_file():
        return
    # The boxes file has old_id in every box; the first box of each track is enough.
    boxes = read_xml(annotation_path(root, "annotations", scene.id))
    by_old_id = {}
    for (name, rows), kind, (_, block) in zip(
        scene.rows(), scene.kind, start_tags(boxes, "track"), strict=True
    ):
        by_old_id[named_values(block.partition("</box>")[0])["old_id"]] = name
        if kind == 0 and (scene.cues["pose_left"][rows] < 0).any():
            file = f"annotations/{scene.id}.xml"
            yield Finding("no appearance", file, f"track {name}", "flags are unknown")
    for head, _ in start_tags(read_xml(path), "track"):
        values = attributes(head)
        owner = by_old_id.get(values.get("old_id", ""))
        if owner != values.get("id"):
            seen = (
                f"id {values.get('id')}, but old_id {values.get('old_id')} belongs to track {owner}"
            )
            file = f"{path.parent.name}/{path.name}"
            yield Finding("appearance id", file, f"track {owner}", seen)
