"""Random scenes: tracks with gaps, groups, empty videos, two image sizes."""

import dataclasses

import numpy as np

from vidreason.scenes.scene import CUES, EGO_ACTIONS, FACTS, KINDS, LABELS, OBJECTS, SIGNALS, Scene


def scene(seed, index=0, tracks=None):
    """Returns a scene of 95 to 130 frames; tracks (up to five by default) with tags have facts."""
    rng = np.random.default_rng((seed, index))
    length = int(rng.integers(95, 131))
    width, height = ((1920, 1080), (1280, 720))[rng.integers(2)]
    kinds = rng.choice(2, rng.integers(6) if tracks is None else tracks, p=[0.8, 0.2])
    frames = [_frames(rng, length) for _ in kinds]
    behaviour = (kinds == 0) & (rng.random(len(kinds)) < 0.6)
    facts = {name: np.full(len(kinds), -1, np.int32) for name in FACTS}
    for k in np.flatnonzero(behaviour):
        for name, words in FACTS.items():
            facts[name][k] = rng.integers(len(words) if words else 5)
        facts["crossing"][k] = rng.integers(-1, 2)
        facts["crossing_point"][k] = -1 if rng.random() < 0.3 else rng.choice(frames[k][-40:])
    offsets = np.cumsum([0, *map(len, frames)])
    boxes = int(offsets[-1])
    tagged = np.repeat(behaviour, np.diff(offsets))
    return Scene(
        id=f"video_{index + 1:04d}",
        fps=(29.97, 25.0)[rng.integers(2)],
        width=width,
        height=height,
        length=length,
        attributes={"road_type": str(rng.choice(["street", "parking_lot", "garage", ""]))},
        ego_action=rng.integers(-1, len(EGO_ACTIONS), length).astype(np.int8),
        signals={
            name: rng.integers(-1, 3 if name == "traffic_light" else 2, length).astype(np.int8)
            for name in SIGNALS
        },
        track_ids=tuple(f"0_{index}_{k}{'b' * int(b)}" for k, b in enumerate(behaviour)),
        kind=kinds.astype(np.int8),
        facts=facts | {"behaviour": behaviour.astype(np.int32)},
        offsets=offsets.astype(np.int64),
        frame=np.concatenate([np.empty(0), *frames]).astype(np.int32),
        box=np.concatenate(
            [np.empty((0, 4)), *(walk(rng, f, width, height) for f in frames)]
        ).astype(np.float32),
        cues={
            name: rng.integers(-1, 3 if name == "occlusion" else 2, boxes).astype(np.int8)
            for name in CUES
        },
        labels={
            name: np.where(tagged, rng.integers(len(words), size=boxes), -1).astype(np.int8)
            for name, words in LABELS.items()
        },
    )


def scenes(seed, count=4):
    return [scene(seed, index) for index in range(count)]


def furnished(scene, seed=0, objects=4):
    """Returns the scene with additional objects, such as traffic lights, and odometry."""
    rng = np.random.default_rng((seed, scene.length))
    lamp, others = KINDS.index("traffic_light"), [KINDS.index(name) for name in OBJECTS]
    kinds = np.append(lamp, rng.choice(others, objects - 1))
    frames = [_frames(rng, scene.length) for _ in kinds]
    more = sum(map(len, frames))
    light = np.concatenate(
        [rng.integers(-1, 3, len(f)) * (k == lamp) for f, k in zip(frames, kinds, strict=True)]
    )

    def longer(columns, count):
        return {n: np.append(v, np.full(count, -1, v.dtype)) for n, v in columns.items()}

    speed = rng.uniform(0, 15, scene.length).astype(np.float32)
    speed[rng.random(scene.length) < 0.1] = np.nan
    heading = (rng.normal(0, 0.05, scene.length).cumsum() % (2 * np.pi)).astype(np.float32)
    return dataclasses.replace(
        scene,
        track_ids=(*scene.track_ids, *(f"object {n}" for n in range(objects))),
        kind=np.append(scene.kind, kinds).astype(np.int8),
        facts=longer(scene.facts, objects)
        | {"behaviour": np.append(scene.facts["behaviour"], [0] * objects).astype(np.int32)},
        offsets=np.append(scene.offsets, scene.offsets[-1] + np.cumsum([len(f) for f in frames])),
        frame=np.concatenate([scene.frame, *frames]).astype(np.int32),
        box=np.concatenate(
            [scene.box, *(walk(rng, f, scene.width, scene.height) for f in frames)]
        ).astype(np.float32),
        cues=longer(scene.cues, more)
        | {"light": np.append(np.full(len(scene.frame), -1), light).astype(np.int8)},
        labels=longer(scene.labels, more),
        odometry={"speed": speed, "heading": heading},
    )


def walk(rng, frames, width, height):
    """Returns boxes (n, 4) in quarters of a pixel, exact in float32 also when mirrored."""
    steps = rng.normal(0, 3, (len(frames), 2)).cumsum(0)
    middle = rng.uniform(0.25, 0.75, 2) * [width, height] + steps
    half = rng.uniform(4, 150, 2) * rng.uniform(0.8, 1.2, (len(frames), 2))
    return np.round(np.hstack([middle - half, middle + half]) * 4) / 4


def changed(scene, **columns):
    """Returns the scene with other columns; tables are updated, not replaced."""
    tables = {n: getattr(scene, n) | v for n, v in columns.items() if isinstance(v, dict)}
    return dataclasses.replace(scene, **(columns | tables))


def assert_sound(scene):
    """Checks the invariants of the columns of `Scene`: sizes, order, and -1 as the minimum."""
    tracks, boxes = len(scene.kind), len(scene.frame)
    assert len(set(scene.track_ids)) == len(scene.track_ids) == tracks
    assert scene.offsets[0] == 0 and scene.offsets[-1] == boxes
    assert len(scene.offsets) == tracks + 1 and (np.diff(scene.offsets) > 0).all()
    later = np.setdiff1d(np.arange(1, boxes), scene.offsets)
    assert (np.diff(scene.frame, prepend=-1)[later] > 0).all()
    assert scene.box.shape == (boxes, 4) and np.isfinite(scene.box).all()
    assert not boxes or 0 <= scene.frame.min() <= scene.frame.max() < scene.length
    coded = {
        scene.length: [scene.ego_action, *scene.signals.values()],
        tracks: [scene.kind, *scene.facts.values()],
        boxes: [*scene.cues.values(), *scene.labels.values()],
    }
    for size, columns in coded.items():
        for column in columns:
            assert len(column) == size and (column >= -1).all()


def assert_same(one, other):
    """Checks that all columns of two lists of scenes are equal, including their types."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field in dataclasses.fields(Scene):
            x, y = getattr(a, field.name), getattr(b, field.name)
            if not isinstance(x, dict):
                x, y = {field.name: x}, {field.name: y}
            assert list(x) == list(y), field.name
            for name in x:
                assert np.asarray(x[name]).dtype == np.asarray(y[name]).dtype, name
                np.testing.assert_array_equal(x[name], y[name], f"{a.id} {field.name} {name}")


def _frames(rng, length):
    first, last = rng.integers(0, 30), length - rng.integers(0, 12)
    frames = np.arange(first, last)
    if rng.random() < 0.8:  # a gap, sometimes longer than a window
        start = rng.integers(1, len(frames) - 1)
        frames = np.delete(frames, slice(start, min(start + rng.integers(1, 25), len(frames) - 1)))
    return frames
