"""The public Python interface: its examples run, and nothing else is promised."""

import doctest
import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import vidreason as vr
from vidreason import cli
from vidreason.scenes.scene import CROSS, KINDS
from vidreason.simulation.street import write_street

FUNCTIONS = [name for name in vr.__all__ if inspect.isfunction(getattr(vr, name))]
TRAIN = """\
seed_everything: 0
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 4, members: 1}}}
data:
  class_path: IntentData
  init_args: {features: [box, neighbours], root: data/jaad}
trainer: {max_epochs: 1, default_root_dir: runs/first, enable_progress_bar: false, logger: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with `data/jaad`, made up."""
    base = tmp_path_factory.mktemp("api")
    write_street(base / "data/jaad", videos=9, seed=30, frames=(110, 130), split=(3, 3, 3))
    return base


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    return folder


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_of_docstrings_run(name, here):
    if name == "evaluate" and not (here / "runs").exists():
        (here / "first.yaml").write_text(TRAIN)
        assert cli.main(["fit", "-c", "first.yaml"]) == 0
        assert cli.main(["predict", "--run", "runs/first"]) == 0
    example = doctest.DocTestFinder().find(getattr(vr, name), name, globs={})[0]
    assert example.examples, f"vr.{name} has no example"
    failures = []
    doctest.DocTestRunner(verbose=False).run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_everything_exported_is_documented():
    for name in vr.__all__:
        assert inspect.getdoc(getattr(vr, name)), name
    assert set(vr.__all__) <= set(dir(vr))
    with pytest.raises(AttributeError, match="no_such_name"):
        vr.no_such_name  # noqa: B018


def test_importing_brings_nothing_heavy():
    code = """
import sys, vidreason
heavy = {"torch", "numpy", "pandas", "pyarrow", "sklearn", "cv2", "av", "matplotlib", "yaml"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_boxes_are_a_table_of_the_columns(here):
    (scene, *_) = vr.read_scenes("jaad", "data/jaad")
    boxes = scene.boxes()
    columns = ["track", "frame", "x1", "y1", "x2", "y2", "kind", *scene.cues, *scene.labels]
    assert list(boxes.columns) == columns and len(boxes) == len(scene.frame)
    for name, rows in scene.rows():
        one = boxes[boxes.track == name]
        np.testing.assert_array_equal(one.frame, scene.frame[rows])
        np.testing.assert_array_equal(one[["x1", "y1", "x2", "y2"]], scene.box[rows])
        (kind,) = one.kind.unique()
        assert KINDS.index(kind) == scene.kind[scene.track_ids.index(name)]
    code = scene.labels["cross"]
    np.testing.assert_array_equal(boxes.cross.isna(), code < 0)
    np.testing.assert_array_equal(boxes.cross == CROSS[1], code == 1)
    pose = scene.cues["pose_front"]
    np.testing.assert_array_equal(boxes.pose_front.isna(), pose < 0)
    assert (boxes.pose_front.fillna(False).astype(bool) == (pose > 0)).all()


def test_splits_share_out_the_videos(here):
    parts = [vr.read_scenes("jaad", "data/jaad", split) for split in ("train", "val", "test")]
    names = [scene.id for part in parts for scene in part]
    assert sorted(names) == [scene.id for scene in vr.read_scenes("jaad", "data/jaad")]
    assert len(set(names)) == len(names) == 9


def test_unknown_splits_are_refused(here):
    with pytest.raises(vr.DataError, match="split: must be one of train, val, test, got 'tst'"):
        vr.read_scenes("jaad", "data/jaad", split="tst")


def test_graphs_name_their_columns(here):
    scenes = vr.read_scenes("jaad", "data/jaad", "test")
    windows = vr.windows(scenes)
    graph = vr.graphs(scenes, windows, ("box", "neighbours", "ego", "traffic"))
    for kind, names in graph.feature_names.items():
        columns = graph[kind].get("edge_attr" if isinstance(kind, tuple) else "x")
        assert len(set(names)) == len(names) == (0 if columns is None else columns.shape[-1]), kind
    assert set(graph.node_types) <= graph.feature_names.keys()
    assert len(graph.y) == len(windows)


@pytest.fixture(scope="module")
def digits():
    """A square that moves, as uint8 (10, 64, 64)."""
    frames = np.zeros((10, 64, 64), np.uint8)
    for t in range(10):
        frames[t, 10 + 2 * t : 20 + 2 * t, 20:26] = 255
    return frames


def test_frames_of_every_shape_and_type_are_the_same_clip(digits):
    task = vr.load("moving_mnist")
    one = vr.decompose(digits, task, 3)
    for frames in (
        digits[None],
        digits[None, :, None],
        digits / 255,
        torch.from_numpy(digits).float() / 255,
    ):
        for a, b in zip(one, vr.decompose(frames, task, 3), strict=True):
            torch.testing.assert_close(a, b)
    assert one.frames.shape == (1, 13, 1, 64, 64)
    assert one.positions.shape == (1, 13, 2, 2)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: x[:, :, 0], "shape (10, 64)"),
        (lambda x: x[:5], "shape"),
        (lambda x: x[:, ::2], "shape"),
        (lambda x: x.astype(float), "outside their range"),
        (lambda x: np.where(x > 0, np.nan, 0.0), "NaN"),
    ],
)
def test_frames_that_do_not_fit_are_refused(digits, change, words):
    with pytest.raises(
        vr.DataError, match="frames: .*" + words.replace("(", r"\(").replace(")", r"\)")
    ):
        vr.decompose(change(digits))


def test_intent_weights_decompose_nothing(digits):
    with pytest.raises(vr.DataError, match="give a decomposition model"):
        vr.decompose(digits, "jaad_all_boxes")


def test_a_missing_value_is_missing_in_pandas(here):
    (scene, *_) = vr.read_scenes("jaad", "data/jaad")
    scene.cues["occlusion"][0] = -1
    assert pd.isna(scene.boxes().occlusion[0])
