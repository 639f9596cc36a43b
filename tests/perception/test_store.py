import json

import numpy as np
import pyarrow as pa
import pytest
from make import scenes as made

from vidreason.core.errors import DataError
from vidreason.perception.masks import Masks, boxes, decode, encode, pool
from vidreason.perception.store import Instances, Prepared, Writer, match, with_instances
from vidreason.scenes.scene import KINDS

HEIGHT, WIDTH, LENGTH = 40, 60, 150
ABOUT = {"video": "v", "fps": 30.0, "width": WIDTH, "height": HEIGHT, "length": LENGTH, "every": 1}
LABEL = {"person": "a person", "vehicle": "car", "zebra": "crossing"}


def add(writer, frame, found, track):
    mask = encode(found.image, len(track))
    writer.add(frame, found, track, mask, pool(found.features, found.image, len(track)))


def write(path, every=1, length=LENGTH, features=4, seed=0, **about):
    """Writes a file of a store; returns instances and tracks by frame."""
    rng = np.random.default_rng(seed)
    put = {}
    facts = {**ABOUT, "every": every, "length": length, **about}
    with Writer(path, facts, features) as writer:
        for frame in range(0, length, every):
            count = int(rng.integers(0, 5))
            image = np.zeros((facts["height"], facts["width"]), np.uint8)
            for n in range(count):
                x, y = rng.integers(0, WIDTH - 12), rng.integers(0, HEIGHT - 12)
                image[y : y + 9, x : x + 7] = n + 1
            track = rng.permutation(6)[:count].astype(np.int32)
            names = np.array(["person", "person", "vehicle", "zebra", "vehicle", "person"])[track]
            found = Instances(
                image=image,
                label=[LABEL[name] for name in names],
                kind=np.array([KINDS.index(name) for name in names], np.int8),
                score=rng.random(count).astype(np.float32),
                features=rng.standard_normal((features, 10, 15)).astype(np.float32),
            )
            add(writer, frame, found, track)
            put[frame] = found, track
    return put


def test_round_trip(tmp_path):
    put = write(tmp_path / "v.arrow")
    prepared = Prepared(tmp_path / "v.arrow")
    assert prepared.about == {"version": 1, **ABOUT} and prepared.length == LENGTH
    for frame, (found, track) in put.items():
        rows = prepared.window(frame, frame + 1)
        order = np.argsort(track)
        assert rows["track"].to_pylist() == track[order].tolist()
        assert rows["label"].to_pylist() == [found.label[n] for n in order]
        assert rows["kind"].to_pylist() == [KINDS[found.kind[n]] for n in order]
        np.testing.assert_array_equal(rows["score"].to_numpy(), found.score[order])
        for n, row in zip(order, rows.to_pylist(), strict=True):
            counts = np.array(row["mask"], np.int32)
            masks = Masks(counts, np.array([0, len(counts)]), HEIGHT, WIDTH)
            assert (decode(masks)[0] == (found.image == n + 1)).all()
            assert boxes(masks)[0].tolist() == [row[c] for c in ("x1", "y1", "x2", "y2")]
            assert len(row["feature"]) == 4


def test_window_equals_a_filter_of_all_rows(tmp_path):
    write(tmp_path / "v.arrow")
    prepared = Prepared(tmp_path / "v.arrow")
    frame = prepared.table["frame"].to_numpy()
    for start, stop in ((0, 16), (60, 76), (140, 200), (7, 7), (63, 65)):
        inside = (frame >= start) & (frame < stop)
        assert prepared.window(start, stop).equals(prepared.table.filter(pa.array(inside)))


def test_file_is_plain_arrow_with_little_overhead(tmp_path):
    path = tmp_path / "v.arrow"
    write(path, features=64, length=500)
    table = pa.ipc.open_file(str(path)).read_all()
    assert json.loads(table.schema.metadata[b"vidreason"])["video"] == "v"
    size = {name: len(table) * 4 for name in ("frame", "track", "score", "x1", "y1", "x2", "y2")}
    size |= {n: sum(len(t) + 4 for t in table[n].to_pylist()) for n in ("kind", "label")}
    size["mask"] = sum(4 * len(counts) + 4 for counts in table["mask"].to_pylist())
    size["feature"] = len(table) * 64 * 2
    assert path.stat().st_size <= 1.1 * sum(size.values())


@pytest.mark.parametrize("every", [1, 5])
def test_scene_has_the_rows_by_track(tmp_path, every):
    put = write(tmp_path / "v.arrow", every=every)
    scene = Prepared(tmp_path / "v.arrow").scene()
    assert (scene.id, scene.fps, scene.width, scene.height) == ("v", 30 / every, WIDTH, HEIGHT)
    assert scene.length == LENGTH // every
    seen = set()
    for name, rows in scene.rows():
        assert (np.diff(scene.frame[rows]) > 0).all()
        for row in range(rows.start, rows.stop):
            found, track = put[scene.frame[row] * every]
            n = track.tolist().index(int(name))
            assert KINDS[scene.kind[scene.track_ids.index(name)]] == KINDS[found.kind[n]]
            assert (scene.box[row] == boxes(encode(found.image, len(track)))[n]).all()
            seen.add((scene.frame[row] * every, int(name)))
    assert seen == {(frame, int(t)) for frame, (_, track) in put.items() for t in track}
    assert scene.image.shape == (len(scene.frame), 4)
    made.assert_sound(scene)
    assert all((column == -1).all() for column in (*scene.labels.values(), *scene.facts.values()))


def annotated(length=LENGTH, size=(WIDTH, HEIGHT)):
    """Returns a scene of two walking pedestrians; the second is never segmented."""
    scene = made.scene(0, tracks=2)
    frame = np.tile(np.arange(length, dtype=np.int32), 2)
    left = np.r_[np.arange(length) % 40, np.arange(length) % 40].astype(np.float32)
    top = np.repeat([2, 25], length).astype(np.float32)
    box = np.stack([left, top, left + 8, top + 12], 1)
    return type(scene)(
        **{
            **{name: getattr(scene, name) for name in type(scene).__slots__},
            "length": length,
            "width": size[0],
            "height": size[1],
            "kind": np.zeros(2, np.int8),
            "offsets": np.array([0, length, 2 * length]),
            "frame": frame,
            "box": box.astype(np.float32),
            "cues": {n: np.zeros(2 * length, np.int8) for n in scene.cues},
            "labels": {n: np.ones(2 * length, np.int8) for n in scene.labels},
            "ego_action": np.zeros(length, np.int8),
            "signals": {n: np.zeros(length, np.int8) for n in scene.signals},
        }
    )


def prepare(path, scene, every=1, tracks=(4, 9)):
    """Writes a store with a car and the first pedestrian, whose box is one pixel off."""
    with Writer(path, {**ABOUT, "length": scene.length, "every": every}, 2) as writer:
        for frame in range(0, scene.length, every):
            image = np.zeros((HEIGHT, WIDTH), np.uint8)
            x1, y1, x2, y2 = scene.box[frame].astype(int)
            image[y1:y2, x1 + 1 : x2 + 1] = 2
            image[30:39, 50:58] = 1
            features = np.zeros((2, HEIGHT, WIDTH), np.float32)
            features[0], features[1] = frame + 1, image
            kinds = np.array([KINDS.index("vehicle"), KINDS.index("person")], np.int8)
            found = Instances(image, ["car", "man"], kinds, np.ones(2, np.float32), features)
            add(writer, frame, found, np.array(tracks))


@pytest.mark.parametrize("tracks", [(4, 9), (4, 1)], ids=["car first", "person first"])
@pytest.mark.parametrize("every", [1, 4])
def test_annotated_pedestrians_get_the_segmented_features(tmp_path, every, tracks):
    scene = annotated()
    prepare(tmp_path / "v.arrow", scene, every, tracks)
    both = with_instances(scene, Prepared(tmp_path / "v.arrow"))
    # The last match holds until the next segmented frame.
    segmented = np.arange(LENGTH) // every * every
    assert both.image[:LENGTH].tolist() == [[f + 1.0, 2.0] for f in segmented]
    assert not both.image[LENGTH : 2 * LENGTH].any()
    made.assert_sound(both)
    assert both.track_ids == (*scene.track_ids, "segment 4")
    assert KINDS[both.kind[-1]] == "vehicle"
    rows = slice(*both.offsets[-2:])
    assert both.frame[rows].tolist() == list(range(0, LENGTH, every))
    assert (both.box[rows] == [50, 30, 58, 39]).all()
    assert both.image[rows].tolist() == [[f + 1.0, 1.0] for f in range(0, LENGTH, every)]
    for name, column in both.labels.items():
        assert (column[: 2 * LENGTH] == scene.labels[name]).all() and (column[rows] == -1).all()


def test_an_instance_is_assigned_only_once():
    scene = annotated()
    box = scene.box.copy()
    box[LENGTH:] = box[:LENGTH] + 1  # also overlaps the instance of the first
    scene = type(scene)(**{**{n: getattr(scene, n) for n in type(scene).__slots__}, "box": box})
    row = match(scene, np.arange(LENGTH), np.zeros(LENGTH, np.int8), scene.box[:LENGTH])
    assert row[:LENGTH].tolist() == list(range(LENGTH)) and (row[LENGTH:] == -1).all()


def test_a_store_of_another_video_is_refused(tmp_path):
    scene = annotated()
    for change in ({"length": LENGTH - 1}, {"width": WIDTH + 2}):
        write(tmp_path / "v.arrow", **change)
        with pytest.raises(
            DataError, match="must be 60 x 40 with 150 frames as annotated, got .*; prepare"
        ):
            with_instances(scene, Prepared(tmp_path / "v.arrow"))


def test_unusable_files_are_refused(tmp_path):
    path = tmp_path / "v.arrow"
    with pytest.raises(DataError, match="no such file; create it with"):
        Prepared(path)
    path.write_bytes(b"no arrow at all")
    with pytest.raises(DataError, match="cannot be read as an Arrow file"):
        Prepared(path)
    path.unlink()
    write(path, length=9, version=7)
    with pytest.raises(
        DataError, match="has version 7, but this release reads 1; run `vidreason prepare` again"
    ):
        Prepared(path)
    pa.ipc.new_file(str(path), pa.schema([("x", pa.int8())])).close()
    with pytest.raises(DataError, match="lacks metadata video, fps, .*, version"):
        Prepared(path)
    for wrong in (0, -30.0, 10**8):
        write(path, length=9, fps=wrong)
        with pytest.raises(DataError, match="fps must be above 0 and below .*, got "):
            Prepared(path)
    for wrong in (None, "30", np.nan):
        write(path, length=9, fps=wrong)
        with pytest.raises(DataError, match="fps must be a finite number, got "):
            Prepared(path)
    write(path, length=9, fps=1)
    Prepared(path)
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match="cannot be read as an Arrow file"):
            Prepared(path)


def test_inconsistent_rows_are_refused(tmp_path):
    path = tmp_path / "v.arrow"
    write(path)
    table = pa.ipc.open_file(str(path)).read_all()

    def rewrite(**columns):
        changed = table
        for name, column in columns.items():
            at = table.column_names.index(name)
            changed = changed.set_column(at, table.schema.field(name), pa.array(column))
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(changed)

    frame, track = table["frame"].to_pylist(), table["track"].to_pylist()
    rewrite(frame=pa.array(frame[::-1], pa.int32()))
    with pytest.raises(DataError, match="frames must be sorted and between 0 and 149"):
        Prepared(path)
    rewrite(frame=pa.array([f + 1000 for f in frame], pa.int32()))
    with pytest.raises(DataError, match="frames must be sorted and between 0 and 149"):
        Prepared(path)
    for wrong in ([-1, *frame[1:]], [*frame[:-1], LENGTH]):
        rewrite(frame=pa.array(wrong, pa.int32()))
        with pytest.raises(DataError, match="frames must be sorted and between 0 and 149"):
            Prepared(path)
    rewrite(frame=pa.array([0] * (len(frame) - 1) + [LENGTH - 1], pa.int32()))
    Prepared(path)
    rewrite(frame=pa.array(frame, pa.int32()), score=pa.array([None] * len(frame), pa.float32()))
    with pytest.raises(DataError, match="column score has missing values"):
        Prepared(path)
    rewrite(x2=pa.array([np.inf] * len(frame), pa.float32()))
    with pytest.raises(DataError, match="a box is not finite"):
        Prepared(path)
    kind = table["kind"].to_pylist()
    # Each error alone: two rows of a track in one frame, then a track of two kinds.
    rewrite(track=pa.array([0] * len(track), pa.int32()), kind=["person"] * len(kind))
    with pytest.raises(DataError, match="two rows in one frame"):
        Prepared(path).scene()
    rewrite(kind=[*kind[:-1], "traffic_light"])
    with pytest.raises(DataError, match="changes its kind"):
        Prepared(path).scene()
    rewrite(kind=["ghost"] * len(track))
    with pytest.raises(DataError, match="kind must be one of .*, got 'ghost'"):
        Prepared(path).scene()
