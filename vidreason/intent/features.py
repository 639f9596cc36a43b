"""Feature groups: the columns that a scene graph shows, shared by data and models.

A group that a configuration does not name is not computed at all. Columns that reveal the label
(behaviour tags, attributes of whole tracks) belong to groups whose name starts with `oracle_`.
"""

from collections.abc import Mapping, Sequence

from vidreason.core.errors import DataError
from vidreason.scenes.scene import EGO_ACTIONS, LIGHTS, OBJECTS, ORIENTATION

ORACLE = "oracle_"

NEAR = ("person", "near", "person")
AROUND = ("infra", "around", "person")
WATCHES = ("ego", "watches", "person")
"""Edge types; each edge points to the target of its window."""

_BOX = (
    # In fractions of the image.
    "x_center",
    "y_center",
    "width",
    "height",
    "y_bottom",
    "log_height",
    "x_distance_to_image_center",
    # Per second, in box heights; the logarithm of the height as it is.
    "x_velocity",
    "y_bottom_velocity",
    "log_height_velocity",
    # Since the first box in the window, in box heights.
    "x_displacement",
    "y_bottom_displacement",
    "log_height_change",
    # Distance to the image center in image widths, negative when moving away from it.
    "approach_to_image_center",
    "occluded_partly",
    "occluded_fully",
    "is_group",
)
RELATION = (
    # The spatial relation of STIP, in fractions of the image.
    "abs_dx1",
    "abs_dy1",
    "abs_dx2",
    "abs_dy2",
    "abs_dx_center",
    "abs_dy_center",
    "neighbour_width",
    "neighbour_height",
    # Signed, neighbour minus target, in box heights of the target (and per second).
    "x_offset",
    "y_bottom_offset",
    "x_relative_velocity",
    "y_bottom_relative_velocity",
    "log_height_ratio",
    "iou",
)
"""Columns of the edge from a neighbour to the target."""

PERSON = {
    "box": _BOX,
    "orientation": ORIENTATION,
    "objects": (
        *(f"is_{kind}" for kind in OBJECTS),
        *(f"light_{colour}" for colour in LIGHTS),
    ),
    "oracle_behaviour": ("walking", "looking", "nodding", "hand_gesture"),
    "oracle_attributes": ("has_behaviour_tags", "moves_laterally", "moves_longitudinally"),
}
"""Columns of persons, and of everything else that has a box, by group."""

INFRA = {"traffic": ("present", "light_red", "light_green")}
"""Columns of the infrastructure nodes, one node for each of `vidreason.scenes.scene.SIGNALS`."""

ROADS = ("street", "parking_lot", "garage")

EGO = {
    "ego": tuple(f"ego_{action}" for action in EGO_ACTIONS),
    "odometry": ("ego_speed", "ego_speed_change", "ego_heading_change"),
    "traffic": tuple(f"road_{road}" for road in ROADS),
}
"""Columns of the ego vehicle: its action, its odometry (speed in tens of m/s, changes since the
first frame of the window, heading in radians clockwise) and the road type."""

GROUPS = (*PERSON, *EGO, "neighbours")
"""Every group; `neighbours` adds the other persons and groups of people as nodes, `objects` the
vehicles, crosswalks, lights, signs and stations."""


def check_features(features: Sequence[str]) -> None:
    """Raises an error for unknown, repeated or missing groups.

    Raises:
        DataError: If a group is unknown or repeated, or `box` is missing.
    """
    for name in features:
        if name not in GROUPS:
            problem = f"unknown group {name!r}"
            raise DataError("features", problem, "choose from " + ", ".join(GROUPS))
    if len(set(features)) != len(features) or "box" not in features:
        problem = f"{list(features)} must name each group once and contain 'box'"
        raise DataError("features", problem, "correct the option")


def is_oracle(features: Sequence[str]) -> bool:
    """Returns whether a group reveals the label."""
    return any(name.startswith(ORACLE) for name in features)


def feature_names(
    features: Sequence[str], image_features: int = 0
) -> dict[str | tuple[str, str, str], list[str]]:
    """Returns the names of the columns that the graphs of `GraphBuilder` have, in order.

    Args:
        features: Names from `GROUPS`.
        image_features: Number of image features C of a person.

    Returns:
        The columns of `x` for every node type and those of `edge_attr` for every edge type, empty
        where there are none. `person` ends with `image_0`, `image_1`, …: the C columns of
        `graph["person"].image`, which networks append to `x`.

    Raises:
        DataError: If a group is unknown or repeated, or `box` is missing.
    """
    check_features(features)

    def columns(groups: Mapping[str, tuple[str, ...]]) -> list[str]:
        return [name for group in groups if group in features for name in groups[group]]

    return {
        "person": columns(PERSON) + [f"image_{index}" for index in range(image_features)],
        "infra": columns(INFRA),
        "ego": columns(EGO),
        NEAR: list(RELATION),
        AROUND: [],
        WATCHES: [],
    }


def sizes(features: Sequence[str]) -> dict[str, int]:
    """Returns the number of columns of `person`, `infra`, `ego` and `edge` (`NEAR`).

    Raises:
        DataError: If a group is unknown or repeated, or `box` is missing.
    """
    names = feature_names(features)
    return {
        "person": len(names["person"]),
        "infra": len(names["infra"]),
        "ego": len(names["ego"]),
        "edge": len(names[NEAR]),
    }
