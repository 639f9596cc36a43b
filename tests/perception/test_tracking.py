import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from vidreason.perception.masks import boxes, encode, pool
from vidreason.perception.tracking import Tracker, assign, box_iou, cosine_similarity
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import _MIN_AREA, Film, TrueMasks
from vidreason.simulation.world import simulate

PERSON, VEHICLE = KINDS.index("person"), KINDS.index("vehicle")


def image(rectangles, size=(120, 200)):
    """Returns instance numbers of rectangles x1, y1, x2, y2; later ones occlude earlier ones."""
    numbers = np.zeros(size, np.uint8)
    for n, (x1, y1, x2, y2) in enumerate(rectangles, 1):
        numbers[max(y1, 0) : y2, max(x1, 0) : x2] = n
    return numbers


def track_frame(tracker, rectangles, kinds=None, appearance=None):
    """Returns the track of each rectangle, -1 if it is fully occluded."""
    numbers = image(rectangles)
    there = np.unique(numbers[numbers > 0])
    rank = np.zeros(256, np.uint8)
    rank[there] = np.arange(1, len(there) + 1)
    kind = np.full(len(rectangles), PERSON) if kinds is None else np.array(kinds)
    box = boxes(encode(rank[numbers], len(there)))
    found = np.full(len(rectangles), -1)
    if appearance is None:
        appearance = np.zeros((len(rectangles), 0))
    rows = np.array(appearance, float)[there - 1]
    found[there - 1] = tracker(rank[numbers], kind[there - 1].astype(np.int8), box, rows)
    return found.tolist()


def test_intersection_over_union():
    one = np.array([[0, 0, 10, 10], [0, 0, 4, 4.0]])
    two = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10.0]])
    want = [[50 / 150, 0, 1], [0, 0, 16 / 100]]
    np.testing.assert_allclose(box_iou(one, two), want)


def test_pairs_below_the_threshold_do_not_break_up_better_ones():
    score = np.array([[0.6, 0.55], [0.5, 0.04]])
    assert [list(x) for x in assign(score, 0.1)] == [[0, 1], [1, 0]]
    # The maximal sum, 0.09 + 0.6, would use a pair below the threshold.
    score = np.array([[0.65, 0.6], [0.09, 0.0]])
    assert [x.tolist() for x in assign(score, 0.1)] == [[0], [0]]


def test_tracks_survive_people_passing_each_other():
    tracker = Tracker(30, 0)
    for t in range(40):
        found = track_frame(
            tracker, [(10 + 3 * t, 20, 24 + 3 * t, 60), (150 - 3 * t, 20, 164 - 3 * t, 62)]
        )
        assert [n for n in found if n >= 0] == [n for n, f in enumerate(found) if f >= 0]
    assert tracker.count == 2


@pytest.mark.parametrize(("gap", "same"), [(20, True), (59, True), (61, False)])
def test_a_track_ends_after_two_seconds_without_a_match(gap, same):
    tracker = Tracker(30, 0)
    for _ in range(5):
        track_frame(tracker, [(50, 20, 70, 60)])
    for _ in range(gap):
        track_frame(tracker, [])
    assert track_frame(tracker, [(50, 20, 70, 60)]) == [0 if same else 1]


def test_a_track_keeps_its_kind():
    tracker = Tracker(30, 0)
    assert track_frame(tracker, [(50, 20, 70, 60)], [PERSON]) == [0]
    assert track_frame(tracker, [(50, 20, 70, 60)], [VEHICLE]) == [1]
    assert track_frame(tracker, [(50, 20, 70, 60)], [PERSON]) == [0]


def test_tracks_do_not_depend_on_the_order_of_instances():
    rng = np.random.default_rng(0)
    rectangles = [(10, 10, 30, 50), (60, 12, 80, 52), (110, 14, 130, 54), (160, 16, 180, 56)]
    tracker = Tracker(10, 0)
    first = track_frame(tracker, rectangles)
    for _ in range(6):
        order = rng.permutation(4)
        found = track_frame(tracker, [rectangles[n] for n in order])
        assert found == [first[n] for n in order]


def test_a_track_survives_partial_occlusion():
    tracker, pole = Tracker(30, 0), (96, 0, 104, 120)
    for t in range(60):
        found = track_frame(tracker, [(60 + t, 40, 74 + t, 90), pole], [PERSON, VEHICLE])
        assert found == [0, 1]


def test_low_frame_rate_and_empty_frames():
    tracker = Tracker(2, 0)
    assert track_frame(tracker, []) == []
    assert track_frame(tracker, [(50, 20, 70, 60)]) == [0]
    for _ in range(9):
        assert track_frame(tracker, []) == []
    assert track_frame(tracker, [(50, 20, 70, 60), (100, 20, 120, 60)]) == [1, 2]


def agreement(index):
    """Returns the share of instances in the track assigned to their object (as in IDF1)."""
    film = Film(simulate(0, index, (45, 50)))
    truth, tracker, pairs = TrueMasks(film), Tracker(30, 3), []
    for t in range(film.street.place.length):
        picture, numbers = film(t)
        found = truth.instances(picture, numbers)
        there = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256) >= _MIN_AREA)
        box = boxes(encode(found.image, len(found.kind)))
        appearance = pool(found.features, found.image, len(box))
        track = tracker(found.image, found.kind, box, appearance)
        pairs += list(zip(there[there > 0], track, strict=True))
    objects, tracks = np.unique(np.array(pairs), axis=0, return_inverse=True)[0].T.max(1) + 1
    count = np.zeros((objects, tracks), int)
    np.add.at(count, tuple(np.array(pairs).T), 1)
    return count[linear_sum_assignment(count, maximize=True)].sum() / len(pairs)


def test_appearance_decides_after_an_occlusion():
    red, blue, other = (9, 0, 1), (0, 9, 1), (4, 4, 9)
    for swapped in (False, True):
        tracker = Tracker(10, 3)
        stand = [(50, 20, 64, 60), (66, 20, 80, 60), (150, 20, 164, 60)]
        for _ in range(3):
            assert track_frame(tracker, stand, appearance=[red, blue, other]) == [0, 1, 2]
        for _ in range(6):
            track_frame(tracker, stand[2:], appearance=[other])
        # Midway between the two previous boxes.
        back, colours = [(58, 20, 72, 60), stand[2]], [(red, blue)[swapped], other]
        assert track_frame(tracker, back, appearance=colours) == [int(swapped), 2]


def test_similarity_does_not_depend_on_scale():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 5, 4))
    scale, shift = np.array([1e3, 1e-3, 7, 1]), np.array([0, 5, -3, 1e2])
    found = cosine_similarity(one * scale + shift, two * scale + shift)
    np.testing.assert_allclose(found, cosine_similarity(one, two), atol=1e-2)
    assert cosine_similarity(one[:0], two).shape == (0, 5)
    assert cosine_similarity(one[:, :0], two[:, :0]).shape == (5, 5)
    np.testing.assert_allclose(cosine_similarity(one, one).diagonal(), 1, atol=1e-4)


@pytest.mark.parametrize("index", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_tracks_match_the_objects_of_a_street(index):
    assert agreement(index) > 0.99
