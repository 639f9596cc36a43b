"""The place in front of the car as a node of the scene graph: will somebody be in it?

STIP's location-centric task (Liu et al., RA-L 2020) asks not whether a given pedestrian will cross
but whether anybody will be on the lane ahead. The place becomes one more track of the scene, with a
box in every frame and its own answer, so that windows, graphs and models need nothing new.
"""

from dataclasses import replace

import numpy as np

from vidreason.scenes.scene import KINDS, Scene

_SIZE = (1920, 1080)  # pixels of the image that the rule is written for
_SLOPE, _MARGIN, _REACH = 0.25, 20, 200  # of its sides; pixels up from the lower edge
PLACE = "place"


def inside(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether feet are on the lane ahead: a trapezoid on the lower edge of the image.

    Args:
        box: (L, 4) px: x1, y1, x2, y2.
        width: Of the image, px; the trapezoid grows with it.
        height: Of the image, px.

    Returns:
        (L,) bool.
    """
    x = (box[:, 0] + box[:, 2]) / 2 * (_SIZE[0] / width)
    up = (height - box[:, 3]) * (_SIZE[1] / height)
    side = np.minimum(x, _SIZE[0] - x)
    return (up <= _REACH) & (up <= _SLOPE * side - _MARGIN)


def with_place(scene: Scene) -> Scene:
    """The scene with a track more, of kind `place`: its box encloses the trapezoid in each frame.

    Its label `cross` says whether a person's feet are in the trapezoid, which boxes show. Cues
    and other labels are unknown.
    """
    kind = np.repeat(scene.kind, np.diff(scene.offsets))
    there = inside(scene.box, scene.width, scene.height) & (kind == KINDS.index("person"))
    taken = np.zeros(scene.length, np.int8)
    taken[scene.frame[there]] = 1
    left = _MARGIN / _SLOPE
    corners = np.array([left, _SIZE[1] - _REACH, _SIZE[0] - left, _SIZE[1]], np.float32)
    box = corners * np.tile([scene.width / _SIZE[0], scene.height / _SIZE[1]], 2)
    unknown = np.full(scene.length, -1, np.int8)

    def longer(columns: dict[str, np.ndarray], more: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.append(column, more.astype(column.dtype)) for name, column in columns.items()
        }

    labels = longer(scene.labels, unknown)
    labels["cross"][len(scene.frame) :] = taken
    return replace(
        scene,
        track_ids=(*scene.track_ids, PLACE),
        kind=np.append(scene.kind, np.int8(KINDS.index(PLACE))),
        facts=longer(scene.facts, np.array([-1])),
        offsets=np.append(scene.offsets, scene.offsets[-1] + scene.length),
        frame=np.append(scene.frame, np.arange(scene.length, dtype=np.int32)),
        box=np.concatenate([scene.box, np.tile(box, (scene.length, 1)).astype(np.float32)]),
        cues=longer(scene.cues, unknown),
        labels=labels,
    )
