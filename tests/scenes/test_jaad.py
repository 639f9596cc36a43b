"""The JAAD reader against an independent one, on made and on real files."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from make import scenes as made
from make import tiny

from vidreason.scenes.jaad import (
    FOLDERS,
    SPLITS,
    annotation_path,
    read_jaad,
    read_splits,
    read_video,
)
from vidreason.scenes.scene import (
    APPEARANCE,
    CROSS,
    CUES,
    EGO_ACTIONS,
    FACTS,
    LABELS,
    OCCLUSION,
    SIGNALS,
    TRAFFIC_LIGHT,
    Scene,
)

VIDEO = tiny.VIDEO


# --- An independent reader, element by element and box by box.


def slow_video(root, video):
    trees = {
        folder: ElementTree.parse(annotation_path(root, folder, video)).getroot()
        for folder in FOLDERS
    }
    task = trees["annotations"].find("meta/task")
    described = {e.get("id"): e for e in trees["annotations_attributes"].iter("pedestrian")}
    flags = {}
    for track in trees["annotations_appearance"].iter("track"):
        for box in track.iter("box"):
            flags[track.get("old_id"), int(box.get("frame"))] = box.attrib
    ids, kinds, behaviour, offsets, frames, boxes = [], [], [], [0], [], []
    cues, labels, facts = ({name: [] for name in names} for names in (CUES, LABELS, FACTS))
    for track in trees["annotations"].iter("track"):
        label = track.get("label")
        for box in track.iter("box"):
            tags = {a.get("name"): a.text for a in box}
            frames.append(int(box.get("frame")))
            boxes.append([float(box.get(corner)) for corner in ("xtl", "ytl", "xbr", "ybr")])
            cues["occlusion"].append(OCCLUSION.index(tags["occlusion"]))
            seen = flags.get((tags["old_id"], frames[-1]), {})
            for name in APPEARANCE:
                cues[name].append(int(seen.get(name, -1)))
            for name, words in LABELS.items():
                labels[name].append(words.index(tags[name]) if label == "pedestrian" else -1)
        ids.append(tags["id"])
        kinds.append(label == "people")
        behaviour.append(label == "pedestrian")
        offsets.append(len(frames))
        for name, words in FACTS.items():
            value = described[tags["id"]].get(name) if label == "pedestrian" else None
            code = -1 if value is None else words.index(value) if words else int(value)
            facts[name].append(code)
    traffic = list(trees["annotations_traffic"].iter("frame"))
    signals = {
        name: [
            TRAFFIC_LIGHT.index(f.get(name)) if name == "traffic_light" else int(f.get(name))
            for f in traffic
        ]
        for name in SIGNALS
    }
    about = ("time_of_day", "weather", "location")
    actions = [f.get("action") for f in trees["annotations_vehicle"].iter("frame")]
    return Scene(
        id=video,
        fps=29.97,
        width=int(task.findtext("original_size/width")),
        height=int(task.findtext("original_size/height")),
        length=int(task.findtext("size")),
        attributes={n: task.findtext(f"video_attributes/{n}") for n in about}
        | {"road_type": trees["annotations_traffic"].findtext("road_type")},
        ego_action=np.array([EGO_ACTIONS.index(a) for a in actions], np.int8),
        signals={n: np.array(v, np.int8) for n, v in signals.items()},
        track_ids=tuple(ids),
        kind=np.array(kinds, np.int8),
        facts={n: np.array(v, np.int32) for n, v in (facts | {"behaviour": behaviour}).items()},
        offsets=np.array(offsets, np.int64),
        frame=np.array(frames, np.int32),
        box=np.array(boxes, np.float32).reshape(-1, 4),
        cues={n: np.array(v, np.int8) for n, v in cues.items()},
        labels={n: np.array(v, np.int8) for n, v in labels.items()},
    )


@pytest.mark.parametrize("video", tiny.VIDEOS)
def test_every_value_is_read(tiny_root, video):
    made.assert_same([read_video(tiny_root, video)], [slow_video(tiny_root, video)])


# A gap in a track, the smaller image size, a line break inside a tag, no tracks.
@pytest.mark.parametrize("video", ["video_0102", "video_0061", "video_0257", "video_0330"])
def test_every_value_of_a_real_video_is_read(real_root, video):
    made.assert_same([read_video(real_root, video)], [slow_video(real_root, video)])


def test_the_vocabularies_match_the_real_files(real_root):
    tree = ElementTree.parse(real_root / "annotations" / "video_0001.xml")
    declared = {}
    for attribute in tree.find("meta/task/labels/label/attributes"):
        name, _, words = attribute.text.partition("=")[2].partition(":")
        declared[name] = tuple(words.split(","))
    assert declared == {"id": ("",), "old_id": ("",), "occlusion": OCCLUSION, **LABELS}
    assert LABELS["cross"] == CROSS


# --- Joins and gaps.


def test_appearance_is_joined_on_old_id_regardless_of_id(copy):
    scene = read_video(copy, VIDEO)
    number = iter(range(1000))
    tiny.edit(
        copy, "annotations_appearance", ' id="[^"]*"', lambda _: f' id="{next(number)}"', count=0
    )
    made.assert_same([read_video(copy, VIDEO)], [scene])

    swap = {"ped1": "ped2", "ped2": "ped1"}
    tiny.edit(
        copy, "annotations_appearance", '(?<=old_id=")ped[12](?=")', lambda m: swap[m[0]], count=0
    )
    swapped = read_video(copy, VIDEO)
    rows = dict(scene.rows())
    one, two = rows["0_2_1"], rows["0_2_2"]
    _, i, j = np.intersect1d(scene.frame[one], scene.frame[two], return_indices=True)
    assert len(i) > 50
    for name in APPEARANCE:
        before, after = scene.cues[name], swapped.cues[name]
        np.testing.assert_array_equal(after[one][i], before[two][j])
        np.testing.assert_array_equal(after[two][j], before[one][i])
        rest = np.ones(len(before), bool)
        rest[one] = rest[two] = False
        np.testing.assert_array_equal(after[rest], before[rest])


def test_missing_appearance_is_unknown(copy):
    scene = read_video(copy, VIDEO)
    path = annotation_path(copy, "annotations_appearance", VIDEO)
    tree = ElementTree.parse(path)
    by_old_id = {t.get("old_id"): t for t in tree.iter("track")}
    by_old_id["ped1"][:] = []
    tree.getroot().remove(by_old_id["ped2"])
    by_old_id["ped3"].remove(by_old_id["ped3"][4])
    tree.write(path)
    lost = np.zeros(len(scene.frame), bool)
    rows = dict(scene.rows())
    lost[rows["0_2_1"]] = lost[rows["0_2_2"]] = True
    lost[rows["0_2_3"].start + 4] = True
    expected = {n: np.where(lost, np.int8(-1), scene.cues[n]) for n in APPEARANCE}
    made.assert_same([read_video(copy, VIDEO)], [made.changed(scene, cues=expected)])


def test_gaps_are_kept(copy):
    scene = read_video(copy, VIDEO)
    tiny.gap(copy, first=20, last=24)
    gapped = read_video(copy, VIDEO)
    keep = (scene.frame < 20) | (scene.frame > 24)
    assert (~keep).any()
    for name in ("frame", "box"):
        np.testing.assert_array_equal(getattr(gapped, name), getattr(scene, name)[keep])
    for table in ("cues", "labels"):
        for name, column in getattr(scene, table).items():
            np.testing.assert_array_equal(getattr(gapped, table)[name], column[keep])
    np.testing.assert_array_equal(gapped.facts["crossing"], scene.facts["crossing"])
    for name, rows in gapped.rows():
        assert not {20, 21, 22, 23, 24} & set(gapped.frame[rows].tolist()), name


def test_a_video_without_tracks_is_read(copy):
    for folder, tag in (("annotations", "track"), ("annotations_attributes", "pedestrian")):
        tiny.edit(copy, folder, f"<{tag} .*</{tag}>|<{tag} .*/>", "")
    scene = read_video(copy, VIDEO)
    assert scene.track_ids == () and scene.box.shape == (0, 4) and list(scene.offsets) == [0]
    assert {len(column) for column in (scene.cues | scene.labels | scene.facts).values()} == {0}
    made.assert_same([read_video(copy, VIDEO)], read_jaad(copy)[1:2])
    made.assert_same(read_jaad(copy), read_jaad(copy, cache=False))


@pytest.mark.parametrize("folder", list(FOLDERS)[1:])
def test_values_of_missing_files_are_unknown(copy, folder):
    scene = read_video(copy, VIDEO)
    annotation_path(copy, folder, VIDEO).unlink()
    unknown = {
        "annotations_attributes": {"facts": FACTS},
        "annotations_appearance": {"cues": APPEARANCE},
        "annotations_traffic": {"signals": SIGNALS},
        "annotations_vehicle": {},
    }[folder]
    columns = {
        table: {n: np.full_like(getattr(scene, table)[n], -1) for n in names}
        for table, names in unknown.items()
    }
    if folder == "annotations_vehicle":
        columns["ego_action"] = np.full_like(scene.ego_action, -1)
    if folder == "annotations_traffic":
        columns["attributes"] = {"road_type": ""}
    made.assert_same([read_video(copy, VIDEO, partial=True)], [made.changed(scene, **columns)])


# --- Split lists.


def test_split_lists_keep_their_order(copy):
    path = copy / "split_ids" / "default" / "train.txt"
    path.write_text("video_0003\nvideo_0001\n\n")
    (copy / "annotations" / "video_0004.xml").touch()  # only its existence matters
    (path.parent / "test.txt").write_text("video_0004")
    train, val, test = read_splits(copy).values()
    assert (train, val, test) == (("video_0003", "video_0001"), ("video_0002",), ("video_0004",))
    assert read_splits(copy, "all_videos")["train"] == ("video_0001",)


# --- Real counts (2017 and 2020 papers; README of the dataset).


def test_real_counts(real):
    kinds = np.concatenate([scene.kind for scene in real])
    behaviour = np.concatenate([scene.facts["behaviour"] for scene in real]) == 1
    assert (len(real), sum(scene.length for scene in real)) == (346, 82_032)
    people = (behaviour.sum(), ((kinds == 0) & ~behaviour).sum(), (kinds == 1).sum())
    assert people == (686, 2_017, 83)
    assert sum(len(scene.frame) for scene in real) == 391_038
    gaps = [np.diff(s.frame[rows]) > 1 for s in real for _, rows in s.rows()]
    assert (sum(g.any() for g in gaps), sum(g.sum() for g in gaps)) == (19, 19)
    assert sum(not scene.track_ids for scene in real) == 9
    assert sum((scene.width, scene.height) == (1280, 720) for scene in real) == 10
    assert sum((scene.labels["cross"] == 1).sum() for scene in real) == 75_047
    crossing = np.concatenate([scene.facts["crossing"] for scene in real])[behaviour]
    assert [(crossing == value).sum() for value in (1, 0, -1)] == [495, 91, 100]


def test_real_appearance_is_known_in_every_box_of_a_person(real):
    joined = persons = 0
    for scene in real:
        flags = np.stack([scene.cues[name] for name in APPEARANCE])
        for k, (_, rows) in enumerate(scene.rows()):
            if scene.kind[k] == 0:
                persons += 1
                joined += (flags[:, rows] >= 0).all()
            else:
                assert (flags[:, rows] == -1).all()
    assert (joined, persons) == (2_703, 2_703)


def test_real_splits(real_root):
    sizes = {s: [len(v) for v in read_splits(real_root, s).values()] for s in SPLITS}
    assert sizes == {
        "default": [177, 29, 117],
        "high_visibility": [182, 30, 121],
        "all_videos": [188, 32, 126],
    }
