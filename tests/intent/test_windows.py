"""Windows of the protocols, against a slow reference and by hand."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import scenes as made
from make import tiny

from vidreason.cli import main
from vidreason.core.errors import DataError
from vidreason.intent.datasets import split_videos
from vidreason.intent.windows import (
    PROTOCOLS,
    make_windows,
    pedestrians,
    window_table,
    write_windows,
)
from vidreason.scenes.jaad import read_jaad
from vidreason.scenes.scene import TAGS


def columns(windows):
    found = {n: v for n, v in vars(windows).items() if isinstance(v, np.ndarray)}
    assert {len(v) for v in found.values()} == {len(windows)}
    return found


def track(length=100, crossing=1, point=90, behaviour=True, skip=(), cross=None):
    """Returns a scene with one pedestrian, whose track starts in frame 5."""
    scene = made.scene(0, tracks=1)
    frame = np.setdiff1d(np.arange(5, 5 + length + len(skip)), skip).astype(np.int32)
    boxes = np.arange(len(frame))
    tags = np.zeros(len(frame), np.int8) if cross is None else np.asarray(cross, np.int8)
    facts = {"crossing": crossing, "crossing_point": point, "behaviour": behaviour}
    return dataclasses.replace(
        scene,
        length=200,
        track_ids=("one",),
        kind=np.zeros(1, np.int8),
        facts=scene.facts | {n: np.array([v], np.int32) for n, v in facts.items()},
        offsets=np.array([0, len(frame)]),
        frame=frame,
        box=np.stack([boxes, boxes, boxes + 9, boxes + 20], axis=1).astype(np.float32),
        labels={n: tags * (n == "cross") for n in scene.labels},
    )


# --- A slow reference: the protocols box by box.


def reference_windows(scenes, protocol, subset, horizon, stride):
    rows = []
    for s, scene in enumerate(scenes):
        for k in range(len(scene.track_ids)):
            tagged = scene.facts["behaviour"][k] == 1
            if scene.kind[k] == 1 or not (tagged or (subset == "all" and protocol != "stip")):
                continue
            begin, end = int(scene.offsets[k]), int(scene.offsets[k + 1])
            frames = [int(f) for f in scene.frame[begin:end]]
            cross = [int(c) for c in scene.labels["cross"][begin:end]]
            facts = {n: int(v[k]) for n, v in scene.facts.items()}
            if protocol == "stip":
                observed, event, start = 30, None, 0
                starts = []
                while start + observed + horizon <= len(frames):
                    starts.append(start)
                    start += stride or 5
            else:
                observed = 16
                if facts["crossing_point"] == -1:
                    event = len(frames) - 3
                else:
                    event = frames.index(facts["crossing_point"])
                # From 60 boxes before the event to 30 before it, if 60 before it is possible.
                first = event - 60 - (observed - 1)
                starts = list(range(first, first + 31, stride or 3)) if first >= 0 else []
            for start in starts:
                last = start + observed - 1
                if protocol == "stip":
                    targets, clean = cross[last + 1 : last + 1 + horizon], True
                else:
                    targets = [int(facts["crossing"] == 1)]
                    not_begun = facts["crossing_point"] != -1 and cross[last] != 1
                    clean = targets == [0] or not_begun
                tags = [
                    int(scene.labels["action"][begin + last]),
                    int(scene.labels["look"][begin + last]),
                    int(facts["motion_direction"] == 1) if tagged else -1,
                    int(facts["crossing"] != -1) if tagged else -1,
                    int(tagged),
                ]
                if protocol == "benchmark-clean" and not clean:
                    continue
                rows.append(
                    {
                        "scene": s,
                        "track": k,
                        "row": begin + start,
                        "first_frame": frames[start],
                        "last_frame": frames[last],
                        "time_to_event": -1 if event is None else event - last,
                        "label": cross[start : last + 1] + targets,
                        "tags": tags,
                        "clean": clean,
                    }
                )
    return rows


@given(
    seed=st.integers(0, 200),
    protocol=st.sampled_from(PROTOCOLS),
    subset=st.sampled_from(("beh", "all")),
    horizon=st.integers(1, 40),
    stride=st.sampled_from([None, 1, 2, 7, 50]),
)
def test_windows_equal_those_of_the_reference(seed, protocol, subset, horizon, stride):
    scenes = made.scenes(seed, 3)
    windows = make_windows(scenes, protocol, subset, horizon, stride)
    expected = reference_windows(scenes, protocol, subset, horizon, stride)
    assert len(windows) == len(expected)
    assert windows.horizon == (horizon if protocol == "stip" else 1)
    found = columns(windows)
    assert windows.label.shape == (len(windows), windows.observed + windows.horizon)
    assert windows.tags.shape == (len(windows), len(TAGS))
    if expected:
        assert found.keys() == expected[0].keys()
        for name, column in found.items():
            np.testing.assert_array_equal(column, [row[name] for row in expected], name)


# --- By hand.


def test_a_crossing_has_eleven_windows_that_end_two_to_one_seconds_before_it():
    scene = track(length=100, point=5 + 90)  # box 90
    windows = make_windows([scene], "benchmark")
    assert list(windows.time_to_event) == list(range(60, 29, -3))
    assert list(windows.last_frame) == [95 - t for t in windows.time_to_event]
    assert (windows.last_frame - windows.first_frame == 15).all()
    assert (windows.label[:, -1] == 1).all() and windows.clean.all()


def test_the_shortest_track_with_windows():
    assert len(make_windows([track(length=80, point=5 + 75)], "benchmark")) == 11
    assert len(make_windows([track(length=80, point=5 + 74)], "benchmark")) == 0
    assert len(make_windows([track(length=78, crossing=0, point=-1)], "benchmark")) == 11
    assert len(make_windows([track(length=77, crossing=0, point=-1)], "benchmark")) == 0
    assert len(make_windows([track(length=60)], "stip")) == 1
    assert len(make_windows([track(length=59)], "stip")) == 0


def test_windows_count_boxes_and_skip_gaps():
    scene = track(length=100, point=5 + 95, skip=range(50, 60))
    windows = make_windows([scene], "benchmark")
    assert list(windows.time_to_event) == list(range(60, 29, -3))
    frames = scene.frame[windows.row[:, None] + np.arange(16)]
    np.testing.assert_array_equal(frames[:, 0], windows.first_frame)
    np.testing.assert_array_equal(frames[:, -1], windows.last_frame)
    assert set(np.diff(frames).ravel()) == {1, 11}


def test_labels_of_future_frames():
    cross = np.arange(100) >= 50
    windows = make_windows([track(cross=cross)], "stip", horizon=20, stride=1)
    now = windows.row + 29
    for step in range(1, 21):
        np.testing.assert_array_equal(windows.label[:, 29 + step], now + step >= 50)
    np.testing.assert_array_equal(windows.label[:, 29], now >= 50)


@pytest.mark.parametrize(
    ("crossing", "point", "begun", "clean"),
    [(1, 95, False, True), (1, 95, True, False), (1, -1, False, False), (0, 95, True, True)]
    + [(0, -1, True, True), (-1, -1, False, True), (-1, 95, True, True)],
)
def test_windows_are_clean_unless_they_show_their_label(crossing, point, begun, clean):
    scene = track(crossing=crossing, point=point, cross=np.full(100, begun))
    windows = make_windows([scene], "benchmark")
    assert len(windows) == 11 and (windows.clean == clean).all()
    assert len(make_windows([scene], "benchmark-clean")) == 11 * clean


def test_take_selects_rows_of_every_column():
    windows = make_windows(made.scenes(3), "benchmark")
    chosen = np.random.default_rng(0).permutation(len(windows))[:20]
    for rows in (chosen, np.isin(np.arange(len(windows)), chosen)):
        for name, column in columns(windows.take(rows)).items():
            np.testing.assert_array_equal(column, getattr(windows, name)[rows])
    assert windows.take(chosen).observed == windows.observed


def test_no_scenes_give_no_windows():
    for protocol in PROTOCOLS:
        assert len(make_windows([], protocol)) == 0
        assert len(make_windows([made.scene(0, tracks=0)], protocol)) == 0


def test_unknown_choices_and_crossing_points_are_refused():
    with pytest.raises(DataError, match="^protocol: must be one of benchmark, .*, got 'wacv'"):
        make_windows([], "wacv")
    with pytest.raises(DataError, match="^subset: must be one of beh, all, place, got 'some'"):
        make_windows([], "benchmark", "some")
    for scene in (track(point=4), track(point=105), track(point=60, skip=[60])):
        with pytest.raises(
            DataError,
            match=r"^video_0001: pedestrian one: crossing_point \d+ is not a frame of the track; ",
        ):
            make_windows([scene], "benchmark")


# --- Splits.


def test_stip_splits_videos_by_number():
    names = [f"video_{i:04d}" for i in range(1, 347)]
    parts = {split: split_videos("stip", {}, names, split) for split in ("train", "val", "test")}
    assert parts["test"] == tuple(names[250:])
    assert parts["val"] == tuple(names[4:250:5])
    assert sorted(sum(parts.values(), ())) == names
    official = {"train": ("a",), "val": ("b",), "test": ("c",)}
    assert split_videos("benchmark", official, names, "val") == ("b",)


# --- Parquet.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parquet_files_contain_the_windows(tmp_path, protocol):
    scenes = made.scenes(5)
    windows = make_windows(scenes, protocol, horizon=7)
    write_windows(windows, scenes, tmp_path / "w.parquet")
    table = pq.read_table(tmp_path / "w.parquet")
    assert table == window_table(windows, scenes)
    label = pa.list_(pa.int8()) if protocol == "stip" else pa.int8()
    types = [pa.string()] * 2 + [pa.int32()] * 3
    names = ["video", "pedestrian", "first_frame", "last_frame", "time_to_event", "label"]
    assert table.schema.names == names and table.schema.types[:5] == types
    assert table.num_rows == len(windows) > 20
    for i, row in enumerate(table.to_pylist()):
        scene = scenes[windows.scene[i]]
        assert (row["video"], row["pedestrian"]) == (
            scene.id,
            scene.track_ids[windows.track[i]],
        )
        assert row["first_frame"] == scene.frame[windows.row[i]]
        assert row["last_frame"] == windows.last_frame[i]
        assert row["time_to_event"] == windows.time_to_event[i]
        targets = windows.label[i, windows.observed :].tolist()
        assert row["label"] == (targets if protocol == "stip" else targets[0])
    assert table.schema.types[5] == label
    assert table["pedestrian"].to_pylist() == pedestrians(windows, scenes)


def test_the_command_writes_the_windows_of_a_split(tiny_root, tmp_path, capsys):
    out = tmp_path / "w.parquet"
    line = ["data", "windows", "jaad", "--root", str(tiny_root), "--split", "test"]
    assert main([*line, "--protocol", "benchmark", "--subset", "beh", "--out", str(out)]) == 0
    scene = read_jaad(tiny_root, cache=False)[2]
    windows = make_windows([scene], "benchmark", "beh")
    assert windows.clean.all()  # the command prints nothing about clean windows
    assert pq.read_table(out) == window_table(windows, [scene])
    assert scene.id == tiny.VIDEOS[2]
    text = capsys.readouterr().out
    crossing = int(windows.label[:, -1].sum())
    assert text == f"{out}: {len(windows)} windows of 1 videos, {crossing} crossing\n"
