"""Names and meaning of the columns of scene graphs."""

import dataclasses

import numpy as np
import pytest
from make.graphs import NEAR, furnished_scenes

from vidreason.core.errors import DataError
from vidreason.intent.features import GROUPS, feature_names
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import make_windows, open_windows
from vidreason.scenes.scene import KINDS, SIGNALS, bare_scene


@pytest.mark.parametrize(
    "features", [GROUPS, ("box",), ("traffic", "box"), ("box", "odometry", "objects")]
)
@pytest.mark.parametrize("image_features", [0, 3])
def test_every_column_of_a_graph_has_a_name(features, image_features):
    scenes = [
        dataclasses.replace(scene, image=np.zeros((len(scene.frame), image_features), np.float16))
        for scene in furnished_scenes(1, 2)
    ]
    windows = make_windows(scenes, "benchmark")
    graph = GraphBuilder(scenes, windows, features, image=image_features > 0)([0, 1])
    width = {kind: graph[kind].x.shape[-1] for kind in graph.node_types}
    for edge in graph.edge_types:
        width[edge] = graph[edge].edge_attr.shape[-1] if "edge_attr" in graph[edge] else 0
    if image_features:
        width["person"] += graph["person"].image.shape[-1]
    names = feature_names(features, image_features)
    assert {store: len(columns) for store, columns in names.items()} == width
    assert all(len(set(columns)) == len(columns) for columns in names.values())


@pytest.fixture(scope="module")
def columns():
    """Returns the columns by name, each (nodes, T), of a window that is worked out by hand.

    In an image of 1000 x 500 pixels at 10 frames per second, the target moves 10 pixels per frame
    to the right and comes 5 pixels closer. A vehicle stands to the right of it, the car slows down
    and turns right by 0.1 rad per frame.
    """
    frame = np.arange(3)
    target = np.stack([100 + 10 * frame, 200 + 0 * frame, 140 + 10 * frame, 300 + 5 * frame], 1)
    vehicle = np.tile([120, 100, 320, 250], (3, 1))
    scene = bare_scene(
        "video", 10.0, (1000, 500), 3, ("a", "b"),
        np.array([KINDS.index("person"), KINDS.index("vehicle")]), np.array([0, 3, 6]),
        np.tile(frame, 2), np.concatenate([target, vehicle]), None,
    )  # fmt: skip
    scene = dataclasses.replace(
        scene,
        attributes={"road_type": "parking_lot"},
        ego_action=np.array([1, 3, 0], np.int8),
        signals=scene.signals | {"traffic_light": np.array([0, 1, 2], np.int8)},
        cues=scene.cues | {"occlusion": np.array([0, 1, 2, 0, 0, 0], np.int8)},
        odometry={
            "speed": np.array([10, 8, 5], np.float32),
            "heading": np.array([6.2, 6.3, 6.4], np.float32) % np.float32(2 * np.pi),
        },
    )
    features = [group for group in GROUPS if not group.startswith("oracle_")]
    graph = GraphBuilder([scene], open_windows([scene], "benchmark", 3, 1), features)([0])
    names = feature_names(features)
    found = {
        (kind, name): graph[kind].x[..., i].numpy()
        for kind in graph.node_types
        for i, name in enumerate(names[kind])
    }
    edge = graph[NEAR].edge_attr
    return found | {(NEAR, name): edge[..., i].numpy() for i, name in enumerate(names[NEAR])}


@pytest.mark.parametrize(
    ("store", "name", "node", "expected"),
    [
        ("person", "x_center", 0, [0.12, 0.13, 0.14]),
        ("person", "y_center", 0, [0.5, 0.505, 0.51]),
        ("person", "width", 0, [0.04, 0.04, 0.04]),
        ("person", "height", 0, [0.2, 0.21, 0.22]),
        ("person", "y_bottom", 0, [0.6, 0.61, 0.62]),
        ("person", "log_height", 0, np.log([0.2, 0.21, 0.22])),
        ("person", "x_distance_to_image_center", 0, [0.38, 0.37, 0.36]),
        ("person", "x_velocity", 0, [0, 100 / 105, 100 / 110]),
        ("person", "y_bottom_velocity", 0, [0, 50 / 105, 50 / 110]),
        ("person", "log_height_velocity", 0, [0, 10 * np.log(1.05), 10 * np.log(110 / 105)]),
        ("person", "x_displacement", 0, [0, 10 / 105, 20 / 110]),
        ("person", "y_bottom_displacement", 0, [0, 5 / 105, 10 / 110]),
        ("person", "log_height_change", 0, np.log([1, 1.05, 1.1])),
        ("person", "approach_to_image_center", 0, [0, 0.37, 0.36]),
        ("person", "occluded_partly", 0, [0, 1, 0]),
        ("person", "occluded_fully", 0, [0, 0, 1]),
        ("person", "is_vehicle", 0, [0, 0, 0]),
        ("person", "is_vehicle", 1, [1, 1, 1]),
        ("person", "width", 1, [0.2, 0.2, 0.2]),
        (NEAR, "abs_dx1", 0, [0.02, 0.01, 0]),
        (NEAR, "abs_dy2", 0, [0.1, 0.11, 0.12]),
        (NEAR, "neighbour_width", 0, [0.2, 0.2, 0.2]),
        (NEAR, "neighbour_height", 0, [0.3, 0.3, 0.3]),
        (NEAR, "x_offset", 0, [100 / 100, 90 / 105, 80 / 110]),
        (NEAR, "y_bottom_offset", 0, [-50 / 100, -55 / 105, -60 / 110]),
        (NEAR, "x_relative_velocity", 0, [0, -100 / 105, -100 / 110]),
        (NEAR, "log_height_ratio", 0, np.log([150 / 100, 150 / 105, 150 / 110])),
        # Intersection 20 x 50, 30 x 50 and 40 x 50 pixels.
        (NEAR, "iou", 0, [1000 / 33000, 1500 / 32700, 2000 / 32400]),
        ("infra", "present", SIGNALS.index("traffic_light"), [0, 1, 1]),
        ("infra", "light_red", SIGNALS.index("traffic_light"), [0, 1, 0]),
        ("infra", "light_green", SIGNALS.index("traffic_light"), [0, 0, 1]),
        ("ego", "ego_moving_slow", 0, [1, 0, 0]),
        ("ego", "ego_decelerating", 0, [0, 1, 0]),
        ("ego", "ego_stopped", 0, [0, 0, 1]),
        ("ego", "ego_speed", 0, [1, 0.8, 0.5]),
        ("ego", "ego_speed_change", 0, [0, -0.2, -0.5]),
        ("ego", "ego_heading_change", 0, [0, 0.1, 0.2]),
        ("ego", "road_street", 0, [0, 0, 0]),
        ("ego", "road_parking_lot", 0, [1, 1, 1]),
    ],
)
def test_columns_have_the_values_that_their_names_say(columns, store, name, node, expected):
    np.testing.assert_allclose(columns[store, name][node], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        (("box", "label"), r"^features: unknown group 'label'; choose from box, "),
        (("ego",), r"^features: \['ego'\] must name each group once and contain 'box'"),
        (("box", "box"), r"^features: \['box', 'box'\] must name each group once"),
        ((), r"^features: \[\] must name each group once"),
    ],
)
def test_unknown_repeated_and_missing_groups_are_refused(few, features, problem):
    with pytest.raises(DataError, match=problem):
        feature_names(features)
    with pytest.raises(DataError, match=problem):
        GraphBuilder(*few, features)
