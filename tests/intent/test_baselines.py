"""Baselines and oracle rules, against loops over windows and against published values."""

import numpy as np
import pytest
from make import scenes as made

from vidreason.intent.baselines import box_trees, majority, oracles, persistence, summaries
from vidreason.intent.datasets import split_videos
from vidreason.intent.metrics import measure
from vidreason.intent.windows import make_windows
from vidreason.scenes.jaad import read_splits
from vidreason.scenes.scene import KINDS, ORIENTATION

EVERY = ("box", "ego", "traffic", "orientation", "neighbours")


def split(seed, protocol="benchmark", subset="all", horizon=6, count=12):
    scenes = made.scenes(seed, count)
    return scenes, make_windows(scenes, protocol, subset, horizon)


def slow_summary(scene, windows, w, features):
    """Returns the summary of one window, computed from the scene."""
    rows = np.arange(windows.row[w], windows.row[w] + windows.observed)
    size = np.array([scene.width, scene.height] * 2)
    box = scene.box[rows].astype(float) / size
    first, last, final = rows[0], rows[-1], scene.frame[rows[-1]]
    columns = []
    for t in range(windows.observed // 15, windows.observed, windows.observed // 15):
        columns += list(box[t] - box[0])
    centre = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in box]
    extent = [(b[2] - b[0], b[3] - b[1]) for b in box]
    columns += [*centre[-1], *centre[0], *extent[-1], *extent[0], extent[-1][1] / extent[0][1]]
    tall = scene.box[last, 3] - scene.box[last, 1]
    shift = [
        (
            scene.box[last, i]
            + scene.box[last, i + 2]
            - scene.box[first, i]
            - scene.box[first, i + 2]
        )
        / 2
        / tall
        for i in (0, 1)
    ]
    side = 0.5 - centre[-1][0]
    columns += [*shift, abs(side), side * np.sign(shift[0])]
    if "ego" in features:
        for t in (0, windows.observed // 2, windows.observed - 1):
            action = scene.ego_action[scene.frame[rows[t]]]
            columns += [action == code for code in range(5)]
    if "traffic" in features:
        signals = {name: column[final] for name, column in scene.signals.items()}
        columns += [signals["traffic_light"] == 1, signals["traffic_light"] == 2]
        columns += [signals[name] for name in ("ped_crossing", "ped_sign", "stop_sign")]
        columns += [scene.attributes["road_type"] == "street"]
    if "orientation" in features:
        for t in (0, (windows.observed - 1) // 2, windows.observed - 1):
            columns += [scene.cues[name][rows[t]] for name in ORIENTATION]
        right, left = (int(scene.cues[f"pose_{side}"][last]) for side in ("right", "left"))
        columns += [np.sign(side) * (right - left)]
    if "neighbours" in features:
        middles = [
            (scene.box[r, 0] + scene.box[r, 2]) / 2
            for k, (_, part) in enumerate(scene.rows())
            for r in range(part.start, part.stop)
            if r != last and scene.frame[r] == final and scene.kind[k] == KINDS.index("person")
        ]
        mine = (scene.box[last, 0] + scene.box[last, 2]) / 2
        gaps = [abs(m - mine) / scene.width for m in middles]
        columns += [len(middles), min(gaps, default=np.nan)]
    return np.array(columns, float)


@pytest.mark.parametrize("protocol", ["benchmark", "stip"])
@pytest.mark.parametrize("features", [("box",), *(("box", name) for name in EVERY[1:]), EVERY])
def test_summaries_equal_a_loop_over_windows(protocol, features):
    scenes, windows = split(4, protocol)
    assert len(windows) > 20
    fast = summaries((scenes, windows), features)
    slow = np.stack(
        [
            slow_summary(scenes[s], windows, w, features)
            for w, s in zip(range(len(windows)), windows.scene, strict=True)
        ]
    )
    np.testing.assert_allclose(fast, slow, rtol=2e-4, atol=2e-6)


def test_summaries_do_not_depend_on_labels_and_facts():
    scenes, windows = split(4)
    unlabelled = [
        made.changed(
            s,
            labels={name: np.zeros_like(column) for name, column in s.labels.items()},
            facts={name: np.zeros_like(column) for name, column in s.facts.items()},
        )
        for s in scenes
    ]
    np.testing.assert_array_equal(
        summaries((scenes, windows), EVERY), summaries((unlabelled, windows), EVERY)
    )


@pytest.mark.parametrize("protocol", ["benchmark", "stip"])
def test_oracles_equal_a_loop_over_windows(protocol):
    scenes, windows = split(5, protocol)
    rules = oracles((scenes, windows))
    assert all(rule.shape == (len(windows), windows.horizon) for rule in rules.values())
    for w, (s, k) in enumerate(zip(windows.scene, windows.track, strict=True)):
        last = windows.row[w] + windows.observed - 1
        assert scenes[s].frame[last] == windows.last_frame[w]
        expected = {
            "persistence": scenes[s].labels["cross"][last] == 1,
            "behaviour tags": scenes[s].track_ids[k].endswith("b"),
            "moves laterally": scenes[s].facts["motion_direction"][k] == 1,
            "walks": scenes[s].labels["action"][last] == 1,
        }
        for name, rule in rules.items():
            assert (rule[w] == expected[name]).all(), name


def test_majority_is_the_fraction_of_positives_among_training_windows():
    _, train = split(6, "stip")
    _, windows = split(7, "stip")
    label = train.label.copy()
    label[:, train.observed] = -1  # no labels at the first horizon
    label[:3, train.observed + 1] = -1
    train.label[:] = label
    share = majority(train, windows)
    assert share.shape == (len(windows), 6) and (share == share[0]).all()
    assert share[0, 0] == 0
    assert share[0, 1] == pytest.approx((label[3:, train.observed + 1] == 1).mean())


def test_trees_learn_from_boxes_and_are_deterministic():
    train, test = split(8), split(9)
    for part in (train, test):
        # The label is the position of the pedestrian, a column of the summaries.
        part[1].label[:, -1] = summaries(part, ("box",))[:, 15 * 4] > 0.5
    (probability,) = box_trees(train, [test], ["box"])
    assert probability.shape == (len(test[1]), 1)
    assert measure(probability[:, 0], test[1].label[:, -1])["roc_auc"] > 0.95
    (again,) = box_trees(train, [test], ["box"])
    np.testing.assert_array_equal(probability, again)


def test_trees_interpolate_between_fitted_horizons():
    train, test = split(10, "stip", count=8), split(11, "stip", count=4)
    first, last = train[1].observed, train[1].observed + 5
    train[1].label[:, first:] = 0
    train[1].label[:, last] = 1  # a single class per horizon: its probability is 0 or 1
    (probability,) = box_trees(train, [test], ["box"])
    # Fitted at 1, 2, 4 and 6 frames ahead; the fifth is half way between 0 and 1.
    np.testing.assert_allclose(probability, np.tile([0, 0, 0, 0, 0.5, 1], (len(test[1]), 1)))


def test_trees_do_not_use_windows_without_label():
    train, test = split(12, count=8), split(13, count=4)
    label = train[1].label[:, -1]
    label[: len(label) // 2] = -1
    label[len(label) // 2 :] = 1
    (probability,) = box_trees(train, [test], ["box"])
    assert (probability == 1).all()


def test_no_windows_give_no_predictions():
    train = split(14, count=4)
    empty = train[0], train[1].take(np.zeros(len(train[1]), bool))
    (probability,) = box_trees(train, [empty], EVERY)
    assert probability.shape == (0, 1) and majority(train[1], empty[1]).shape == (0, 1)


def published(real_root, scenes, protocol, subset, name, horizon=30):
    videos = {scene.id: scene for scene in scenes}
    names = split_videos(protocol, read_splits(real_root), list(videos), name)
    part = [videos[video] for video in names]
    return part, make_windows(part, protocol, subset, horizon)


@pytest.mark.parametrize(
    ("subset", "rules", "trees"),
    [
        (
            "beh",
            {"persistence": 0.654, "moves laterally": 0.924, "walks": 0.622},
            {"accuracy@0.5": 0.725, "roc_auc": 0.782, "f1@0.5": 0.805},
        ),
        pytest.param(
            "all",
            {"persistence": 0.903, "moves laterally": 0.979, "behaviour tags": 0.895},
            {"accuracy@0.5": 0.864, "roc_auc": 0.944, "f1@0.5": 0.692},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_scores_on_the_jaad_benchmark(real_root, real, subset, rules, trees):
    train, test = (
        published(real_root, real, "benchmark", subset, name) for name in ("train", "test")
    )
    label = test[1].label[:, -1]
    found = oracles(test)
    for name, accuracy in rules.items():
        assert (found[name][:, 0] == label).mean() == pytest.approx(accuracy, abs=5e-4), name
    (probability,) = box_trees(train, [test], ["box", "ego", "traffic", "orientation"])
    values = measure(probability[:, 0], label)
    assert {name: values[name] for name in trees} == pytest.approx(trees, abs=0.01)


@pytest.mark.parametrize(("horizon", "accuracy"), [(30, 0.930), (60, 0.847), (90, 0.753)])
def test_accuracy_of_persistence_on_jaad_with_the_stip_protocol(real_root, real, horizon, accuracy):
    test = published(real_root, real, "stip", "beh", "test", horizon)
    correct = persistence(test) == test[1].label[:, test[1].observed :]
    assert correct.mean() == pytest.approx(accuracy, abs=1e-3)
