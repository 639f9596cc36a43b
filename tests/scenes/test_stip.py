"""The STIP reader: sequences are read as they were written, invalid ones are rejected."""

import json
import shutil
import warnings

import numpy as np
import pytest
from make import scenes as made
from make import stip_files

from vidreason.core.errors import DataError
from vidreason.scenes.scene import KINDS
from vidreason.scenes.stip import TEST, read_sequence, read_stip, splits

NAMES = stip_files.NAMES[:4]
ONE = NAMES[3]
FILE = f"{ONE}_idx00.mkv.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("stip") / "stip"
    return root, stip_files.stip(root, people=3, rates=(2, 20), names=NAMES)


@pytest.fixture
def sequence(tmp_path, written):
    """A sequence that tests may change."""
    return shutil.copytree(written[0] / ONE, tmp_path / ONE)


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def rows(scene):
    return {
        name: (scene.frame[r], scene.box[r], scene.labels["cross"][r]) for name, r in scene.rows()
    }


@pytest.mark.parametrize("rate", [2, 20])
@pytest.mark.parametrize("views", ["centre", "all"])
def test_sequences_are_read_as_they_were_written(written, rate, views):
    root, truth = written
    with pytest.warns(UserWarning):
        scenes = read_stip(root, rate, views, cache=False)
    names = sorted(set(NAMES) - ({"downtown_ann_1"} if views == "all" else set()))
    assert [scene.id for scene in scenes] == names
    for scene in scenes:
        made.assert_sound(scene)
        assert (scene.fps, scene.width, scene.height) == (rate, 1936, 1216)
        found = rows(scene)
        want = {}
        for (r, camera, person, part), value in truth[scene.id].items():
            if r == rate and (camera == "idx00" or views == "all"):
                side = "" if camera == "idx00" else f" {camera}"
                want[f"p{person}@{part}{side}"] = (*value, camera)
        assert set(found) == set(want)
        for name, (frame, box, state, camera) in want.items():
            got, k = found[name], scene.track_ids.index(name)
            assert got[0].tolist() == frame.tolist()
            clipped = np.clip(box, 0, [1936, 1216] * 2)
            np.testing.assert_allclose(got[1], clipped, rtol=1e-6)
            centre = camera == "idx00"
            assert (
                got[2].tolist() == (state.astype(int) if centre else -np.ones(len(frame))).tolist()
            )
            assert scene.facts["behaviour"][k] == centre
            assert scene.facts["camera"][k] == ("idx00", "idx97", "idx98").index(camera)
        assert (scene.kind == KINDS.index("person")).all()
        assert scene.length == 1 + max(frame.max() for frame, *_ in want.values())


def test_the_cache_equals_a_fresh_read(written, tmp_path):
    root = shutil.copytree(written[0], tmp_path / "copy")
    with pytest.warns(UserWarning, match="not_annotated: has no annotations of the centre camera"):
        first = read_stip(root)
    shutil.rmtree(root / "not_annotated")
    made.assert_same(read_stip(root), first)
    made.assert_same(read_stip(root, cache=False), first)
    shutil.rmtree(root / ".vidreason")
    read_stip(root, cache=False)
    assert not (root / ".vidreason").exists()
    change(root / ONE / FILE, lambda c: c["frames"].popitem())
    assert sum(len(s.frame) for s in read_stip(root)) < sum(len(s.frame) for s in first)


def test_splits_have_the_published_test_sequences():
    names = [*TEST[:3], *(f"seq_{n}" for n in range(12))]
    parts = splits(names)
    assert parts["test"] == TEST[:3] and parts["val"] == ("seq_2", "seq_7")
    assert sorted(n for part in parts.values() for n in part) == sorted(names)
    assert splits(names[::-1]) == parts


def test_boxes_without_corners_or_identity_are_skipped(sequence):
    before = read_sequence(sequence)
    seen = {}

    def edit(content):
        (a, first), (b, second), (c, third), *_ = content["frames"].items()
        del first[0]["box"]  # the row itself also has the corners
        for side in ("x1", "x2", "y1", "y2"):
            del second[0][side]  # `box` also has them
        second[0]["crossed"] = False
        del third[0]["crossed"], third[1]["matchIds"], third[1]["boxId"]
        third[2] = {"boxId": "p9"}
        seen.update(c=int(c) - 1, lost=third[1])

    change(sequence / FILE, edit)
    with pytest.warns(UserWarning, match=f"{FILE}: skipped 2 boxes without corners or identity"):
        after = read_sequence(sequence)
    assert len(after.frame) == len(before.frame) - 2
    unknown = np.flatnonzero(after.labels["cross"] < 0)
    assert after.frame[unknown].tolist() == [seen["c"]]


def test_pedestrians_without_labels_are_no_targets(sequence):
    def edit(content):
        for boxes in content["frames"].values():
            for row in boxes:
                if row["matchIds"] == "p1":
                    del row["crossed"]

    change(sequence / FILE, edit)
    scene = read_sequence(sequence)
    targets = dict(zip(scene.track_ids, scene.facts["behaviour"], strict=True))
    assert {name[:2]: flag for name, flag in targets.items()} == {"p0": 1, "p1": 0, "p2": 1}


def test_alternative_ids_and_swapped_corners_are_read(sequence):
    before = read_sequence(sequence)

    def edit(content):
        for boxes in content["frames"].values():
            for row in boxes:
                del row["matchIds"]
                row["box"]["x1"], row["box"]["x2"] = row["box"]["x2"], row["box"]["x1"]

    change(sequence / FILE, edit)
    made.assert_same([read_sequence(sequence)], [before])


def test_boxes_are_clipped_to_the_image(sequence):
    def edit(content):
        first, second, *_ = content["frames"].values()
        first[0]["box"] |= {"x1": -3, "y1": -0.5}
        second[0]["box"] |= {"x2": 1e4, "y2": 5e3}

    change(sequence / FILE, edit)
    box = read_sequence(sequence).box
    assert box.min(0)[:2].tolist() == [0, 0] and box.max(0)[2:].tolist() == [1936, 1216]


def test_without_segments_a_pedestrian_has_one_track(sequence):
    before = read_sequence(sequence)
    (sequence / f"{ONE}.txt").unlink()
    scene = read_sequence(sequence)
    assert scene.track_ids == ("p0@0", "p1@0", "p2@0")
    assert len(scene.frame) == len(before.frame)


def test_boxes_outside_the_segments_are_skipped(sequence):
    whole = len(read_sequence(sequence).frame)
    (sequence / f"{ONE}.txt").write_text('00:10 -- 00:12 "a"\n\n01:00 -- 02:00 "b"\n')
    scene = read_sequence(sequence)
    assert len(scene.frame) < whole and set(scene.frame) <= {20, 21, 22, 23}


def test_both_frame_rates_agree(written):
    root, _ = written
    two, twenty = (read_sequence(root / ONE, rate) for rate in (2, 20))
    assert two.track_ids == twenty.track_ids
    slow, fast = rows(two), rows(twenty)
    for name in slow:
        assert len(fast[name][0]) == pytest.approx(10 * len(slow[name][0]), rel=0.1)
        assert fast[name][2].max() == slow[name][2].max()


def nan(content):
    next(iter(content["frames"].values()))[0]["box"]["x1"] = float("nan")


EDITS = {
    "no frames": (lambda c: c.pop("frames"), "has no object `frames`"),
    "frames is a list": (lambda c: c.update(frames=[1]), "has no object `frames`"),
    "frame number": (lambda c: c["frames"].update(x=[]), "'x' is not a frame number"),
    "frame 0": (lambda c: c["frames"].update({"0": []}), "'0' is not a frame number"),
    "boxes not a list": (lambda c: c["frames"].update({"7": 3}), "frame 7: is not a list of boxes"),
    "box not an object": (
        lambda c: c["frames"].update({"7": [3]}),
        "frame 7: is not a list of boxes",
    ),
    "nan": (nan, "NaN is not a valid number"),
    "text": (
        lambda c: c["frames"].update({"7": [stip_files.row("p", ("1", 2, 3, 4), True)]}),
        r"frame 7: box \['1', 2, 3, 4\] must have four finite numbers",
    ),
    "empty box": (
        lambda c: c["frames"].update({"7": [stip_files.row("p", (1, 2, 1, 4), True)]}),
        "frame 7: box .* is empty or outside",
    ),
    "outside": (
        lambda c: c["frames"].update({"7": [stip_files.row("p", (-9, 2, -3, 4), True)]}),
        "frame 7: box .* is empty or outside",
    ),
    "state": (
        lambda c: c["frames"].update({"7": [stip_files.row("p", (1, 2, 3, 4), None, crossed=2)]}),
        "crossed=2 must be true or false",
    ),
    "twice": (
        lambda c: c["frames"].update({"19": [stip_files.row("p", (1, 2, 3, 4), True)] * 2}),
        "frame 19: pedestrian 'p' has two boxes",
    ),
    "size": (
        lambda c: next(iter(c["frames"].values()))[0].update(width=-5),
        "invalid image size -5 x 1216",
    ),
}


@pytest.mark.parametrize(("edit", "problem"), EDITS.values(), ids=EDITS)
def test_rejects_invalid_content(sequence, edit, problem):
    change(sequence / FILE, edit)
    with pytest.raises(DataError, match=problem) as error:
        read_sequence(sequence)
    assert str(error.value).startswith(str(sequence / FILE)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not valid JSON"),
        (b'{"frames": {', "is not valid JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b'{"frames": {"1": [], "1": []}}', "duplicate key"),
        (b'{"frames": {"1": [{"x1": Infinity}]}}', "Infinity is not a valid number"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
    ],
)
def test_rejects_invalid_json(sequence, data, problem):
    (sequence / FILE).write_bytes(data)
    with pytest.raises(DataError, match=problem):
        read_sequence(sequence)


@pytest.mark.parametrize("line", ["00:20 -- 00:05", "from five to ten", "00:05 - 00:20"])
def test_rejects_invalid_segments(sequence, line):
    (sequence / f"{ONE}.txt").write_text(f'00:01 -- 00:03 "a"\n{line} "x"\n')
    with pytest.raises(DataError, match=rf"{ONE}.txt: line 2: '{line}.*' is not a segment"):
        read_sequence(sequence)


def test_rejects_roots_without_data(tmp_path):
    with pytest.raises(DataError, match="no such folder; `vidreason data card stip`"):
        read_stip(tmp_path / "none")
    (tmp_path / "seq").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            DataError, match="has no sequence annotated at 20 .* how to get the data"
        ):
            read_stip(tmp_path, 20)
