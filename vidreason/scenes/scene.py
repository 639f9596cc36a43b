"""`Scene`: everything that is known about one driving video, in columns.

Readers make scenes; windows and graphs are made of scenes and know no dataset. What may be seen
at prediction time (`cues`) is kept apart from what is to be predicted (`labels`, `facts`): only
feature groups named `oracle_*` may read the latter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

OBJECTS = ("vehicle", "crosswalk", "zebra", "traffic_light", "sign", "station")
"""Kinds of track that are no people. Riders count as vehicles; a zebra is a striped crosswalk."""

KINDS = ("person", "group", "place", *OBJECTS)
"""Kinds of track. Behaviour-tagged and bystander pedestrians are one kind: telling them apart
predicts the label on JAAD. A place is no object, but is asked about as if it were one."""

OCCLUSION = ("none", "part", "full")
EGO_ACTIONS = ("stopped", "moving_slow", "moving_fast", "decelerating", "accelerating")
TRAFFIC_LIGHT = ("n/a", "red", "green")
SIGNALS = ("ped_crossing", "ped_sign", "stop_sign", "traffic_light")
LIGHTS = ("red", "yellow", "green")
ODOMETRY = ("speed", "heading")
ORIENTATION = ("pose_front", "pose_back", "pose_left", "pose_right")
CROSS = ("not-crossing", "crossing")
TAGS = ("walking", "looking", "lateral", "intends", "tagged")
"""Further questions that a model may be trained on, beside who crosses: what the target does in the
last observed box, which way it goes, whether it means to cross at all, and whether annotators found
it worth tagging."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One video's facts. F frames, K tracks, L boxes; boxes are sorted by track, then frame.

    Coded columns hold an index into a vocabulary; -1 means unknown, never a measurement.

    Attributes:
        id: Name of the video, unique in its dataset.
        fps: Frames per second.
        width: Image width, pixels.
        height: Image height, pixels.
        length: F, frames.
        attributes: Free-text facts about the whole video (weather, road type, …).
        ego_action: (F,) int8, index into `EGO_ACTIONS`.
        signals: (F,) int8 each, by the names in `SIGNALS`; 0 absent, 1 present;
            `traffic_light` is an index into `TRAFFIC_LIGHT`.
        track_ids: K names, unique in the scene.
        kind: (K,) int8, index into `KINDS`.
        facts: (K,) int32 each: annotations of whole tracks. Never an input.
        offsets: (K + 1,) int64; the boxes of track k are rows `offsets[k]:offsets[k + 1]`.
        frame: (L,) int32, from 0, strictly increasing in a track. Gaps are real.
        box: (L, 4) float32 pixels: x1, y1, x2, y2, origin top left, y down.
        cues: (L,) int8 each: what can be seen in that frame (occlusion, orientation, …); `light`,
            where there is one, is an index into `LIGHTS`.
        labels: (L,) int8 each: what is to be predicted, or reveals it. Never an input.
        odometry: (F,) float32 each, by the names in `ODOMETRY`: speed in m/s, heading in radians
            clockwise from north, NaN unknown. Empty if nothing measured it.
        image: (L, C) float16, what a segmenter's features say of the box; rows of 0 where it found
            nothing there. None if the images were not looked at.
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
        """Yields each track's name with the slice of its rows."""
        for name, start, stop in zip(self.track_ids, self.offsets, self.offsets[1:], strict=False):
            yield name, slice(int(start), int(stop))
