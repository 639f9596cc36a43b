"""Horizontal mirroring of scene graphs."""

import numpy as np
import torch
from make import scenes as made
from make.graphs import assert_identical

from vidreason.intent.features import GROUPS, feature_names
from vidreason.intent.graphs import GraphBuilder


def mirrored(scene):
    x1, y1, x2, y2 = scene.box.T
    box = np.stack([scene.width - x2, y1, scene.width - x1, y2], axis=1).astype(np.float32)
    cues = {"pose_left": scene.cues["pose_right"], "pose_right": scene.cues["pose_left"]}
    odometry = {"heading": -scene.odometry["heading"]}
    return made.changed(scene, box=box, cues=cues, odometry=odometry)


def test_mirrored_graphs_equal_graphs_of_mirrored_scenes(few):
    scenes, windows = few
    other = [mirrored(scene) for scene in scenes]
    made.assert_same([mirrored(scene) for scene in other], scenes)
    every, yes = np.arange(len(windows)), np.ones(len(windows), bool)
    build, build_other = (GraphBuilder(s, windows, GROUPS) for s in (scenes, other))
    assert_identical(build(every, yes), build_other(every))
    assert_identical(build(every), build_other(every, yes))
    assert_identical(build(every), build(every, ~yes))
    half = every % 2 == 0
    assert_identical(build(every, half), build_other(every, ~half))
    x, flipped = build(every)["person"].x, build(every, yes)["person"].x
    changed = {
        name
        for i, name in enumerate(feature_names(GROUPS)["person"])
        if not torch.allclose(x[..., i], flipped[..., i], atol=1e-6)
    }
    assert changed == {"x_center", "x_velocity", "x_displacement", "pose_left", "pose_right"}


def test_either_a_target_or_its_mirror_image_is_on_the_right(few):
    scenes, windows = few
    build = GraphBuilder(scenes, windows, ["box"])
    right = build.on_right
    other = GraphBuilder([mirrored(scene) for scene in scenes], windows, ["box"]).on_right
    assert right.any() and not right.all() and (right != other).all()
    x_center = build(np.arange(len(windows)), right)["person"].x[:, -1, 0]
    assert (x_center <= 0.5).all()
