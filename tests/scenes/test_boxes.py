"""Custom datasets: the same windows and graphs as from other readers; invalid tables."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from make import scenes as made
from make.box_files import BOXES, VIDEOS, rows_of, write

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.datasets import read_split, split_windows
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import make_windows
from vidreason.scenes.boxes import read_boxes
from vidreason.scenes.jaad import read_jaad
from vidreason.simulation.street import write_street


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets") / "jaad"
    return read_jaad(write_street(root, 8), cache=False)


def windows_of(scenes, protocol):
    return make_windows(scenes, protocol, "beh", 30 if protocol == "stip" else 1)


@pytest.mark.parametrize("protocol", ["stip", "benchmark"])
def test_windows_and_graphs_equal_those_of_the_scenes_written(streets, tmp_path, protocol):
    # In JAAD the crossing point is annotated; here it is the first box labelled crossing.
    want = []
    for scene in streets:
        point, crossing = scene.facts["crossing_point"].copy(), scene.facts["crossing"].copy()
        for k, (_, rows) in enumerate(scene.rows()):
            marked = scene.frame[rows][scene.labels["cross"][rows] == 1]
            point[k], crossing[k] = (marked[0], 1) if len(marked) else (-1, 0)
        facts = scene.facts | {"crossing_point": point, "crossing": crossing}
        want.append(dataclasses.replace(scene, facts=facts))
    found, split = read_boxes(write(tmp_path / "mine", *rows_of(streets)), protocol)
    assert set(split.values()) == {"train"}
    for scene in found:
        made.assert_sound(scene)
    a, b = windows_of(want, protocol), windows_of(found, protocol)
    assert len(a) > 100 and (a.label == 1).any()
    for name in ("scene", "track", "row", "first_frame", "last_frame", "time_to_event", "label"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    np.testing.assert_array_equal(a.clean, b.clean)
    features = ("box", "neighbours")
    index = np.arange(0, len(a), 7)
    one, other = (GraphBuilder(s, w, features)(index) for s, w in ((want, a), (found, b)))
    for store in one.node_types:
        for key, value in one[store].items():
            torch.testing.assert_close(value, other[store][key], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(one.y, other.y, equal_nan=True)


def test_columns_round_trip_in_any_order_and_either_format(tmp_path):
    scenes = [
        made.changed(made.furnished(scene), labels={"cross": scene_cross(made.furnished(scene))})
        for scene in made.scenes(3)
    ]
    scenes = [dataclasses.replace(scene, fps=30.0) for scene in scenes]
    boxes, videos = rows_of(scenes)
    found, _ = read_boxes(write(tmp_path / "mine", boxes, videos), "benchmark")
    for scene, one in zip(scenes, found, strict=True):
        assert (one.id, one.fps, one.width) == (scene.id, scene.fps, scene.width)
        assert (one.track_ids, one.length) == (scene.track_ids, scene.length)
        for name in ("kind", "offsets", "frame", "box"):
            np.testing.assert_array_equal(getattr(one, name), getattr(scene, name), name)
        np.testing.assert_array_equal(one.labels["cross"], scene.labels["cross"])
        np.testing.assert_array_equal(one.cues["occlusion"], scene.cues["occlusion"])
        assert not (one.facts["behaviour"] & (one.kind != 0)).any()

    # Shuffled except for the first row of each track, which determines the order of tracks.
    rng = np.random.default_rng(0)
    seen = set()
    first = [row for row in boxes if (key := tuple(row[:2])) not in seen and not seen.add(key)]
    rest = [row for row in boxes if not any(row is one for one in first)]
    mixed = first + [rest[i] for i in rng.permutation(len(rest))]
    made.assert_same(read_boxes(write(tmp_path / "mixed", mixed, videos), "stip")[0], found)

    table = pa.csv.read_csv(tmp_path / "mine/boxes.csv")
    (tmp_path / "mine/boxes.csv").unlink()
    pq.write_table(table, tmp_path / "mine/boxes.parquet")
    made.assert_same(read_boxes(tmp_path / "mine", "benchmark")[0], found)


def scene_cross(scene):
    """Random labels of persons: none, or in some of the boxes."""
    rng = np.random.default_rng(scene.length)
    kind = np.repeat(scene.kind, np.diff(scene.offsets))
    return np.where(kind == 0, rng.integers(-1, 2, len(kind)), -1).astype(np.int8)


def test_pedestrians_without_labels_are_only_context(streets, tmp_path):
    boxes, videos = rows_of(streets)
    root = write(tmp_path / "mine", boxes, videos)
    scenes = read_split("boxes", root, "benchmark", "train")
    tagged = {(s.id, s.track_ids[k]) for s in scenes for k in np.flatnonzero(s.facts["behaviour"])}
    windows = split_windows("boxes", scenes, "benchmark", "all", 1)
    where = zip(windows.scene, windows.track, strict=True)
    targets = {(scenes[s].id, scenes[s].track_ids[k]) for s, k in where}
    assert targets and targets <= tagged
    persons = {(s.id, s.track_ids[k]) for s in scenes for k in np.flatnonzero(s.kind == 0)}
    assert persons - tagged
    graph = GraphBuilder(scenes, windows, ("box", "neighbours"))
    shown = {int(k) for k in graph.others}
    names = [(s.id, n) for s in scenes for n in s.track_ids]
    assert any(names[k] not in tagged for k in shown)


def test_floats_and_missing_labels_are_read(tmp_path):
    boxes = [["v", "7", f, 10.5, 20, 30, 60, c] for f, c in enumerate(["", "0.0", "1.0", "nan", 0])]
    videos = [["v", "train", 25, 100, 100, 9, "rain"], ["w", "test", 25, 100, 100, 5, ""]]
    (one, empty), split = read_boxes(write(tmp_path / "m", boxes, videos, BOXES[:8]), "benchmark")
    assert one.labels["cross"].tolist() == [-1, 0, 1, -1, 0]
    assert (one.track_ids, one.facts["crossing_point"].tolist()) == (("7",), [2])
    assert one.attributes == {"weather": "rain"} and split == {"v": "train", "w": "test"}
    assert empty.length == 5 and not len(empty.frame)


GOOD = ["v", "p", 3, 1, 2, 30, 40, 0, "person", "none"]
VIDEO = ["v", "train", 30, 100, 80, 50, ""]


def with_value(row, name, value, names):
    return [value if n == name else v for n, v in zip(names, row, strict=True)]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("video", "", "line 3: video is empty"),
        ("video", "other", "line 3: video 'other' is not in videos.csv"),
        ("pedestrian", "", "line 3: pedestrian is empty"),
        ("frame", "", "line 3: frame is empty"),
        ("frame", "4.5", "4.5"),
        ("frame", 50, "line 3: frame must be between 0 and 49 in video 'v', got 50;"),
        ("frame", -1, "line 3: frame must be between 0 and 49 in video 'v', got -1;"),
        ("frame", 3, "line 3: pedestrian 'p' of video 'v' has two boxes in frame 3"),
        ("x1", "", "line 3: x1 is empty"),
        ("x1", "nan", "line 3: x1 is empty"),
        ("x1", "inf", "line 3: box coordinates must be finite"),
        ("x1", "left", "left"),
        ("x1", 30, "line 3: box 30, 2, 30, 40 is empty, x1 < x2 and y1 < y2 are required"),
        ("y2", 1, "line 3: box 1, 2, 30, 1 is empty"),
        ("x2", "1e3", ""),
        ("y1", -60, ""),
        ("crossing", 2, "line 3: crossing must be 0, 1 or empty, got 2"),
        ("crossing", "yes", "yes"),
        ("kind", "place", "line 3: kind must be one of person, group, vehicle, "),
        ("kind", "group", "line 3: kind 'group' differs from earlier boxes of the track"),
        ("occlusion", "half", "line 3: occlusion must be one of none, part, full, got 'half'"),
    ],
)
def test_an_invalid_box_is_named_in_one_line(tmp_path, column, value, problem):
    row = with_value([*GOOD[:2], 4, *GOOD[3:]], column, value, BOXES)
    root = write(tmp_path / "m", [GOOD, row], [VIDEO])
    if not problem:  # boxes may extend beyond the image
        assert len(read_boxes(root, "benchmark")[0][0].frame) == 2
        return
    with pytest.raises(DataError, match="boxes.csv") as caught:
        read_boxes(root, "benchmark")
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("video", "v", "line 3: duplicate video 'v'"),
        ("video", "", "line 3: video is empty"),
        ("split", "dev", "line 3: split must be one of train, val, test, got 'dev'"),
        ("fps", 0, "line 3: fps must be above 0 and at most 1000, got 0.0"),
        ("fps", "", "line 3: fps is empty"),
        ("fps", 60, "line 3: fps 60.0 is far from that of the first video"),
        ("width", 0, "line 3: width must be between 1 and 100000, got 0"),
        ("length", -5, "line 3: length must be between 1 and 10000000, got -5"),
    ],
)
def test_an_invalid_video_is_named_in_one_line(tmp_path, column, value, problem):
    other = with_value(["w", *VIDEO[1:]], column, value, VIDEOS)
    with pytest.raises(DataError, match="videos.csv") as caught:
        read_boxes(write(tmp_path / "m", [GOOD], [VIDEO, other]), "stip")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "corners", [(-9, 2, 0, 40), (1, -9, 30, 0), (100, 2, 130, 40), (1, 80, 30, 90)]
)
def test_a_box_that_only_touches_the_image_is_outside(tmp_path, corners):
    row = [*GOOD[:2], 4, *corners, *GOOD[7:]]
    with pytest.raises(DataError, match=r"line 3: box .* is outside the image"):
        read_boxes(write(tmp_path / "m", [GOOD, row], [VIDEO]), "benchmark")
    towards = np.sign([50, 40] * 2 - np.array(corners)) * 0.5
    row = [*GOOD[:2], 4, *(corners + towards), *GOOD[7:]]
    (scene,), _ = read_boxes(write(tmp_path / "n", [GOOD, row], [VIDEO]), "benchmark")
    assert len(scene.frame) == 2


def test_an_invalid_box_in_parquet_is_named_by_its_row(tmp_path):
    root = write(tmp_path / "m", [GOOD, [*GOOD[:2], 50, *GOOD[3:]]], [VIDEO])
    table = pa.csv.read_csv(root / "boxes.csv")
    pq.write_table(table, root / "boxes.parquet")
    (root / "boxes.csv").unlink()
    with pytest.raises(DataError, match=r"boxes\.parquet: row 2: frame must be between 0 and 49 "):
        read_boxes(root, "benchmark")


@pytest.mark.parametrize("fps", [10, 19.9, 35.1])
def test_the_benchmark_rejects_other_frame_rates(tmp_path, fps):
    root = write(tmp_path / "m", [GOOD], [with_value(VIDEO, "fps", fps, VIDEOS)])
    with pytest.raises(DataError, match=rf"fps must be between 20 and 35, got {float(fps)}, "):
        read_boxes(root, "benchmark")
    assert read_boxes(root, "stip")[0][0].fps == fps
    for allowed in (20, 35):
        root = write(tmp_path / str(allowed), [GOOD], [with_value(VIDEO, "fps", allowed, VIDEOS)])
        assert read_boxes(root, "benchmark")[0][0].fps == allowed


def test_missing_files_columns_and_splits_are_named(tmp_path, capsys):
    root = write(tmp_path / "m", [GOOD], [VIDEO])

    def windows(split="train"):
        out = tmp_path / "w.parquet"
        line = ["data", "windows", "boxes", "--root", str(root), "--protocol", "stip"]
        code = cli.main([*line, "--split", split, "--out", str(out)])
        assert code == 1 and not out.exists()
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "has no video of split 'val'" in windows("val")
    write(root, [GOOD[:-2]], [VIDEO], [*BOXES[:7], "crosses"])
    assert "has no column 'crossing'" in windows()
    write(root, [[*GOOD[:8], 1, 2]], [VIDEO], [*BOXES[:8], "speed", "kind"])
    assert "has an unknown column 'speed'" in windows()
    write(root, [GOOD[:9]], [VIDEO])
    assert "Expected 10 columns" in windows()
    (root / "boxes.parquet").write_bytes(b"PAR1")
    assert "has two files for boxes" in windows()
    (root / "boxes.csv").unlink()
    assert "boxes.parquet" in windows()
    (root / "boxes.parquet").unlink()
    assert "boxes.csv is missing" in windows()


def test_features_without_columns_are_rejected(tmp_path):
    scenes = [dataclasses.replace(scene, fps=30.0) for scene in made.scenes(1, 8)]
    root = str(write(tmp_path / "m", *rows_of(scenes)))
    options = {"dataset": "boxes", "protocol": "stip", "root": root, "observed": 5, "horizon": 5}
    for name in ("ego", "traffic", "orientation", "objects", "odometry"):
        problem = rf"^data\.features: {name!r} is not available in any loaded video of boxes"
        with pytest.raises(DataError, match=problem):
            IntentData(["box", name], **options).setup("fit")
