"""One fault anywhere in a sound data set is refused, and the line names the file that has it."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import parsers
from make.parsers import PARSERS

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls, write_balls

NO_NUMBER = ("", "x", "nan", "inf", "-inf", "1e999", "1_0", "\u0661", "0x10", "1,5")
NO_WHOLE = ("", "x", "1.5", "1e3", "1_0 0", "nan", "99999999999")
CORNER = '( (?:xtl|ytl|xbr|ybr)=")[^"]*'
FRAME = '(<box frame=")[^"]*'
PIE_WHOLE = ("", "x", "1.5", "-2", "nan", "99999999999")
OUT = ("-1", "1.5", "99999", "x", "")


class Fault(NamedTuple):
    """What is replaced: one match of a pattern, by its first group and one of some words."""

    parser: str
    pattern: str
    words: tuple[str, ...]


JAAD, PIE = "jaad annotations", "pie annotations"
BEHAVIOUR = '(<attribute name="(?:cross|look|action|nod|hand_gesture|reaction|occlusion)">)[^<]*'
FACTS = "age|gender|designated|signalized|intersection|motion_direction|traffic_direction"
NUMBERS = "crossing|crossing_point|decision_point|group_size|num_lanes"
FAULTS = {
    "JAAD, corner": Fault(JAAD, CORNER, NO_NUMBER),
    "JAAD, frame": Fault(JAAD, FRAME, OUT),
    "JAAD, corner or frame left out": Fault(JAAD, '() (?:xtl|ytl|xbr|ybr|frame)="[^"]*"', ("",)),
    "JAAD, word": Fault(JAAD, BEHAVIOUR, ("", "crosing", "1", "not crossing", "WALKING")),
    "JAAD, tag left out": Fault(JAAD, '(<attribute name=")occlusion', ("occluded", "")),
    "JAAD, label": Fault(JAAD, '(<track [^>]*label=")[^"]*', ("", "person", "pedestrians")),
    "JAAD, size": Fault(JAAD, "(<(?:size|width|height)>)[^<]*", ("", "0", "-3", "x", "1e9")),
    "JAAD, fact": Fault("jaad annotations_attributes", f'( (?:{FACTS})=")[^"]*', ("", "odd", "3")),
    "JAAD, number": Fault("jaad annotations_attributes", f'( (?:{NUMBERS})=")[^"]*', NO_WHOLE),
    "JAAD, pedestrian": Fault("jaad annotations_attributes", "()<pedestrian [^>]*/>", ("",)),
    "JAAD, pose": Fault("jaad annotations_appearance", '( pose_[a-z]+=")[^"]*', ("", "2", "yes")),
    "JAAD, light": Fault("jaad annotations_traffic", '( traffic_light=")[^"]*', ("", "blue")),
    "JAAD, frame of the road": Fault("jaad annotations_traffic", '(<frame id=")[^"]*', OUT),
    "JAAD, frame of the road left out": Fault("jaad annotations_traffic", "()<frame [^>]*>", ("",)),
    "JAAD, ego": Fault("jaad annotations_vehicle", '( action=")[^"]*', ("", "flying")),
    "JAAD, list": Fault("jaad split", r"()\w+", ("video_9999", "", "../x", "video_0001")),
    "PIE, corner": Fault(PIE, CORNER, NO_NUMBER),
    "PIE, frame": Fault(PIE, FRAME, OUT),
    "PIE, word": Fault(PIE, '(<attribute name="(?:cross|look|action)">)[^<]*', ("", "crosing")),
    "PIE, light": Fault(PIE, '(<attribute name="state">)[^<]*', ("", "blue")),
    "PIE, label": Fault(PIE, '(<track [^>]*label=")[^"]*', ("", "person")),
    "PIE, point": Fault("pie annotations_attributes", '( crossing_point=")[^"]*', PIE_WHOLE),
    "PIE, speed": Fault("pie annotations_vehicle", '( OBD_speed=")[^"]*', ("", "x", "1e999")),
    "PIE, frame of the car": Fault("pie annotations_vehicle", '(<frame id=")[^"]*', OUT),
    "STIP, corner": Fault(
        "stip boxes", r'("box": \{[^}]*"[xy]\d": )[\d.]+', ("true", '"5"', "NaN", "1e999", "[1]")
    ),
    "STIP, frame": Fault("stip boxes", r'(")\d+(?=": \[)', ("x", "0", "-1", "1.5", "")),
    "STIP, state": Fault("stip boxes", '("crossed": )(?:true|false)', ("1", '"yes"', "[]")),
    "STIP, rows": Fault("stip boxes", r'("\d+": )\[', ('"a", "b": [', "7, [")),
    "STIP, segment": Fault("stip segments", r"()\d\d:\d\d -- ", ("00:99 -> ", "", "59:59 -- ")),
    "boxes, corner": Fault("boxes", r"(,)(?:1|2|30|40)(?=,)", ("", "x", "nan", "inf")),
    "boxes, frame": Fault("boxes", "(v,p,)[34]", ("", "x", "-1", "1.5", "50", "5000000000")),
    "boxes, kind": Fault("boxes", "(,)person", ("pedestrian", "Person")),
    "boxes, video": Fault("boxes", "()(?<=\n)v", ("", "w")),
    "boxes, column": Fault("boxes", "()(?:video|pedestrian|frame|x1|kind)(?=,)", ("", "odd")),
    "boxes, size": Fault("boxes videos", "(,)(?:30|100|80|50)(?=,)", ("", "x", "0", "-1", "nan")),
    "boxes, split": Fault("boxes videos", "(,)train", ("", "training")),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """By parser, a data set that is not to be changed for long."""
    found = {}
    for fault in FAULTS.values():
        if fault.parser not in found:
            root = found[fault.parser] = tmp_path_factory.mktemp("sound")
            PARSERS[fault.parser].make(root)
    return found


@pytest.mark.parametrize("name", FAULTS)
@given(data=st.data())
def test_one_fault_is_refused_and_its_file_is_named(name, sound, data):
    fault = FAULTS[name]
    root, parser = sound[fault.parser], PARSERS[fault.parser]
    file = root / parser.file
    whole = file.read_text("utf-8")
    matches = list(re.finditer(fault.pattern, whole))
    assert matches, "there is no place for this fault"
    match = data.draw(st.sampled_from(matches))
    word = match[1] + data.draw(st.sampled_from(fault.words))
    if word == match[0]:
        return
    try:
        file.write_text(whole[: match.start()] + word + whole[match.end() :], "utf-8")
        with pytest.raises(DataError) as error:
            parser.read(root)
    finally:
        file.write_text(whole, "utf-8")
    assert error.value.source == str(file), error.value
    assert len(str(error.value)) < 1500


@given(data=st.data(), seed=st.integers(0, 1 << 30))
def test_states_of_balls_are_read_as_written_or_one_fault_is_refused(data, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("balls") / "x.npz"
    rng = np.random.default_rng(seed)
    scenes, frames, balls = rng.integers(1, 4), rng.integers(2, 5), rng.integers(1, 4)
    state = parsers.Balls(
        rng.uniform(0.2, 0.8, (scenes, frames, balls, 2)).astype(np.float32),
        rng.uniform(-0.5, 0.5, (scenes, frames, balls, 2)).astype(np.float32),
        rng.uniform(0.01, 0.2, (scenes, balls)).astype(np.float32),
        rng.uniform(0.5, 2, (scenes, balls)).astype(np.float32),
        np.ones(2, np.float32),
    )
    write_balls(path, state)
    for read, written in zip(read_balls(path), state, strict=True):
        np.testing.assert_array_equal(read, written)
    arrays = state._asdict()
    name, values = data.draw(
        st.sampled_from(
            [
                ("positions", (np.nan, np.inf, -0.1, 1.5)),
                ("velocities", (np.nan, -np.inf, 3)),
                ("radii", (0, -0.1, 0.7, np.inf)),
                ("masses", (0, -1, np.nan, np.inf)),
                ("box", (0, 2, np.nan, -1)),
            ]
        )
    )
    kind = data.draw(st.sampled_from(["value", "type", "shape", "object"]))
    spoilt = arrays[name].copy()
    if kind == "value":
        spoilt.flat[data.draw(st.integers(0, spoilt.size - 1))] = data.draw(st.sampled_from(values))
    elif kind == "type":
        spoilt = spoilt.astype(data.draw(st.sampled_from(["i4", "f2", "c8", "U4"])))
    elif kind == "shape":
        spoilt = spoilt[..., None] if data.draw(st.booleans()) else spoilt[..., :0]
    else:
        spoilt = spoilt.astype(object)
    np.savez(path, **(arrays | {name: spoilt}))
    with pytest.raises(DataError) as error:
        read_balls(path)
    assert error.value.source == str(path)
