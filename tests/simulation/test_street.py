import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make import tiny
from sklearn.metrics import roc_auc_score

from vidreason.core.errors import DataError
from vidreason.scenes.jaad import (
    SPLITS,
    read_splits,
    read_video,
    video_names,
)
from vidreason.scenes.scene import (
    APPEARANCE,
    EGO_ACTIONS,
    FACTS,
    LABELS,
    OCCLUSION,
    SIGNALS,
    TRAFFIC_LIGHT,
    Scene,
)
from vidreason.simulation import street as street_module
from vidreason.simulation.street import _car_boxes, annotate, view, write_street
from vidreason.simulation.world import CROSS, EYE, FOCAL, Street, simulate

VIDEOS = 24
FEW = 12  # videos in tests of all boxes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Street]]:
    """A dataset and the streets in it, which are simulated only once."""
    streets = []

    def record(*arguments: Any) -> Street:
        streets.append(simulate(*arguments))
        return streets[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(street_module, "simulate", record)
        return write_street(tmp_path_factory.mktemp("street") / "data", VIDEOS), streets


@pytest.fixture(scope="module")
def root(data: tuple[Path, list[Street]]) -> Path:
    return data[0]


@pytest.fixture(scope="module")
def streets(data: tuple[Path, list[Street]]) -> list[Street]:
    return data[1]


@pytest.fixture(scope="module")
def scenes(root: Path) -> list[Scene]:
    return read(root)


def read(root: Path) -> list[Scene]:
    return [read_video(root, name) for name in video_names(root)]


def files(root: Path, pattern: str = "*") -> dict[str, bytes]:
    paths = (path for path in root.rglob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def benchmark(scenes: list[Scene], behaviour: bool) -> list[tuple[Scene, int, slice, int]]:
    """Returns scene, track, rows and event row of each pedestrian with benchmark windows."""
    found = []
    for scene in scenes:
        for k, (_, rows) in enumerate(scene.rows()):
            point = scene.facts["crossing_point"][k]
            count = rows.stop - rows.start
            event = count - 3 if point < 0 else int(np.searchsorted(scene.frame[rows], point))
            person = scene.kind[k] == 0 and scene.facts["behaviour"][k] == behaviour
            if person and event + 1 >= 76:
                found.append((scene, k, rows, event))
    return found


def test_the_reader_returns_what_was_written(scenes: list[Scene], streets: list[Street]) -> None:
    for scene, street in zip(scenes[:FEW], streets, strict=False):
        tracks = {track.id: track for track in annotate(street)}
        assert scene.id == f"video_{street.place.index:04d}"
        assert set(scene.track_ids) == set(tracks)
        for k, (name, rows) in enumerate(scene.rows()):
            track = tracks[name]
            assert scene.kind[k] == (track.label == "people")
            np.testing.assert_array_equal(scene.frame[rows], track.frame)
            np.testing.assert_array_equal(scene.box[rows], track.box)
            for tag, words in {"occlusion": OCCLUSION, **LABELS}.items():
                read = (scene.cues if tag == "occlusion" else scene.labels)[tag][rows]
                told = [words.index(word) for word in track.tags.get(tag, [])] or -1
                np.testing.assert_array_equal(read, np.broadcast_to(told, read.shape))
            flags = np.stack([scene.cues[flag][rows] for flag in APPEARANCE], axis=1)
            np.testing.assert_array_equal(flags, track.flags if track.flags.size else -1)
            for fact, words in FACTS.items():
                told = track.facts.get(fact, -1)
                told = words.index(told) if words and track.facts else told
                assert scene.facts[fact][k] == told


def test_traffic_and_ego_motion_match_the_simulation(
    scenes: list[Scene], streets: list[Street]
) -> None:
    for scene, street in zip(scenes, streets, strict=True):
        place = street.place
        passed = street.ego_z > place.spot
        assert scene.length == place.length
        for name, there in zip(
            SIGNALS, (place.zebra, place.ped_sign, place.stop_sign), strict=False
        ):
            assert not scene.signals[name][passed].any()
            assert bool(scene.signals[name].any()) == there
        shown = scene.signals["traffic_light"]
        assert ((shown == place.light) | (shown == TRAFFIC_LIGHT.index("n/a"))).all()
        stands = scene.ego_action == EGO_ACTIONS.index("stopped")
        assert (street.ego_speed[stands] < 0.3).all()
        moved = np.diff(street.ego_z)
        assert (moved >= 0).all()
        np.testing.assert_allclose(moved * 30, street.ego_speed[1:], atol=1e-9)


def test_files_are_serialised_as_in_jaad(root: Path) -> None:
    for path in root.glob("annotations*/video_000[1-3]*.xml"):
        text = path.read_text()
        assert ElementTree.tostring(ElementTree.fromstring(text), "unicode") == text
    task = ElementTree.parse(root / "annotations" / "video_0001.xml").find("meta/task")
    names = "id name size mode overlap bugtracker flipped created updated source labels segments"
    assert [part.tag for part in task] == [
        *names.split(),
        "owner",
        "original_size",
        "video_attributes",
    ]
    box = ["frame", "keyframe", "occluded", "outside", "xbr", "xtl", "ybr", "ytl"]
    names = "id old_id look reaction action cross hand_gesture occlusion nod"
    for track in ElementTree.parse(root / "annotations" / "video_0001.xml").iter("track"):
        assert list(track[0].attrib) == box
        tags = names if track.get("label") == "pedestrian" else "id old_id occlusion"
        assert [tag.get("name") for tag in track[0]] == tags.split()
    for path, tag in (("attributes", "pedestrian"), ("appearance", "box")):
        tree = ElementTree.parse(root / f"annotations_{path}" / f"video_0001_{path}.xml")
        elements = list(tree.iter(tag))
        assert elements and all(list(e.attrib) == sorted(e.attrib) for e in elements)


def test_bystanders_have_shuffled_ids_in_the_appearance_files(root: Path) -> None:
    wrong = 0
    for path in sorted(root.glob("annotations/*.xml"))[:10]:
        names = {}
        for track in ElementTree.parse(path).iter("track"):
            own = {a.get("name"): a.text for a in track[0]}
            names[own["old_id"]] = own["id"]
        dressed = root / "annotations_appearance" / f"{path.stem}_appearance.xml"
        for track in ElementTree.parse(dressed).iter("track"):
            same = names[track.get("old_id")] == track.get("id")
            assert same or track.get("label") == "ped"
            wrong += not same
    assert wrong > 10


def test_a_video_depends_on_seed_and_number_only(root: Path, tmp_path: Path) -> None:
    few = files(write_street(tmp_path / "few", videos=4), "*.xml")
    many = files(root, "*.xml")
    assert few == {name: many[name] for name in few} and len(few) == 20
    other = files(write_street(tmp_path / "other", videos=4, seed=1), "*.xml")
    assert all(few[name] != other[name] for name in few if "/annotations/" in f"/{name}")


def test_splits_are_consecutive_with_the_given_shares(root: Path) -> None:
    for subset in SPLITS:
        splits = read_splits(root, subset)
        assert [len(names) for names in splits.values()] == [14, 4, 6]
        assert sum(splits.values(), ()) == tuple(f"video_{i:04d}" for i in range(1, VIDEOS + 1))


def test_empty_splits_and_used_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 videos leave one of train, val, test empty"):
        write_street(tmp_path, videos=2)
    assert not any(tmp_path.iterdir())
    write_street(tmp_path, videos=3, frames=(20, 20), split=(1, 1, 1))
    with pytest.raises(DataError, match="contains annotations already"):
        write_street(tmp_path)


def test_boxes_match_the_pinhole_camera(streets: list[Street]) -> None:
    for street in streets[:FEW]:
        box, seen, _ = view(street)
        x, z = np.moveaxis(street.position, -1, 0)
        depth = z - street.ego_z[:, None]
        assert (depth[seen] > 1).all()
        assert (box[seen][:, 2:] - box[seen][:, :2] >= 4).all()
        assert (box >= 0).all() and (box <= [1920, 1080, 1920, 1080]).all()
        inside = seen & (box[..., 0] > 0) & (box[..., 2] < 1920) & (box[..., 3] < 1080)
        foot = street.aim[:, None, 1] + FOCAL * EYE / np.maximum(depth, 1)
        centre = street.aim[:, None, 0] + FOCAL * x / np.maximum(depth, 1)
        tall = FOCAL * street.people.height / np.maximum(depth, 1)
        # Annotation noise is a small share of the height, plus rounding to a pixel.
        for drawn, true in (
            (box[..., 3], foot),
            ((box[..., 0] + box[..., 2]) / 2, centre),
            (box[..., 3] - box[..., 1], tall),
        ):
            assert (abs(drawn - true) < 0.05 * tall + 1.5)[inside].all()
        assert np.median(abs(box[..., 3] - foot)[inside]) < 0.02 * np.median(tall[inside]) + 0.5


def test_apparent_height_is_inversely_proportional_to_depth(streets: list[Street]) -> None:
    for street in streets[:FEW]:
        x, z = np.moveaxis(street.position, -1, 0)
        near, far = (
            street.project(x, 0, z + d)[..., 1] - street.project(x, 1.7, z + d)[..., 1]
            for d in (100, 200)
        )
        assert (near > far).all()
        np.testing.assert_allclose(near * (z + 100 - street.ego_z[:, None]), 1.7 * FOCAL, rtol=1e-9)


def test_only_nearer_people_and_cars_occlude(streets: list[Street]) -> None:
    hidden = 0
    for street in streets[:FEW]:
        box, seen, occlusion = view(street)
        cars, car_depth = _car_boxes(street)
        depth = street.position[..., 1] - street.ego_z[:, None]
        depth = np.concatenate([depth, car_depth], 1)
        for t, i in np.argwhere(seen & (occlusion == 2))[::50]:
            overlap = [
                np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
                for a, b in ((box[t, i], other) for other in [*box[t], *cars[t]])
            ]
            area = np.prod(box[t, i, 2:] - box[t, i, :2])
            assert any(
                covered > 0.75 * area and depth[t, j] < depth[t, i]
                for j, covered in enumerate(overlap)
                if j != i
            )
            hidden += 1
    assert hidden


def test_crossing_means_on_the_road_in_front_of_the_ego_vehicle(streets: list[Street]) -> None:
    crossed = 0
    for street in streets:
        cross = street.behaviour["cross"] == 1
        x, z = np.moveaxis(street.position, -1, 0)
        left, right = street.place.kerbs
        assert ((x > left) & (x < right) & (z > street.ego_z[:, None]))[cross].all()
        assert (street.people.goal[np.flatnonzero(cross.any(0))] == CROSS).all()
        for person in np.flatnonzero(cross.any(0) & (street.decided >= 0)):
            assert street.decided[person] < np.flatnonzero(cross[:, person])[0]
            crossed += 1
    assert crossed > 10


def test_the_ego_vehicle_hits_nobody(streets: list[Street]) -> None:
    for street in streets:
        x, z = np.moveaxis(street.position, -1, 0)
        ahead = z - street.ego_z[:, None]
        hit = (abs(x) < 0.9) & (abs(ahead) < 1.5) & (street.ego_speed[:, None] > 1)
        assert not hit.any(), street.place.index


def test_crossing_point_is_the_first_crossing_frame(scenes: list[Scene]) -> None:
    verdicts = {1: 0, 0: 0, -1: 0}
    for scene in scenes:
        for k, (_, rows) in enumerate(scene.rows()):
            if not scene.facts["behaviour"][k]:
                continue
            frame, verdict = scene.frame[rows], int(scene.facts["crossing"][k])
            crossing = frame[scene.labels["cross"][rows] == 1]
            assert (crossing.size > 0) == (verdict == 1)
            point = scene.facts["crossing_point"][k]
            if verdict == 1:
                # As in JAAD, a track that begins on the road has no crossing point.
                assert point == (crossing[0] if crossing[0] > frame[0] else -1)
            else:
                assert point == (frame[-3] if verdict == 0 else -1)
            verdicts[verdict] += 1
    assert min(verdicts.values()) >= 5


def test_orientation_is_relative_to_the_camera(streets: list[Street]) -> None:
    for street in streets[:FEW]:
        box, _, _ = view(street)
        for track in annotate(street):
            if track.label != "pedestrian":
                continue
            same = (box[track.frame] == track.box[:, None]).all(-1).all(0)
            (person,) = np.flatnonzero(same)
            assert (track.flags[:, :4].sum(1) == 1).all()
            heading = street.heading[track.frame, person]
            gaze = np.stack([np.sin(heading), np.cos(heading)], axis=1)
            ray = street.position[track.frame, person] - [0, 1] * street.ego_z[track.frame, None]
            ray /= np.linalg.norm(ray, axis=1, keepdims=True)
            away, rightward = (gaze * ray).sum(1), (gaze * ray[:, ::-1] * [1, -1]).sum(1)
            directions = np.stack(
                [-away, away, -rightward, rightward], axis=1
            )  # front back left right
            chosen = (directions * track.flags[:, :4]).sum(1)
            assert (chosen >= np.sqrt(0.5) - 1e-6).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    return read(write_street(tmp_path_factory.mktemp("street") / "large"))


@pytest.mark.slow
def test_the_default_dataset_is_large_and_balanced_enough_to_train_on(large: list[Scene]) -> None:
    people = benchmark(large, behaviour=True)
    crosses = np.array([scene.facts["crossing"][k] == 1 for scene, k, *_ in people])
    assert len(people) >= 60
    assert 0.5 <= crosses.mean() <= 0.7
    assert len(benchmark(large, behaviour=False)) >= 60
    assert sum((scene.kind == 1).sum() for scene in large) >= 5


@pytest.mark.slow
def test_walking_to_the_road_predicts_crossing_imperfectly(large: list[Scene]) -> None:
    label, score = [], []
    for scene, k, rows, event in benchmark(large, behaviour=True):
        now = event - 45
        if scene.labels["cross"][rows][now] == 1:
            continue  # already on the road, nothing to predict
        x1, y1, x2, y2 = scene.box[rows].T
        lateral = ((x1 + x2) / 2 - scene.width / 2) / (y2 - y1)  # in body heights from the ego path
        label.append(scene.facts["crossing"][k] == 1)
        score.append(abs(lateral[now - 15]) - abs(lateral[now]))
    assert 0.7 < roc_auc_score(label, score) < 0.95


def test_tiny_dataset_has_all_kinds_of_tracks(tiny_root: Path) -> None:
    scenes = read(tiny_root)
    assert tuple(scene.id for scene in scenes) == tiny.VIDEOS
    for scene, facts in zip(scenes, ({-1, 0, 1}, {1}, {1}), strict=True):
        people = benchmark([scene], behaviour=True)
        assert {int(s.facts["crossing"][k]) for s, k, *_ in people} == facts
        assert benchmark([scene], behaviour=False)
    assert any((scene.kind == 1).any() for scene in scenes)


@pytest.mark.parametrize("fault", sorted(set(tiny.FAULTS) - {"gap", "stray_video"}))
def test_each_fault_is_reported_with_its_file(copy: Path, fault: str) -> None:
    path = tiny.FAULTS[fault](copy)
    with pytest.raises(DataError) as error:
        read(copy)
    assert error.value.source == str(path)


def test_gaps_are_read_and_stray_videos_refused(copy: Path) -> None:
    tiny.gap(copy, first=30, last=39)
    tiny.stray_video(copy)
    scene = read(copy)[1]
    assert not np.isin(scene.frame, range(30, 40)).any() and {29, 40} <= set(scene.frame.tolist())
    with pytest.raises(DataError, match="video_9999"):
        read_splits(copy)
