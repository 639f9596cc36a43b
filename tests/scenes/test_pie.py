"""The PIE reader: videos are read as they were written, invalid ones are rejected."""

import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from make import pie_files
from make import scenes as made

from vidreason.core.errors import DataError
from vidreason.intent.windows import make_windows
from vidreason.scenes.cvat import attributes, read_xml, start_tags
from vidreason.scenes.pie import _facts, annotation_path, read_pie, read_video, splits
from vidreason.scenes.scene import KINDS, LIGHTS

ONE = "set01/video_0001"
KIND = {"transit_station": "station"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("pie") / "pie"
    return root, pie_files.pie(root, 4, [(1, 1), (3, 1)])


@pytest.fixture
def copy(tmp_path, written):
    return shutil.copytree(written[0], tmp_path / "pie")


def test_videos_are_read_as_they_were_written(written):
    root, truth = written
    scenes = read_pie(root, cache=False)
    assert [scene.id for scene in scenes] == list(truth)
    for scene in scenes:
        put = truth[scene.id]
        found = dict(scene.rows())
        assert (scene.width, scene.height, scene.length, scene.fps) == (1920, 1080, 420, 30)
        made.assert_sound(scene)
        assert (np.stack([scene.ego_action, *scene.signals.values()]) == -1).all()
        assert len(found) == len(put["people"]) + len(put["things"])
        for frames, box, tags, facts in put["people"]:
            rows, k = found[facts["id"]], scene.track_ids.index(facts["id"])
            assert scene.frame[rows].tolist() == frames.tolist()
            np.testing.assert_allclose(scene.box[rows], box, rtol=1e-6)
            assert KINDS[scene.kind[k]] == "person" and scene.facts["behaviour"][k] == 1
            words = {
                "cross": ("not-crossing", "crossing"),
                "action": ("standing", "walking"),
                "look": ("not-looking", "looking"),
            }
            for name, known in words.items():
                want = [known.index(tag[name]) for tag in tags]
                assert scene.labels[name][rows].tolist() == want
            gesture = tags[0]["gesture"]
            assert set(scene.labels["nod"][rows]) == {int(gesture == "nod")}
            hands = ("__undefined__", "hand_ack", "hand_yield", "hand_rightofway", "other")
            hand = hands.index(gesture) if gesture in hands else 0
            assert set(scene.labels["hand_gesture"][rows]) == {hand}
            want = [("none", "part", "full").index(tag["occlusion"]) for tag in tags]
            assert scene.cues["occlusion"][rows].tolist() == want
            assert (scene.cues["light"][rows] == -1).all()
            for name in ("crossing", "crossing_point", "critical_point", "num_lanes"):
                assert scene.facts[name][k] == facts[name]
            assert scene.facts["intention_prob"][k] == round(100 * facts["intention_prob"])
        for label, frames, box, tags in put["things"]:
            rows, k = found[tags[0]["id"]], scene.track_ids.index(tags[0]["id"])
            assert KINDS[scene.kind[k]] == KIND.get(label, label)
            assert scene.frame[rows].tolist() == frames.tolist()
            np.testing.assert_allclose(scene.box[rows], box, rtol=1e-6)
            want = [LIGHTS.index(t["state"]) if t.get("state") in LIGHTS else -1 for t in tags]
            assert scene.cues["light"][rows].tolist() == want
            assert (scene.labels["cross"][rows] == -1).all() and scene.facts["behaviour"][k] == 0
        np.testing.assert_allclose(scene.odometry["speed"], put["speed"] / 3.6, rtol=1e-5)
        np.testing.assert_allclose(scene.odometry["heading"], np.radians(put["heading"]), rtol=1e-5)


def test_the_cache_equals_a_fresh_read(copy):
    first = read_pie(copy)
    for scenes in (read_pie(copy), read_pie(copy, cache=False)):
        made.assert_same(scenes, first)


def test_splits_are_by_set_of_any_part():
    names = [f"set{s:02d}/video_{v:04d}" for s in range(1, 7) for v in (1, 2)]
    parts = splits(names)
    assert {n[:5] for n in parts["train"]} == {"set01", "set02", "set04"}
    assert {n[:5] for n in parts["val"]} == {"set05", "set06"}
    assert {n[:5] for n in parts["test"]} == {"set03"}
    assert splits(names[4:6]) == {"train": (), "val": (), "test": tuple(names[4:6])}


def edit(root, folder, old, new, count=1):
    path = annotation_path(root, folder, ONE)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))
    return path


def test_irrelevant_crossings_are_unknown(copy):
    edit(copy, "annotations", ">crossing<", ">crossing-irrelevant<", -1)
    scene = read_video(copy, ONE)
    assert not (scene.labels["cross"] == 1).any() and (scene.labels["cross"] == -1).any()


def test_boxes_outside_a_track_are_skipped(copy, written):
    path = annotation_path(copy, "annotations", ONE)
    text = path.read_text()
    frames, *_ = written[1][ONE]["people"][0]
    gone = frames[50:60]
    head, sep, rest = text.partition("</track>")
    for frame in gone:
        head = re.sub(rf'(frame="{frame}" keyframe="1" occluded="0" outside=)"0"', r'\1"1"', head)
    path.write_text(head + sep + rest)
    scene = read_video(copy, ONE)
    rows = dict(scene.rows())["1_1_0"]
    assert scene.frame[rows].tolist() == [f for f in frames if f not in gone]


def test_a_track_without_visible_boxes_is_skipped(copy, written):
    head, sep, rest = (text := annotation_path(copy, "annotations", ONE).read_text()).partition(
        "</track>"
    )
    edit(copy, "annotations", text, head.replace('outside="0"', 'outside="1"') + sep + rest)
    names = [facts["id"] for *_, facts in written[1][ONE]["people"]]
    assert [name for name in names if name not in read_video(copy, ONE).track_ids] == ["1_1_0"]


def test_crossing_points_without_a_box_move_to_the_preceding_box(copy, written):
    *_, facts = written[1][ONE]["people"][1]
    frames = written[1][ONE]["people"][1][0]
    old = f'crossing_point="{facts["crossing_point"]}"'
    edit(copy, "annotations_attributes", old, f'crossing_point="{frames[-1] + 9}"')
    with pytest.warns(UserWarning, match=r"moved 1 crossing points without a box .*1_1_1"):
        scene = read_video(copy, ONE)
    k = scene.track_ids.index("1_1_1")
    assert scene.facts["crossing_point"][k] == frames[-1]
    assert len(make_windows([scene], "benchmark"))
    # A point before the first box moves to the first box.
    edit(copy, "annotations_attributes", f'crossing_point="{frames[-1] + 9}"', 'crossing_point="0"')
    with pytest.warns(UserWarning, match="1 crossing points"):
        assert read_video(copy, ONE).facts["crossing_point"][k] == frames[0] > 0


def test_valid_files_cause_no_warning(copy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_video(copy, ONE)


def test_what_is_undefined_is_unknown(copy):
    for name, word in (("action", "walking"), ("look", "looking")):
        edit(
            copy,
            "annotations",
            f'<attribute name="{name}">{word}<',
            f'<attribute name="{name}">__undefined__<',
        )
        assert (read_video(copy, ONE).labels[name][:400] == -1).any()


def test_without_odometry_it_is_unknown(copy):
    edit(copy, "annotations_vehicle", 'OBD_speed="20.0"', 'OBD_speed=""'.replace('""', '"nan"'))
    path = annotation_path(copy, "annotations_vehicle", ONE)
    path.write_text(path.read_text().replace('<frame id="7"', '<frame id="8"'))
    speed = read_video(copy, ONE).odometry["speed"]
    assert np.isnan(speed[0]) and np.isnan(speed[7]) and np.isfinite(speed[9:]).all()
    path.unlink()
    assert np.isnan(read_video(copy, ONE).odometry["speed"]).all()


def test_pedestrians_without_attributes_are_no_targets(copy):
    path = annotation_path(copy, "annotations_attributes", ONE)
    path.write_text(re.sub(r"<pedestrian [^>]*id=.1_1_2.*?</pedestrian>", "", path.read_text()))
    scene = read_video(copy, ONE)
    behaviour = dict(zip(scene.track_ids, scene.facts["behaviour"], strict=True))
    assert [behaviour[f"1_1_{p}"] for p in range(4)] == [1, 1, 0, 1]


EDITS = {
    "label": ("annotations", 'label="vehicle"', 'label="ufo"', "label='ufo' is not one of"),
    "state": ("annotations", ">red<", ">blue<", "state='blue' is not one of red"),
    "gesture": ("annotations", "gesture", "jesture", "gesture='\\(missing\\)' is not one of"),
    "occlusion": ("annotations", ">none<", ">some<", "occlusion='some' is not one of none"),
    "size": (
        "annotations",
        "<size>420<",
        "<size>none<",
        "meta/task must have positive integers as size",
    ),
    "frame": ("annotations", "<size>420<", "<size>42<", "frame must be an integer from 0 to 41"),
    "box": ("annotations", 'xbr="', 'xbr="nan', "is not a number|not finite"),
    "end": ("annotations", "</annotations>", "", "is not well-formed XML"),
    "layout": (
        "annotations",
        'keyframe="1" occluded="0"',
        'occluded="0" keyframe="1"',
        "track 1: box attributes differ between boxes",
    ),
    "two names": ("annotations", ">1_1_0<", ">1_1_9<", "boxes refer to '1_1_9' and '1_1_0'"),
    "crossing": ("annotations_attributes", 'crossing="1"', 'crossing="7"', "from -1 to 1"),
    "point": (
        "annotations_attributes",
        'crossing_point="',
        'crossing_point="x',
        "is not an integer from -1",
    ),
    "age": ("annotations_attributes", 'age="adult"', 'age="old"', "age='old' is not one of"),
    "intention": (
        "annotations_attributes",
        '"0.85"',
        '"85"',
        "intention_prob='85' is not a number",
    ),
    "speed": ("annotations_vehicle", 'OBD_speed="', 'OBD_speed="fast', "is not a number"),
    "frame id": (
        "annotations_vehicle",
        'id="419"',
        'id="420"',
        "frame id='420' is not an integer from 0 to 419",
    ),
}


@pytest.mark.parametrize(("folder", "old", "new", "problem"), EDITS.values(), ids=EDITS)
def test_rejects_invalid_content(copy, folder, old, new, problem):
    path = edit(copy, folder, old, new)
    with pytest.raises(DataError, match=problem) as error:
        read_video(copy, ONE)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_rejects_a_track_without_id(copy):
    edit(copy, "annotations", '<attribute name="id">1_1_0<', '<attribute name="id"><', -1)
    with pytest.raises(DataError, match="track 1: has no id"):
        read_video(copy, ONE)


def test_rejects_duplicate_tracks(copy):
    edit(copy, "annotations", ">1_1_1<", ">1_1_0<", -1)
    with pytest.raises(DataError, match="duplicate track '1_1_0'"):
        read_video(copy, ONE)


def test_rejects_missing_files_and_folders(copy, tmp_path):
    with pytest.raises(DataError, match="no such folder; a PIE root contains annotations"):
        read_pie(tmp_path)
    annotation_path(copy, "annotations_attributes", ONE).unlink()
    with pytest.raises(DataError, match=r"video_0001_attributes\.xml: no such file"):
        read_pie(copy)
    shutil.rmtree(copy / "annotations")
    (copy / "annotations").mkdir()
    with pytest.raises(DataError, match=r"contains no files such as set01/video_0001_annt\.xml"):
        read_pie(copy)


def test_real_attributes_have_the_published_counts():
    root = Path(os.environ.get("VIDREASON_DATA", "")) / "pie" / "annotations_attributes"
    if not root.is_dir():
        pytest.skip("$VIDREASON_DATA/pie/annotations_attributes is missing")
    crossing, people = [], {}
    for path in sorted(root.rglob("*_attributes.xml")):
        ids = [attributes(head)["id"] for head, _ in start_tags(read_xml(path), "pedestrian")]
        facts = _facts(path, ids)
        assert facts["behaviour"].all()
        crossing += facts["crossing"].tolist()
        people[f"{path.parent.name}/{path.name[:10]}"] = len(ids)
    assert [crossing.count(label) for label in (1, 0, -1)] == [519, 855, 468]
    counted = {s: sum(people[name] for name in names) for s, names in splits(list(people)).items()}
    assert counted == {"train": 880, "val": 243, "test": 719}
