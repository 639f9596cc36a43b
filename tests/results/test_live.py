"""`Live` predicts as for the whole scene, at any frame rate and in any order of instances."""

import dataclasses

import numpy as np
import pytest
import torch

from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.networks import IntentGraphNet
from vidreason.intent.task import IntentTask
from vidreason.results.forecasts import forecast_scene
from vidreason.results.live import Live
from vidreason.runs.train import load_with_data
from vidreason.scenes.jaad import read_jaad
from vidreason.scenes.scene import KINDS

SIZE = (1000, 600)
PERSON, CAR = KINDS.index("person"), KINDS.index("vehicle")


def make(features=("box", "neighbours"), image_features=0, **options):
    torch.manual_seed(0)
    data = IntentData(features, store="x" if image_features else "", image_features=image_features)
    net = IntentGraphNet(features, 16, 1, hidden=8, image_features=image_features, **options)
    return IntentTask(net, average=0).eval(), data


def walk(frame, count=3):
    """Boxes (N, 4), px, of persons at constant velocity, at a possibly fractional frame."""
    k = np.arange(count)
    x, y = 200 + 100 * k + (2 + k) * frame, 200 + 30.0 * k + 0.5 * frame
    return np.stack([x, y, x + 40 + 0.2 * frame, y + 120 + 0.4 * frame], 1)


def feed(live, frames, boxes=walk, hide=()):
    """Predictions for the last of some frames; `hide` are pairs of frame and person."""
    for frame in frames:
        box = boxes(frame)
        there = np.array([k for k in range(len(box)) if (frame, k) not in hide])
        now = live(frame, there + 10, np.full(len(there), PERSON, np.int8), box[there])
    return now


def gaps(scene):
    """Whether a track has gaps: windows cross them, live predictions do not."""
    return any((np.diff(scene.frame[rows]) > 1).any() for _, rows in scene.rows())


def test_live_predictions_equal_those_for_the_whole_scene(streets):
    task, data = make()
    compared = edges = 0
    whole = [one for one in read_jaad(streets) if not gaps(one) and len(one.kind) > 4]
    for scene in sorted(whole, key=lambda one: len(one.frame))[:1]:
        # A tracker gives no occlusion.
        unknown = {name: np.full_like(cue, -1) for name, cue in scene.cues.items()}
        scene = dataclasses.replace(scene, fps=30.0, cues=unknown)
        afterwards = forecast_scene(task, data, scene)
        wanted = {
            (f, k): p
            for f, k, p in zip(
                afterwards.frame, afterwards.track, afterwards.probability, strict=True
            )
        }
        changes = {
            (afterwards.frame[w], s, afterwards.track[w]): c
            for w, s, c in zip(afterwards.window, afterwards.sender, afterwards.change, strict=True)
        }
        track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
        live = Live(task, data, 30.0, (scene.width, scene.height))
        rng = np.random.default_rng(0)
        for frame in range(scene.length):
            rows = rng.permutation(np.flatnonzero(scene.frame == frame))
            now = live(frame, track[rows], scene.kind[track[rows]], scene.box[rows])
            for row, p in zip(rows, now.probability, strict=True):
                assert np.isnan(p).all() == ((frame, track[row]) not in wanted)
                if np.isfinite(p).all():
                    assert p == pytest.approx(wanted[frame, track[row]], abs=1e-5)
                    compared += 1
            for (sender, target), change in zip(now.edge, now.change, strict=True):
                key = frame, track[rows[sender]], track[rows[target]]
                assert change == pytest.approx(changes[key], abs=1e-5)
                edges += 1
    assert compared > 200 and edges > 200


def test_predictions_do_not_depend_on_the_frame_rate():
    task, data = make()
    want = feed(Live(task, data, 30.0, SIZE), range(31))
    every_third = feed(Live(task, data, 30.0, SIZE, every=3), range(0, 31, 3))
    twice = feed(Live(task, data, 60.0, SIZE), range(61), lambda frame: walk(frame / 2))
    slow = feed(Live(task, data, 12.0, SIZE), range(13), lambda frame: walk(frame * 2.5))
    assert np.isfinite(want.probability).all() and len(want.edge) == 6
    for other in (every_third, twice, slow):
        assert other.probability == pytest.approx(want.probability, abs=1e-5)
        assert other.change == pytest.approx(want.change, abs=1e-5)
    other_way = feed(Live(task, data, 30.0, SIZE), range(31), lambda frame: walk(30 - frame))
    assert np.abs(other_way.probability - want.probability).max() > 1e-3


def test_occlusions_of_half_a_second_are_interpolated_and_longer_ones_are_not():
    task, data = make()
    want = feed(Live(task, data, 30.0, SIZE), range(40))
    short = {(frame, 1) for frame in range(20, 34)}
    assert feed(Live(task, data, 30.0, SIZE), range(40), hide=short).probability == pytest.approx(
        want.probability, abs=1e-5
    )
    long = {(frame, 1) for frame in range(18, 34)}
    found = feed(Live(task, data, 30.0, SIZE), range(40), hide=long).probability
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


def test_new_tracks_and_vehicles_get_no_prediction():
    task, data = make()
    live = Live(task, data, 30.0, SIZE)
    for frame in range(20):
        kind = np.array([PERSON, CAR, PERSON], np.int8)[: 2 if frame < 10 else 3]
        now = live(frame, np.arange(len(kind)), kind, walk(frame, len(kind)))
    assert np.isfinite(now.probability[:, 0]).tolist() == [True, False, False]
    assert now.edge.tolist() == [[2, 0]]  # a new track is a neighbour already, a vehicle is not
    nobody = live(20, np.empty(0, int), np.empty(0, np.int8), np.empty((0, 4)))
    assert nobody.probability.shape == (0, 1)
    left = live(21, np.array([9]), np.array([PERSON], np.int8), walk(0, 1))
    assert np.isnan(left.probability).all() and not len(left.edge)


def test_memory_is_bounded():
    task, data = make()
    live = Live(task, data, 30.0, SIZE)
    lengths = []
    for frame in range(200):
        live(frame, np.array([frame]), np.array([PERSON], np.int8), walk(frame, 1))
        lengths.append(len(live.seen))
    assert max(lengths) == lengths[60] == lengths[-1] < 40


def test_appearance_features_are_those_of_the_last_processed_frame():
    task, data = make(image_features=2)
    live = Live(task, data, 30.0, SIZE)
    look = np.array([[1.0, 2.0]], np.float16)
    person = np.array([PERSON], np.int8)
    for frame in range(20):
        now = live(frame, np.array([0]), person, walk(frame, 1), look * frame)
    scene, ids = live._scene(19)
    assert ids.tolist() == [0] and np.isfinite(now.probability).all()
    assert scene.image.tolist() == [[frame, 2 * frame] for frame in range(4, 20)]
    with pytest.raises(DataError, match="gives 3 appearance features, the model needs 2"):
        live(20, np.array([0]), person, walk(20, 1), np.zeros((1, 3)))


def test_models_that_need_more_than_a_video_shows_are_refused():
    task, data = load_with_data("jaad_all")
    with pytest.raises(DataError, match="need ego, traffic, which a video alone does not show"):
        Live(task, data, 30.0, SIZE)
