"""Matter-js worlds as JSON files and folders of chunks."""

import json
from pathlib import Path

import numpy as np
import pytest
from make.balls import AGAIN, FORMATS, assert_states, error_line, straight

from vidreason.core.errors import DataError
from vidreason.decomposition import ball_states
from vidreason.decomposition.ball_files import read_balls, write_balls


def world(positions, velocities, sizemul=1.0, mass=1.0, **config) -> dict:
    def state(x, v):
        place, speed = ({"x": float(p[0]), "y": float(p[1])} for p in (x, v))
        return {"position": place, "velocity": speed, "mass": mass, "sizemul": sizemul, "angle": 0}

    trajectories = [
        [[state(x[t, ball], v[t, ball]) for t in range(len(x))] for ball in range(x.shape[1])]
        for x, v in zip(positions, velocities, strict=True)
    ]
    return {"trajectories": trajectories, "config": config}


def dump(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("high", "box"), [(300, (1, 0.75)), (400, (1, 1))])
def test_world_size_is_read_from_config(tmp_path, high, box):
    x, v = straight(height=2 * high)
    path = dump(tmp_path / "x.json", world(x, v, 0.5, 25, cx=400, cy=high))
    assert_states(read_balls(path), x / 800, v / 800, 30 / 800, 25, box)


@pytest.mark.parametrize(("lowest", "box"), [(539, (1, 0.75)), (520, (1, 0.75)), (561, (1, 1))])
def test_world_size_without_config_follows_from_the_lowest_ball(tmp_path, lowest, box):
    x, v = straight(height=500)
    x[1, 3, 2, 1] = lowest  # the ball extends 60 px further down
    np.testing.assert_allclose(read_balls(dump(tmp_path / "x.json", world(x, v))).box, box)


def test_ambiguous_world_size_is_rejected(tmp_path):
    x, v = straight(height=500)
    path = dump(tmp_path / "x.json", world(x, v))
    assert x[..., 1].max() < 520
    assert error_line(path) == (
        "config: no ball comes near 600 px, so the world may be 800 x 600 or 800 x 800 px; "
        'add its centre, as in `"cx": 400, "cy": 300`'
    )


def test_chunks_are_joined_in_numeric_order_and_padded(tmp_path):
    folder, parts = tmp_path / "jsons", []
    for number in (0, 1, 2, 10, 11):
        parts.append(straight(1, balls=2 + number % 2, seed=number))
        dump(folder / f"balls_chksize1_{number}.json", world(*parts[-1], cx=400, cy=400))
    balls = read_balls(folder)
    assert balls.positions.shape == (5, 5, 3, 2)
    for scene, (x, v) in enumerate(parts):
        count = x.shape[2]
        np.testing.assert_allclose(balls.positions[scene, :, :count], x[0] / 800)
        np.testing.assert_allclose(balls.velocities[scene, :, :count], v[0] / 800)
        for array in (balls.positions, balls.velocities):
            assert np.isnan(array[scene, :, count:]).all()
        for array in (balls.radii, balls.masses):
            assert np.isnan(array[scene, count:]).all() and np.isfinite(array[scene, :count]).all()
    write_balls(tmp_path / "x.npz", balls)
    assert_states(read_balls(tmp_path / "x.npz"), *balls, rtol=1e-6)


def test_error_names_the_damaged_chunk(tmp_path):
    x, v = straight()
    dump(tmp_path / "d" / "c_1.json", world(x, v))
    bad = dump(tmp_path / "d" / "c_2.json", world(x[:, :4], v[:, :4]))
    with pytest.raises(DataError) as error:
        read_balls(tmp_path / "d")
    assert str(error.value) == (
        f"{bad}: trajectory 0: has 4 frames, others have 5; use trajectories of the same length"
    )


def change(*path, to):
    def damage(content: dict) -> object:
        item = content
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = to
        return content

    return damage


def shorten(content: dict) -> dict:
    content["trajectories"][1][2].pop()
    return content


INFINITE = f"is not a finite number; {AGAIN}"
STATE = ("trajectories", 1, 2, 3)
WHERE = "trajectory 1, ball 2, frame 3"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda _: [], f"has no list `trajectories`; {FORMATS}"),
        (lambda _: {"trajectories": {}}, f"has no list `trajectories`; {FORMATS}"),
        (lambda _: {"trajectories": []}, f"has no trajectories; {FORMATS}"),
        (lambda _: {"trajectories": [[]]}, f"trajectory 0: is empty; {AGAIN}"),
        (lambda _: {"trajectories": [[[]]]}, f"trajectory 0: is empty; {AGAIN}"),
        (
            lambda _: {"trajectories": [7]},
            f"trajectory 0: is not a list of balls, each a list of states; {FORMATS}",
        ),
        (
            change(*STATE, to=[1]),
            f"trajectory 1: is not a list of balls, each a list of states; {FORMATS}",
        ),
        (change(*STATE, to={}), f"trajectory 1: a state has no 'position'; {FORMATS}"),
        (
            change(*STATE, "objtype", to="block"),
            "trajectory 1: has objects of type ['block']; keep balls only",
        ),
        (
            shorten,
            "trajectory 1: balls have 4 to 5 frames; "
            "use the same number for all balls of a trajectory",
        ),
        (change(*STATE, "position", "x", to="7"), f"{WHERE}: '7' {INFINITE}"),
        (
            change(*STATE, "position", "x", to=None),
            f"{WHERE}: None {INFINITE}",
        ),
        (change(*STATE, "mass", to=[1]), f"{WHERE}: [1] {INFINITE}"),
        (
            change(*STATE, "mass", to=10**99),
            f"{WHERE}: {10**39} {INFINITE}",
        ),
        (
            change(*STATE, "velocity", "y", to=np.nan),
            f"{WHERE}: nan {INFINITE}",
        ),
        (
            change(*STATE, "velocity", "y", to=-np.inf),
            f"{WHERE}: -inf {INFINITE}",
        ),
        (change("config", "cy", to="400"), "config: cx, cy are (400, '400'); use numbers in px"),
        (
            change(*STATE, "position", "y", to=801),
            "scene 1, ball 2, frame 3: positions 1.00125 outside the 1 x 1 box; "
            "divide lengths by the box width",
        ),
        (
            change(*STATE[:3], 0, "mass", to=0),
            "scene 1, ball 2: masses must be above 0, got 0; correct the masses",
        ),
        (
            change(*STATE[:3], 0, "sizemul", to=7),
            f"scene 1, ball 2: radii must be positive and fit into the box, got 0.525; {FORMATS}",
        ),
    ],
)
def test_invalid_json_is_rejected_with_one_line(tmp_path, damage, expected):
    content = damage(world(*straight(), cx=400, cy=400))
    assert error_line(dump(tmp_path / "x.json", content)) == expected


def test_worlds_of_different_sizes_are_rejected(tmp_path):
    for high in (300, 400):
        dump(tmp_path / "d" / f"{high}.json", world(*straight(height=600), cx=400, cy=high))
    assert (
        error_line(tmp_path / "d")
        == "config: worlds have different sizes, [(800, 600), (800, 800)] px; read them one by one"
    )


@pytest.mark.parametrize("content", [b"", b'{"trajectories": [', b"\xff\xfe\xff", b"[" * 100_000])
def test_truncated_json_is_rejected(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert error_line(path).startswith("is not valid JSON (") and error_line(path).endswith(
        f"; {AGAIN}"
    )


def test_huge_json_is_not_opened(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate((1 << 28) + 1)
    assert error_line(path) == (
        "is larger than 268,435,456 bytes; write fewer trajectories per file and pass the folder"
    )


def test_states_are_counted_over_all_trajectories(tmp_path, monkeypatch):
    path = dump(tmp_path / "x.json", world(*straight(2, 3, 2), cx=400, cy=400))
    monkeypatch.setattr(ball_states, "MOST_STATES", 2 * 3 * 2)
    read_balls(path)
    monkeypatch.setattr(ball_states, "MOST_STATES", 2 * 3 * 2 - 1)
    assert error_line(path).startswith("has more than 11 states")
