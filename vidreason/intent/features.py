"""What a model may see: named groups of columns, the same for data and models.

A group not named in a configuration is not computed at all. Whatever reveals the label (behaviour
tags, attributes of whole tracks) is reachable only through groups whose name starts with `oracle_`.
"""

from collections.abc import Mapping, Sequence

from vidreason.core.errors import DataError
from vidreason.scenes.scene import LIGHTS, OBJECTS

ORACLE = "oracle_"

_BOX = (
    "centre_x",
    "centre_y",
    "width",
    "height",
    "foot_y",
    "log_height",
    "off_centre",
    "velocity_x",
    "velocity_foot",
    "velocity_log_height",
    "shift_x",
    "shift_foot",
    "shift_log_height",
    "approach",
    "occluded_part",
    "occluded_full",
    "is_group",
)
RELATION = (
    # The eight values of STIP's spatial relation, in fractions of the image.
    "abs_dx1",
    "abs_dy1",
    "abs_dx2",
    "abs_dy2",
    "abs_dcx",
    "abs_dcy",
    "other_width",
    "other_height",
    # Signed, in heights of the target: left and right, nearer and farther, come and go.
    "offset_x",
    "offset_foot",
    "velocity_offset_x",
    "velocity_offset_foot",
    "log_height_ratio",
    "iou",
)
"""Columns of the edge from another person to the target."""

PERSON = {
    "box": _BOX,
    "orientation": ("pose_front", "pose_back", "pose_left", "pose_right"),
    "objects": (
        *(f"is_{kind}" for kind in OBJECTS),
        *(f"light_{colour}" for colour in LIGHTS),
    ),
    "oracle_behaviour": ("walking", "looking", "nodding", "hand_gesture"),
    "oracle_attributes": ("behaviour", "lateral", "longitudinal"),
}
"""Columns of persons, and of whatever else has a box, by group."""

INFRA = {"traffic": ("present", "red", "green")}
"""Columns of the infrastructure nodes, one node for each of `vidreason.scenes.scene.SIGNALS`."""

EGO = {
    "ego": ("stopped", "moving_slow", "moving_fast", "decelerating", "accelerating"),
    "odometry": ("speed", "gained_speed", "turned"),
    "traffic": ("street", "parking_lot", "garage"),
}
"""Columns of the ego vehicle: what it does, what it measures (tens of m/s, and radians to the right
since the window began), and on which kind of road."""

GROUPS = (*PERSON, *EGO, "neighbours")
"""Every group; `neighbours` adds the other persons and groups of people as nodes, `objects` the
vehicles, crosswalks, lights, signs and stations."""


def check_features(features: Sequence[str]) -> None:
    """Refuses unknown, repeated or missing groups.

    Raises:
        DataError: Names the group and the known ones.
    """
    for name in features:
        if name not in GROUPS:
            raise DataError("features", f"no group {name!r}", "choose from " + ", ".join(GROUPS))
    if len(set(features)) != len(features) or "box" not in features:
        problem = f"{list(features)} must name each group once and contain 'box'"
        raise DataError("features", problem, "correct the option")


def is_oracle(features: Sequence[str]) -> bool:
    """Whether a group reveals the label."""
    return any(name.startswith(ORACLE) for name in features)


def sizes(features: Sequence[str]) -> dict[str, int]:
    """Widths of the columns of `person`, `infra`, `ego` and `edge`; 0 where a node type is absent.

    Raises:
        DataError: `features` names no such group.
    """
    check_features(features)

    def width(groups: Mapping[str, tuple[str, ...]]) -> int:
        return sum(len(columns) for name, columns in groups.items() if name in features)

    return {
        "person": width(PERSON),
        "infra": width(INFRA),
        "ego": width(EGO),
        "edge": len(RELATION),
    }
