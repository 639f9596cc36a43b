"""The place ahead as a track: its label, windows, graphs and baselines."""

import numpy as np
import pytest
import torch
from make import scenes as made

from vidreason.core.errors import DataError
from vidreason.intent.baselines import counts, persistence
from vidreason.intent.datasets import split_videos
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.places import PLACE, inside, with_place
from vidreason.intent.windows import make_windows


def at(x, y):
    """Returns a box of 40 x 90 pixels whose bottom center is at (x, y)."""
    return np.array([[x - 20, y - 90, x + 20, y]], np.float32)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (960, 1080, True),  # in front of the bonnet
        (960, 881, True),
        (960, 879, False),  # too far ahead
        (90, 1080, True),  # the side is at 90 / 4 - 20 = 2.5 pixels
        (90, 1077, False),
        (79, 1080, False),
        (1830, 1080, True),
        (1830, 1077, False),
        (500, 976, True),  # the side is at 105 pixels
        (500, 974, False),
    ],
)
def test_the_lane_ahead_is_a_trapezoid_that_scales_with_the_image(x, y, expected):
    assert inside(at(x, y), 1920, 1080).tolist() == [expected]
    assert inside(at(x, y) * 2 / 3, 1280, 720).tolist() == [expected]


def test_the_trapezoid_is_symmetric():
    rng = np.random.default_rng(0)
    box = made.walk(rng, np.arange(2000), 1920, 1080) + rng.uniform(-800, 800, (2000, 1))
    mirrored = np.stack([1920 - box[:, 2], box[:, 1], 1920 - box[:, 0], box[:, 3]], 1)
    found = inside(box, 1920, 1080)
    assert 0 < found.mean() < 1
    assert (found == inside(mirrored, 1920, 1080)).all()


def lower(scene):
    """Returns the scene with all boxes moved to the lower edge, so that some are in the place."""
    box = scene.box.copy()
    box[:, 1::2] += (scene.height - 60 - box[:, 3].mean()) if len(box) else 0
    return made.changed(scene, box=box)


@pytest.mark.parametrize("seed", range(4))
def test_the_place_is_occupied_when_a_person_is_in_it(seed):
    scene = lower(made.scene(seed, tracks=5))
    found = with_place(scene)
    assert found.track_ids == (*scene.track_ids, PLACE)
    (name, rows) = list(found.rows())[-1]
    assert name == PLACE
    assert found.frame[rows].tolist() == list(range(scene.length))
    expected = [0] * scene.length
    for k, (_, boxes) in enumerate(scene.rows()):
        for frame, box in zip(scene.frame[boxes], scene.box[boxes], strict=True):
            if scene.kind[k] == 0 and inside(box[None], scene.width, scene.height)[0]:
                expected[frame] = 1
    assert 0 < sum(expected) < scene.length
    assert found.labels["cross"][rows].tolist() == expected
    assert (found.box[rows] == found.box[rows][0]).all()
    # The other columns are unchanged.
    for column in ("frame", "box", "kind"):
        before = getattr(scene, column)
        np.testing.assert_array_equal(getattr(found, column)[: len(before)], before)
    for table in ("facts", "cues", "labels"):
        for name, column in getattr(scene, table).items():
            np.testing.assert_array_equal(getattr(found, table)[name][: len(column)], column)
            assert getattr(found, table)[name].dtype == column.dtype


def test_groups_do_not_occupy_the_place():
    scene = lower(made.scene(1, tracks=4))
    groups = made.changed(scene, kind=np.ones(4, np.int8))
    assert with_place(scene).labels["cross"][len(scene.frame) :].any()
    assert not with_place(groups).labels["cross"][len(scene.frame) :].any()


def test_windows_of_places_are_cut_from_one_track_per_video():
    scenes = [with_place(lower(scene)) for scene in made.scenes(3)]
    windows = make_windows(scenes, "stip", "place", 20)
    expected = [range(0, scene.length - 50 + 1, 5) for scene in scenes]
    assert windows.first_frame.tolist() == [start for r in expected for start in r]
    assert {scenes[s].track_ids[k] for s, k in zip(windows.scene, windows.track, strict=True)} == {
        PLACE
    }
    cross = scenes[0].labels["cross"][-scenes[0].length :]
    np.testing.assert_array_equal(windows.label[1], cross[5:55])
    # The windows of pedestrians are unchanged.
    plain = make_windows(made.scenes(3), "stip", "beh", 20)
    assert len(make_windows(scenes, "stip", "beh", 20)) == len(plain)


def test_the_benchmark_has_no_windows_of_places():
    with pytest.raises(
        DataError, match="^subset: 'place' with 'benchmark'; use the protocol 'stip'"
    ):
        make_windows([with_place(made.scene(0))], "benchmark", "place")


def test_persons_are_neighbours_of_the_place_which_is_its_own_mirror_image():
    scenes = [with_place(lower(made.scene(5, tracks=4)))]
    windows = make_windows(scenes, "stip", "place", 10)
    builder = GraphBuilder(scenes, windows, ["box", "neighbours"])
    index = np.arange(len(windows))
    graph, swapped = builder(index), builder(index, np.ones(len(windows), bool))
    persons = [name for name in scenes[0].track_ids if name != PLACE]
    seen = np.zeros(len(windows), int)
    for w in index:
        frames = set(range(windows.first_frame[w], windows.last_frame[w] + 1))
        for _, rows in list(scenes[0].rows())[: len(persons)]:
            seen[w] += bool(frames & set(scenes[0].frame[rows].tolist()))
    assert (np.bincount(graph["person"].batch) - 1).tolist() == seen.tolist()
    place = graph["person"].ptr[:-1]
    assert torch.equal(graph["person"].x[place], swapped["person"].x[place])
    assert graph["person"].valid[place].all()


def test_baselines_of_places_count_persons():
    scenes = [with_place(lower(scene)) for scene in made.scenes(7)]
    windows = make_windows(scenes, "stip", "place", 12)
    found, again = counts((scenes, windows)), persistence((scenes, windows))
    assert found[:, 3:].any()
    for w in range(0, len(windows), 7):
        scene = scenes[windows.scene[w]]
        first, last = int(windows.first_frame[w]), int(windows.last_frame[w])
        row = []
        for lane in (False, True):
            for frame in (first, (first + last) // 2, last):
                persons = 0
                for k, (_, rows) in enumerate(scene.rows()):
                    hit = scene.frame[rows] == frame
                    feet = inside(scene.box[rows][hit], scene.width, scene.height)
                    persons += int(scene.kind[k] == 0 and hit.any() and (feet[0] or not lane))
                row.append(persons)
        assert found[w].tolist() == row
        assert set(again[w]) == {float(windows.label[w, 29])}
        assert again[w, 0] == (row[5] > 0)


@pytest.mark.parametrize(
    ("horizon", "windows", "accuracy"), [(30, 3_000, 0.920), (60, 2_424, 0.869), (90, 1_868, 0.829)]
)
def test_places_of_real_jaad_videos(real, horizon, windows, accuracy):
    names = set(split_videos("stip", {}, [scene.id for scene in real], "test"))
    scenes = [with_place(scene) for scene in real if scene.id in names]
    found = make_windows(scenes, "stip", "place", horizon)
    assert len(found) == windows
    now, coming = found.label[:, 29:30], found.label[:, 30:]
    assert (now == coming).mean() == pytest.approx(accuracy, abs=1e-3)
