"""Places, sizes and colours of what is drawn on a frame."""

import numpy as np
import pytest

from vidreason.results.overlay import FALLS, OTHER, RISES, Overlay, Shown
from vidreason.scenes.scene import KINDS

PERSON, CAR = KINDS.index("person"), KINDS.index("vehicle")
SIZE = (640, 480)
NAN = np.nan


def shown(box, probability=None, edge=(), weight=(), label=None, kind=None, name=None):
    count = len(box)
    return Shown(
        np.array(box, float).reshape(-1, 4),
        name or [str(n) for n in range(count)],
        np.full(count, PERSON, np.int8) if kind is None else np.array(kind, np.int8),
        np.array([NAN] * count if probability is None else probability, float),
        np.full(count, -1, np.int8) if label is None else np.array(label, np.int8),
        np.array(edge, np.int64).reshape(-1, 2),
        np.array(weight, float),
    )


def draw(*frames, height=480, threshold=0.5, picture=None):
    """The last of some frames, drawn on black."""
    overlay = Overlay(*SIZE, 30.0, threshold, "crosses", height)
    black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8) if picture is None else picture
    for number, one in enumerate(frames):
        canvas = overlay(number, black, one)
    return canvas.astype(int)


def like(canvas, colour, tolerance=12):
    return (np.abs(canvas - np.array(colour)) <= tolerance).all(-1)


@pytest.mark.parametrize(
    ("probability", "colour"), [(0.7, RISES), (0.5, RISES), (0.49, FALLS), (NAN, OTHER)]
)
def test_a_box_is_drawn_in_place_in_the_colour_of_its_prediction(probability, colour):
    canvas = draw(shown([[100, 200, 160, 380]], [probability]))
    hit = like(canvas, colour)
    for x in (100, 160):
        assert hit[210:370, x].all()
    for y in (200, 380):
        assert hit[y, 110:150].all()
    assert not hit[220:370, 105:155].any()


def test_half_the_height_halves_the_coordinates():
    one = shown([[100, 200, 160, 380]], [0.9])
    canvas = draw(one, height=240)
    assert canvas.shape == (240, 320, 3)
    hit = like(canvas, RISES)
    assert hit[110:180, 50].all() and hit[110:180, 80].all() and not hit[110:180, 60:70].any()
    assert draw(one, height=4000).shape == (480, 640, 3)  # never enlarged


def test_bars_are_as_high_as_the_probability():
    heights = {}
    for p in (0.0, 0.25, 0.6, 1.0):
        canvas = draw(shown([[100, 200, 160, 380]], [p]), threshold=0.5)
        bar = canvas[200:381, 94]
        heights[p] = (like(bar, RISES) | like(bar, FALLS)).sum()
    assert heights[0.0] <= 1
    for p in (0.25, 0.6, 1.0):
        # Minus the mark of the threshold, where the bar reaches it.
        assert heights[p] == pytest.approx(180 * p + 1, abs=2)
    # The mark is white and extends on both sides of the bar.
    assert like(canvas[290, 89:99], (255, 255, 255)).all()


def test_edges_have_the_width_and_colour_of_their_influence():
    box = [[100, 300, 120, 340], [500, 300, 520, 340]]
    widths = []
    for weight in (0.0, 0.05, 0.1, 0.2, 5.0):
        canvas = draw(shown(box, [NAN, NAN], [[0, 1]], [weight]))
        column = like(canvas[:, 310], RISES if weight else OTHER, 40)
        widths.append(int(column[250:400].sum()))
    assert widths[0] >= 1 and widths == sorted(widths) and widths[1] < widths[3] == widths[4]
    lowered = draw(shown(box, [NAN, NAN], [[0, 1]], [-0.2]))
    assert like(lowered[318:322, 310], FALLS).any()
    unknown = draw(shown(box, [NAN, NAN], [[0, 1]], [NAN]))
    assert like(unknown[318:322, 310], OTHER, 60).any()


def test_the_label_is_a_line_under_the_box():
    box = [[100, 200, 160, 300], [300, 200, 360, 300], [500, 200, 560, 300]]
    canvas = draw(shown(box, [0.9, 0.9, 0.9], label=[1, 0, -1]))
    assert like(canvas[304, 110:150], RISES).all() and like(canvas[304, 310:350], FALLS).all()
    assert (canvas[304, 510:550] == 0).all()


def test_trails_follow_the_feet_for_a_second_and_end_with_the_track():
    def at(frame):
        return shown([[100 + 4 * frame, 200, 140 + 4 * frame, 300]], [0.9])

    canvas = draw(*(at(frame) for frame in range(60)))
    hit = like(canvas, RISES, 60)[296:304]
    x = np.flatnonzero(hit[:, : 100 + 4 * 59 - 12].any(0))
    # From the position 29 frames ago on.
    assert x.min() == pytest.approx(120 + 4 * 30, abs=3)

    overlay = Overlay(*SIZE, 30.0, 0.5, "crosses")
    for frame in range(100):
        name = [str(frame)]
        overlay(frame, None, shown([[10, 10, 20, 40]], [0.5], name=name))
    assert len(overlay.trails) <= 32


def test_frames_without_boxes_and_without_image():
    canvas = draw(shown([]))
    assert not canvas[30:].any()
    overlay = Overlay(*SIZE, 30.0, 0.5, "")
    before = overlay(0, None, shown([]))
    assert len(np.unique(before[30:].reshape(-1, 3), axis=0)) == 2  # sky and ground


def test_the_input_image_is_not_changed():
    picture = np.full((480, 640, 3), 90, np.uint8)
    draw(shown([[100, 200, 160, 300]], [0.9]), picture=picture)
    assert (picture == 90).all()


@pytest.mark.parametrize("name", ["Zoë <b>", "行人", "x" * 300])
def test_any_name_and_any_position_can_be_drawn(name):
    boxes = [[-50, -50, 20, 10], [630, 470, 900, 900], [0, 0, 640, 480], [300, 0, 301, 1]]
    one = shown(boxes, [0.2, 0.9, 1.0, 0.0], name=[name + str(n) for n in range(4)])
    assert draw(one).shape == (480, 640, 3)


def test_each_non_ascii_character_is_one_question_mark():
    box = [[100, 200, 160, 300]]
    assert (
        draw(shown(box, [0.9], name=["Zoë 行"])) == draw(shown(box, [0.9], name=["Zo? ?"]))
    ).all()


def test_nearer_boxes_are_drawn_over_farther_ones():
    boxes = [[100, 200, 200, 400], [150, 180, 250, 350]]
    canvas = draw(shown(boxes, [0.9, 0.1]))
    swapped = draw(shown(boxes[::-1], [0.1, 0.9]))
    # The first box ends at 400 px and is nearer: its top edge is drawn over the side of the other,
    # in either order.
    assert like(canvas[200, 150], RISES) and like(swapped[200, 150], RISES)


def test_boxes_of_other_kinds_are_labelled_with_their_kind():
    plain = draw(shown([[100, 200, 160, 380]], kind=[PERSON], name=["1"]))
    overlay = Overlay(*SIZE, 30.0, 0.5, "")
    car = overlay(0, np.zeros((480, 640, 3), np.uint8), shown([[100, 200, 160, 380]], kind=[CAR]))
    person = overlay(0, np.zeros((480, 640, 3), np.uint8), shown([[100, 200, 160, 380]]))
    lit = [
        (like(c.astype(int), (255, 255, 255), 90)[180:200]).any(0).nonzero()[0]
        for c in (car, person)
    ]
    assert lit[0].max() > lit[1].max() + 30  # "vehicle 0" is longer than "0"
    # With predictions, only boxes that have one are labelled.
    assert not like(plain, (255, 255, 255), 90)[180:200].any()
