"""A single fault in a valid dataset is refused by an error that names the file."""

import random
import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import parsers
from make.parsers import PARSERS

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls, write_balls

NOT_NUMBERS = ("", "x", "nan", "inf", "-inf", "1e999", "1_0", "\u0661", "0x10", "1,5")
NOT_INTEGERS = ("", "x", "1.5", "1e3", "1_0 0", "nan", "99999999999")
COORDINATE = '( (?:xtl|ytl|xbr|ybr)=")[^"]*'
FRAME = '(<box frame=")[^"]*'
NOT_PIE_FRAMES = ("", "x", "1.5", "-2", "nan", "99999999999")
NOT_FRAMES = ("-1", "1.5", "99999", "x", "")


class Fault(NamedTuple):
    """A replacement in the file of a parser.

    Attributes:
        parser: Name from `PARSERS`.
        pattern: What is replaced; its first group is kept.
        values: What replaces the rest, one at a time.
    """

    parser: str
    pattern: str
    values: tuple[str, ...]


JAAD, PIE = "jaad annotations", "pie annotations"
ATTRIBUTES, TRAFFIC = "jaad annotations_attributes", "jaad annotations_traffic"
BEHAVIOUR = '(<attribute name="(?:cross|look|action|nod|hand_gesture|reaction|occlusion)">)[^<]*'
CATEGORIES = "age|gender|designated|signalized|intersection|motion_direction|traffic_direction"
INTEGERS = "crossing|crossing_point|decision_point|group_size|num_lanes"
FAULTS = {
    "JAAD, coordinate": Fault(JAAD, COORDINATE, NOT_NUMBERS),
    "JAAD, frame": Fault(JAAD, FRAME, NOT_FRAMES),
    "JAAD, missing box attribute": Fault(JAAD, '() (?:xtl|ytl|xbr|ybr|frame)="[^"]*"', ("",)),
    "JAAD, behaviour": Fault(JAAD, BEHAVIOUR, ("", "crosing", "1", "not crossing", "WALKING")),
    "JAAD, missing tag": Fault(JAAD, '(<attribute name=")occlusion', ("occluded", "")),
    "JAAD, label": Fault(JAAD, '(<track [^>]*label=")[^"]*', ("", "person", "pedestrians")),
    "JAAD, size": Fault(JAAD, "(<(?:size|width|height)>)[^<]*", ("", "0", "-3", "x", "1e9")),
    "JAAD, category": Fault(ATTRIBUTES, f'( (?:{CATEGORIES})=")[^"]*', ("", "odd", "3")),
    "JAAD, integer": Fault(ATTRIBUTES, f'( (?:{INTEGERS})=")[^"]*', NOT_INTEGERS),
    "JAAD, missing pedestrian": Fault(ATTRIBUTES, "()<pedestrian [^>]*/>", ("",)),
    "JAAD, pose": Fault("jaad annotations_appearance", '( pose_[a-z]+=")[^"]*', ("", "2", "yes")),
    "JAAD, traffic light": Fault(TRAFFIC, '( traffic_light=")[^"]*', ("", "blue")),
    "JAAD, traffic frame": Fault(TRAFFIC, '(<frame id=")[^"]*', NOT_FRAMES),
    "JAAD, missing traffic frame": Fault(TRAFFIC, "()<frame [^>]*>", ("",)),
    "JAAD, ego vehicle": Fault("jaad annotations_vehicle", '( action=")[^"]*', ("", "flying")),
    "JAAD, split list": Fault("jaad split", r"()\w+", ("video_9999", "", "../x", "video_0001")),
    "PIE, coordinate": Fault(PIE, COORDINATE, NOT_NUMBERS),
    "PIE, frame": Fault(PIE, FRAME, NOT_FRAMES),
    "PIE, behaviour": Fault(
        PIE, '(<attribute name="(?:cross|look|action)">)[^<]*', ("", "crosing")
    ),
    "PIE, traffic light": Fault(PIE, '(<attribute name="state">)[^<]*', ("", "blue")),
    "PIE, label": Fault(PIE, '(<track [^>]*label=")[^"]*', ("", "person")),
    "PIE, crossing point": Fault(
        "pie annotations_attributes", '( crossing_point=")[^"]*', NOT_PIE_FRAMES
    ),
    "PIE, speed": Fault("pie annotations_vehicle", '( OBD_speed=")[^"]*', ("", "x", "1e999")),
    "PIE, vehicle frame": Fault("pie annotations_vehicle", '(<frame id=")[^"]*', NOT_FRAMES),
    "STIP, coordinate": Fault(
        "stip boxes", r'("box": \{[^}]*"[xy]\d": )[\d.]+', ("true", '"5"', "NaN", "1e999", "[1]")
    ),
    "STIP, frame": Fault("stip boxes", r'(")\d+(?=": \[)', ("x", "0", "-1", "1.5", "")),
    "STIP, state": Fault("stip boxes", '("crossed": )(?:true|false)', ("1", '"yes"', "[]")),
    "STIP, rows": Fault("stip boxes", r'("\d+": )\[', ('"a", "b": [', "7, [")),
    "STIP, segment": Fault("stip segments", r"()\d\d:\d\d -- ", ("00:99 -> ", "", "59:59 -- ")),
    "boxes, coordinate": Fault("boxes", r"(,)(?:1|2|30|40)(?=,)", ("", "x", "nan", "inf")),
    "boxes, frame": Fault("boxes", "(v,p,)[34]", ("", "x", "-1", "1.5", "50", "5000000000")),
    "boxes, kind": Fault("boxes", "(,)person", ("pedestrian", "Person")),
    "boxes, video": Fault("boxes", "()(?<=\n)v", ("", "w")),
    "boxes, column": Fault("boxes", "()(?:video|pedestrian|frame|x1|kind)(?=,)", ("", "odd")),
    "boxes, size": Fault("boxes videos", "(,)(?:30|100|80|50)(?=,)", ("", "x", "0", "-1", "nan")),
    "boxes, split": Fault("boxes videos", "(,)train", ("", "training")),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """By parser, the folder of a valid dataset; tests restore what they change."""
    found = {}
    for parser in {fault.parser for fault in FAULTS.values()}:
        found[parser] = tmp_path_factory.mktemp("valid")
        PARSERS[parser].make(found[parser])
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_single_fault_is_refused_and_its_file_is_named(name, valid):
    fault = FAULTS[name]
    root, parser = valid[fault.parser], PARSERS[fault.parser]
    file = root / parser.file
    whole = file.read_text("utf-8")
    matches = list(re.finditer(fault.pattern, whole))
    draw = random.Random(name)
    planted = 0
    try:
        for value in fault.values:
            for match in draw.sample(matches, min(10, len(matches))):
                if match[1] + value == match[0]:
                    continue
                damaged = f"{whole[: match.start()]}{match[1]}{value}{whole[match.end() :]}"
                file.write_text(damaged, "utf-8")
                with pytest.raises(DataError) as error:
                    parser.read(root)
                assert error.value.source == str(file), error.value
                assert len(str(error.value)) < 1500
                planted += 1
    finally:
        file.write_text(whole, "utf-8")
    assert planted


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 1 << 30))
def test_ball_states_are_read_as_written_and_a_fault_is_refused(data, seed, tmp_path_factory):
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
    damaged = arrays[name].copy()
    if kind == "value":
        damaged.flat[data.draw(st.integers(0, damaged.size - 1))] = data.draw(
            st.sampled_from(values)
        )
    elif kind == "type":
        damaged = damaged.astype(data.draw(st.sampled_from(["i4", "f2", "c8", "U4"])))
    elif kind == "shape":
        damaged = damaged[..., None] if data.draw(st.booleans()) else damaged[..., :0]
    else:
        damaged = damaged.astype(object)
    np.savez(path, **(arrays | {name: damaged}))
    with pytest.raises(DataError) as error:
        read_balls(path)
    assert error.value.source == str(path)
