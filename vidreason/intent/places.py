"""The place in front of the car as a node of the scene graph, labelled by whether it is occupied.

STIP's location-centric task (Liu et al., RA-L 2020) predicts whether anybody will be on the lane
ahead, not whether a given pedestrian will cross. The place is added to the scene as a track with a
box and a label in every frame, so that windows, graphs and models work unchanged.
"""

from dataclasses import replace

import numpy as np

from vidreason.scenes.scene import KINDS, Scene

_SIZE = (1920, 1080)  # pixels, image size to which the constants below refer
_SLOPE, _MARGIN, _REACH = 0.25, 20, 200  # slope of the sides; pixels above the lower edge
PLACE = "place"


def inside(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns whether the feet of persons are on the lane ahead.

    The lane is a trapezoid on the lower edge of the image, scaled to the image size.

    Args:
        box: (L, 4) boxes x1, y1, x2, y2 in pixels.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        (L,) bool.
    """
    x = (box[:, 0] + box[:, 2]) / 2 * (_SIZE[0] / width)
    up = (height - box[:, 3]) * (_SIZE[1] / height)
    side = np.minimum(x, _SIZE[0] - x)
    return (up <= _REACH) & (up <= _SLOPE * side - _MARGIN)


def with_place(scene: Scene) -> Scene:
    """Returns the scene with an added track of kind `place`.

    Its box encloses the trapezoid of `inside` in each frame, and its label `cross` is whether a
    person's feet are in it, which boxes show. Its cues and other labels are unknown.
    """
    kind = np.repeat(scene.kind, np.diff(scene.offsets))
    there = inside(scene.box, scene.width, scene.height) & (kind == KINDS.index("person"))
    occupied = np.zeros(scene.length, np.int8)
    occupied[scene.frame[there]] = 1
    left = _MARGIN / _SLOPE
    corners = np.array([left, _SIZE[1] - _REACH, _SIZE[0] - left, _SIZE[1]], np.float32)
    box = corners * np.tile([scene.width / _SIZE[0], scene.height / _SIZE[1]], 2)
    unknown = np.full(scene.length, -1, np.int8)

    def longer(columns: dict[str, np.ndarray], more: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.append(column, more.astype(column.dtype)) for name, column in columns.items()
        }

    labels = longer(scene.labels, unknown)
    labels["cross"][len(scene.frame) :] = occupied
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
