"""`Scene`: all annotations of one driving video, in columns.

Readers create scenes; windows and graphs are built from scenes and do not depend on the dataset.
Model inputs (`cues`) are kept apart from labels and annotations that leak them (`labels`, `facts`):
only feature groups named `oracle_*` may read the latter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

OBJECTS = ("vehicle", "crosswalk", "zebra", "traffic_light", "sign", "station")
"""Kinds of tracks that are not people. Riders count as vehicles; zebras are striped crosswalks."""

KINDS = ("person", "group", "place", *OBJECTS)
"""Kinds of tracks. Pedestrians with and without behaviour tags are one kind, since the distinction
leaks the label on JAAD. A place is not an object, but can be a prediction target like one."""

OCCLUSION = ("none", "part", "full")
EGO_ACTIONS = ("stopped", "moving_slow", "moving_fast", "decelerating", "accelerating")
TRAFFIC_LIGHT = ("n/a", "red", "green")
SIGNALS = ("ped_crossing", "ped_sign", "stop_sign", "traffic_light")
LIGHTS = ("red", "yellow", "green")
ODOMETRY = ("speed", "heading")
ORIENTATION = ("pose_front", "pose_back", "pose_left", "pose_right")
CROSS = ("not-crossing", "crossing")
TAGS = ("walking", "looking", "lateral", "intends", "tagged")
"""Auxiliary prediction targets: what the pedestrian does in the last observed box (`walking`,
`looking`), whether it moves laterally, whether it intends to cross at all, and whether it has
behaviour tags."""

APPEARANCE = (
    *ORIENTATION,
    "clothes_below_knee",
    "clothes_upper_light",
    "clothes_upper_dark",
    "clothes_lower_light",
    "clothes_lower_dark",
    "backpack",
    "bag_hand",
    "bag_elbow",
    "bag_shoulder",
    "bag_left_side",
    "bag_right_side",
    "cap",
    "hood",
    "sunglasses",
    "umbrella",
    "phone",
    "baby",
    "object",
    "stroller_cart",
    "bicycle_motorcycle",
)
"""Appearance flags of a pedestrian in JAAD's vocabulary, which all readers share; 0 or 1."""

CUES = ("occlusion", *APPEARANCE)
"""Columns of `Scene.cues` in JAAD: `occlusion` is an index into `OCCLUSION`, others are flags."""

LABELS = {
    "cross": CROSS,
    "action": ("standing", "walking"),
    "look": ("not-looking", "looking"),
    "nod": ("__undefined__", "nodding"),
    "hand_gesture": ("__undefined__", "greet", "yield", "rightofway", "other"),
    "reaction": ("__undefined__", "clear_path", "speed_up", "slow_down"),
}
"""Behaviour tags of a box, columns of `Scene.labels`, with the vocabulary of each (from JAAD)."""

FACTS: dict[str, tuple[str, ...] | None] = {
    "crossing": None,
    "crossing_point": None,
    "decision_point": None,
    "group_size": None,
    "num_lanes": None,
    "age": ("child", "young", "adult", "senior"),
    "gender": ("n/a", "female", "male"),
    "designated": ("ND", "D"),
    "signalized": ("n/a", "NS", "S"),
    "intersection": ("no", "yes"),
    "motion_direction": ("n/a", "LAT", "LONG"),
    "traffic_direction": ("OW", "TW"),
}
"""Attributes of a track, columns of `Scene.facts`, with the vocabulary of each (from JAAD). None
marks a number; -1 means irrelevant in `crossing`, and none in the two points."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One video with F frames, K tracks and L boxes, which are sorted by track, then frame.

    Integer columns contain an index into a vocabulary; -1 means unknown, never a measurement.

    Attributes:
        id: Name of the video, unique within its dataset.
        fps: Frames per second.
        width: Image width, pixels.
        height: Image height, pixels.
        length: Number of frames, F.
        attributes: Free-text attributes of the whole video (weather, road type, …).
        ego_action: (F,) int8, index into `EGO_ACTIONS`.
        signals: (F,) int8 each, one for each name in `SIGNALS`; 0 absent, 1 present;
            `traffic_light` is an index into `TRAFFIC_LIGHT`.
        track_ids: K names, unique within the scene.
        kind: (K,) int8, index into `KINDS`.
        facts: (K,) int32 each, annotations of whole tracks. Never an input.
        offsets: (K + 1,) int64; the boxes of track k are rows `offsets[k]:offsets[k + 1]`.
        frame: (L,) int32, from 0, strictly increasing within a track, possibly with gaps.
        box: (L, 4) float32 pixels: x1, y1, x2, y2, origin top left, y down.
        cues: (L,) int8 each, visible in that frame (occlusion, orientation, …); `light`, if
            present, is an index into `LIGHTS`.
        labels: (L,) int8 each, prediction targets or annotations that leak them. Never an input.
        odometry: (F,) float32 each, one for each name in `ODOMETRY`: speed in m/s, heading in
            radians clockwise from north, NaN if unknown. Empty without measurements.
        image: (L, C) float16, image features of the box from a segmenter; 0 where it found no
            object. None without image features.
    """

    id: str
    fps: float
    width: int
    height: int
    length: int
    attributes: dict[str, str]
    ego_action: np.ndarray
    signals: dict[str, np.ndarray]
    track_ids: tuple[str, ...]
    kind: np.ndarray
    facts: dict[str, np.ndarray]
    offsets: np.ndarray
    frame: np.ndarray
    box: np.ndarray
    cues: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    odometry: dict[str, np.ndarray] = field(default_factory=dict)
    image: np.ndarray | None = None

    def rows(self) -> Iterator[tuple[str, slice]]:
        """Yields the name of each track and the slice of its rows."""
        for name, start, stop in zip(self.track_ids, self.offsets, self.offsets[1:], strict=False):
            yield name, slice(int(start), int(stop))

    def boxes(self) -> "pd.DataFrame":
        """Returns all boxes as a table with one row per box, sorted by track, then frame.

        Columns: `track` (name), `frame` (from 0), `x1`, `y1`, `x2`, `y2` (pixels), `kind`, then
        every cue, then every label. Labels reveal what is to be predicted: keep them out of the
        inputs of a model. Unknown values are missing (`NaN` or `<NA>`).
        """
        import pandas as pd

        track = np.repeat(np.arange(len(self.track_ids)), np.diff(self.offsets))
        words = {"occlusion": OCCLUSION, "light": LIGHTS, **LABELS}
        table: dict[str, Any] = {
            "track": np.array(self.track_ids, object)[track],
            "frame": self.frame,
            **dict(zip(("x1", "y1", "x2", "y2"), self.box.T, strict=True)),
            "kind": pd.Categorical.from_codes(self.kind[track], list(KINDS)),
        }
        for name, code in (self.cues | self.labels).items():
            if name in words:
                table[name] = pd.Categorical.from_codes(code, list(words[name]))
            else:
                table[name] = pd.arrays.BooleanArray(code > 0, code < 0)
        return pd.DataFrame(table)


def bare_scene(
    name: str,
    fps: float,
    size: tuple[int, int],
    length: int,
    track_ids: tuple[str, ...],
    kind: np.ndarray,
    offsets: np.ndarray,
    frame: np.ndarray,
    box: np.ndarray,
    image: np.ndarray | None,
) -> Scene:
    """Returns a scene with boxes only; labels, ego vehicle and signals are unknown (-1).

    Args:
        name: Name of the video.
        fps: Frames per second.
        size: Width and height, pixels.
        length: Number of frames, F.
        track_ids: K names.
        kind: (K,) index into `KINDS`.
        offsets: (K + 1,) row offsets of the tracks.
        frame: (L,) frame of each box, from 0.
        box: (L, 4) pixels: x1, y1, x2, y2.
        image: (L, C) image features, or None.
    """
    return Scene(
        id=name,
        fps=fps,
        width=size[0],
        height=size[1],
        length=length,
        attributes={},
        ego_action=np.full(length, -1, np.int8),
        signals=dict.fromkeys(SIGNALS, np.full(length, -1, np.int8)),
        track_ids=track_ids,
        kind=kind,
        facts=dict.fromkeys([*FACTS, "behaviour"], np.full(len(kind), -1, np.int32)),
        offsets=offsets,
        frame=frame.astype(np.int32),
        box=box.astype(np.float32),
        cues=dict.fromkeys(CUES, np.full(len(frame), -1, np.int8)),
        labels=dict.fromkeys(LABELS, np.full(len(frame), -1, np.int8)),
        image=image,
    )
