import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vidreason import cli
from vidreason import get as getting
from vidreason.core.errors import DataError
from vidreason.decomposition import ball_files
from vidreason.decomposition.ball_files import read_balls, write_balls
from vidreason.decomposition.clip import Balls

TOOL = Path(__file__).parents[2] / "tools" / "convert_stove.py"
FORMATS = "see datasets/balls/README.md for the formats"
AGAIN = "make or get the file again"
INFO = f"expected floats (scenes, frames, balls, 4); {FORMATS}"
SPLIT = "more than 100,000,000 states; split it into several files"


def line(path: Path) -> str:
    """What a user is told about a file, without its path."""
    with pytest.raises(DataError) as error:
        read_balls(path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


def free(scenes=2, frames=5, balls=3, width=800.0, height=800.0, seed=0):
    """Balls in px that move straight: positions, velocities."""
    rng = np.random.default_rng(seed)
    velocity = np.broadcast_to(
        rng.uniform(-9, 9, (scenes, 1, balls, 2)), (scenes, frames, balls, 2)
    )
    start = rng.uniform(0.2, 0.8, (scenes, 1, balls, 2)) * (width, height)
    return start + velocity * np.arange(frames)[:, None, None], velocity


def same(balls: Balls, positions, velocities, radii, masses, box, rtol=1e-12):
    for found, expected in zip(balls, (positions, velocities, radii, masses, box), strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol, 1e-12)
    assert balls.velocities.shape == balls.positions.shape
    assert balls.masses.shape == balls.radii.shape == balls.positions[:, 0, :, 0].shape


# matter-js


def world(positions, velocities, sizemul=1.0, mass=1.0, **config) -> dict:
    def state(x, v):
        place, speed = ({"x": float(p[0]), "y": float(p[1])} for p in (x, v))
        return {"position": place, "velocity": speed, "mass": mass, "sizemul": sizemul, "angle": 0}

    trajectories = [
        [
            [state(x[t, ball], v[t, ball]) for t in range(len(x))]  # ball before frame
            for ball in range(x.shape[1])
        ]
        for x, v in zip(positions, velocities, strict=True)
    ]
    return {"trajectories": trajectories, "config": config}


def dump(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("high", "box"), [(300, (1, 0.75)), (400, (1, 1))])
def test_a_matter_js_world_is_as_its_config_says(tmp_path, high, box):
    x, v = free(height=2 * high)
    path = dump(tmp_path / "x.json", world(x, v, 0.5, 25, cx=400, cy=high))
    same(read_balls(path), x / 800, v / 800, 30 / 800, 25, box)


@pytest.mark.parametrize(("lowest", "box"), [(539, (1, 0.75)), (520, (1, 0.75)), (561, (1, 1))])
def test_a_world_without_config_ends_where_its_balls_turn_round(tmp_path, lowest, box):
    x, v = free(height=500)
    x[1, 3, 2, 1] = lowest  # 60 px above the lowest point of the ball
    np.testing.assert_allclose(read_balls(dump(tmp_path / "x.json", world(x, v))).box, box)


def test_a_world_that_may_be_either_is_refused(tmp_path):
    x, v = free(height=500)
    path = dump(tmp_path / "x.json", world(x, v))
    assert x[..., 1].max() < 520
    assert line(path) == (
        "config: no ball comes near 600 px, so the world may be 800 x 600 or 800 x 800 px; "
        'state its centre, as in `"cx": 400, "cy": 300`'
    )


def test_chunks_are_joined_in_the_order_of_their_numbers_and_padded(tmp_path):
    folder, parts = tmp_path / "jsons", []
    for number in (0, 1, 2, 10, 11):
        parts.append(free(1, balls=2 + number % 2, seed=number))
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
    same(read_balls(tmp_path / "x.npz"), *balls, rtol=1e-6)


def test_a_damaged_chunk_is_named(tmp_path):
    x, v = free()
    dump(tmp_path / "d" / "c_1.json", world(x, v))
    bad = dump(tmp_path / "d" / "c_2.json", world(x[:, :4], v[:, :4]))
    with pytest.raises(DataError) as error:
        read_balls(tmp_path / "d")
    assert str(error.value) == (
        f"{bad}: trajectory 0: 4 frames, others have 5; give trajectories of one length"
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


STATE = ("trajectories", 1, 2, 3)
WHERE = "trajectory 1, ball 2, frame 3"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda _: [], f"has no list `trajectories`; {FORMATS}"),
        (lambda _: {"trajectories": {}}, f"has no list `trajectories`; {FORMATS}"),
        (lambda _: {"trajectories": []}, f"no trajectories; {FORMATS}"),
        (lambda _: {"trajectories": [[]]}, f"trajectory 0: is empty; {AGAIN}"),
        (lambda _: {"trajectories": [[[]]]}, f"trajectory 0: is empty; {AGAIN}"),
        (
            lambda _: {"trajectories": [7]},
            f"trajectory 0: is no list of balls, each a list of states; {FORMATS}",
        ),
        (
            change(*STATE, to=[1]),
            f"trajectory 1: is no list of balls, each a list of states; {FORMATS}",
        ),
        (change(*STATE, to={}), f"trajectory 1: a state has no 'position'; {FORMATS}"),
        (
            change(*STATE, "objtype", to="block"),
            "trajectory 1: has objects of type ['block']; take the balls only",
        ),
        (
            shorten,
            "trajectory 1: balls have 4 to 5 frames; give all balls of a trajectory the same",
        ),
        (change(*STATE, "position", "x", to="7"), f"{WHERE}: '7' is no finite number; {AGAIN}"),
        (change(*STATE, "position", "x", to=None), f"{WHERE}: None is no finite number; {AGAIN}"),
        (change(*STATE, "mass", to=[1]), f"{WHERE}: [1] is no finite number; {AGAIN}"),
        (
            change(*STATE, "mass", to=10**99),
            f"{WHERE}: {10**39} is no finite number; {AGAIN}",
        ),
        (change(*STATE, "velocity", "y", to=np.nan), f"{WHERE}: nan is no finite number; {AGAIN}"),
        (
            change(*STATE, "velocity", "y", to=-np.inf),
            f"{WHERE}: -inf is no finite number; {AGAIN}",
        ),
        (change("config", "cy", to="400"), "config: cx, cy are (400, '400'); give numbers of px"),
        (
            change(*STATE, "position", "y", to=801),
            "scene 1, ball 2, frame 3: positions 1.00125 out of the box of 1 x 1; "
            "divide lengths by its width",
        ),
        (
            change(*STATE[:3], 0, "mass", to=0),
            "scene 1, ball 2: masses 0, expected above 0; correct them",
        ),
        (
            change(*STATE[:3], 0, "sizemul", to=7),
            f"scene 1, ball 2: radii 0.525 do not fit the box; {FORMATS}",
        ),
    ],
)
def test_a_json_that_is_no_world_is_refused_in_a_line(tmp_path, damage, expected):
    content = damage(world(*free(), cx=400, cy=400))
    assert line(dump(tmp_path / "x.json", content)) == expected


def test_worlds_of_several_sizes_are_refused(tmp_path):
    for high in (300, 400):
        dump(tmp_path / "d" / f"{high}.json", world(*free(height=600), cx=400, cy=high))
    assert (
        line(tmp_path / "d")
        == "config: worlds of [(800, 600), (800, 800)] px; give them one by one"
    )


@pytest.mark.parametrize("content", [b"", b'{"trajectories": [', b"\xff\xfe\xff", b"[" * 100_000])
def test_json_cut_short_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert line(path).startswith("is no whole JSON (") and line(path).endswith(f"; {AGAIN}")


def test_a_huge_json_is_not_opened(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate((1 << 28) + 1)
    assert line(path) == (
        "larger than 268,435,456 bytes; write fewer trajectories to a file, and give the folder"
    )


# Files of no format


def test_what_is_no_file_of_balls_is_refused(tmp_path):
    assert line(tmp_path) == f"no .json files in this folder; {FORMATS}"
    assert line(tmp_path / "x.json") == "no such file or folder; check the path"
    (tmp_path / "x.mat").touch()
    assert line(tmp_path / "x.mat") == f"is none of .json, .npy, .npz, .h5, .hdf5; {FORMATS}"
    (tmp_path / "x.pkl").touch()
    assert line(tmp_path / "x.pkl") == (
        "is a pickle, which could run code and is not opened; "
        "convert it with tools/convert_stove.py"
    )


# dataset_info.npy


def info(x, sizemul=1.0, mass=1.0) -> np.ndarray:
    return np.concatenate(
        [x, np.full_like(x, mass)[..., :1], np.full_like(x, sizemul)[..., :1]], -1
    )


def test_dataset_info_is_read_with_velocities_of_the_past(tmp_path):
    x, v = free()
    x[1, 3:, 0] += 7  # a jump, seen in frame 3 and not before
    expected = v / 800
    expected[1, 3, 0] += 7 / 800
    np.save(tmp_path / "dataset_info.npy", info(x, 0.5, 25))
    same(read_balls(tmp_path / "dataset_info.npy"), x / 800, expected, 30 / 800, 25, (1, 1), 1e-9)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (info(free()[0])[0], f"float64 (5, 3, 4), {INFO}"),
        (free()[0], f"float64 (2, 5, 3, 2), {INFO}"),
        (
            info(free()[0]).astype(int),
            f"int64 (2, 5, 3, 4), {INFO}",
        ),
        (
            info(free()[0])[:, :0],
            f"float64 (2, 0, 3, 4), {INFO}",
        ),
        (
            info(free()[0])[:, :1],
            "positions are (2, 1, 3, 2), expected scenes, 2 or more frames, balls, 2; " + FORMATS,
        ),
        (
            info(free()[0]).astype(np.float16),
            f"positions: float16 (2, 5, 3, 2), expected float32 or float64 (2, 5, 3, 2); {FORMATS}",
        ),
        (
            np.where(np.arange(4) == 1, np.inf, info(free()[0])),
            "scene 0, ball 0, frame 0: positions inf where radii 0.075; "
            "give numbers, or NaN throughout where there is no ball",
        ),
    ],
)
def test_a_wrong_dataset_info_is_refused_in_a_line(tmp_path, array, expected):
    np.save(tmp_path / "x.npy", array)
    assert line(tmp_path / "x.npy") == expected


def test_pickled_and_damaged_arrays_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], object))
    assert line(path) == (
        "cannot be read as an array (Array can't be memory-mapped: Python objects in dtype.); "
        + AGAIN
    )
    np.save(path, info(free()[0]))
    whole = path.read_bytes()
    # The last says that there are more numbers than the disk could hold.
    for content in (
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        whole.replace(b"(2,", b"(9" + b"9" * 9),
    ):
        path.write_bytes(content)
        assert line(path).startswith("cannot be read as an array (")
    with path.open("wb") as file:
        np.savez(file, x=np.ones(3))
    assert line(path).startswith("cannot be read as an array (the magic string is not correct;")


# npz


def arrays(scenes=2, frames=5, balls=3) -> dict[str, np.ndarray]:
    x, v = free(scenes, frames, balls)
    shape = scenes, balls
    return {
        "positions": x / 800,
        "velocities": v / 800,
        "radii": np.full(shape, 0.05),
        "masses": np.full(shape, 2.0),
        "box": np.array([1, 0.9]),
    }


def test_npz_is_read_as_it_is_and_velocities_may_be_left_out(tmp_path):
    content = arrays()
    np.savez(tmp_path / "x.npz", **content, other=np.arange(3))
    same(read_balls(tmp_path / "x.npz"), *content.values())
    velocities = content.pop("velocities")
    np.savez_compressed(tmp_path / "x.npz", **content)
    np.testing.assert_allclose(read_balls(tmp_path / "x.npz").velocities, velocities, atol=1e-12)


def test_what_is_written_is_float32_and_never_half_a_file(tmp_path):
    balls = Balls(**arrays())
    path = tmp_path / "new" / "x.npz"
    write_balls(path, balls)
    with np.load(path, allow_pickle=False) as file:
        assert {key: str(file[key].dtype) for key in file} == dict.fromkeys(
            balls._fields, "float32"
        )
    same(read_balls(path), *balls, rtol=1e-6)
    with pytest.raises(DataError, match="scene 0, ball 0: radii -1 do not fit the box"):
        write_balls(path, balls._replace(radii=np.full((2, 3), -1.0)))
    same(read_balls(path), *balls, rtol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == ["x.npz"]


def put(name, place, value):
    def damage(content):
        content[name] = content[name].copy()
        content[name][place] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content.pop("box"), f"has no box; {FORMATS}"),
        (
            lambda content: [content.pop(key) for key in ("radii", "masses")],
            f"has no masses, radii; {FORMATS}",
        ),
        (
            lambda content: content.update(box=np.array([800.0, 600.0])),
            "box: 800 x 600, expected a longer side of 1; divide all lengths by the longer side",
        ),
        (
            lambda content: content.update(box=np.array([1.0, 0.0])),
            "box: 1 x 0, expected a longer side of 1; divide all lengths by the longer side",
        ),
        (
            lambda content: content.update(box=np.array([1, 1])),
            f"box: int64 (2,), expected float32 or float64 (2,); {FORMATS}",
        ),
        (
            lambda content: content.update(radii=np.ones(3)),
            f"radii: float64 (3,), expected float32 or float64 (2, 3); {FORMATS}",
        ),
        (
            lambda content: content.update(velocities=content["velocities"][:, 1:]),
            "velocities: float64 (2, 4, 3, 2), expected float32 or float64 (2, 5, 3, 2); "
            + FORMATS,
        ),
        (
            lambda content: content.update(positions=content["positions"].astype("U9")),
            f"positions: <U9 (2, 5, 3, 2), expected float32 or float64 (2, 5, 3, 2); {FORMATS}",
        ),
        (
            lambda content: content.update(positions=content["positions"] * 800),
            None,  # px
        ),
        (
            put("positions", (1, 4, 2, 1), 0.91),
            "scene 1, ball 2, frame 4: positions 0.91 out of the box of 1 x 0.9; "
            "divide lengths by its width",
        ),
        (
            put("positions", (1, 4, 2, 0), -0.01),
            "scene 1, ball 2, frame 4: positions -0.01 out of the box of 1 x 0.9; "
            "divide lengths by its width",
        ),
        (
            put("velocities", (0, 0, 1, 0), -20),
            "scene 0, ball 1, frame 0: velocities -20, over 1 width of the box per frame; "
            "give widths of the box per frame",
        ),
        (
            put("positions", (0, 2, 1, 0), np.nan),
            "scene 0, ball 1, frame 2: positions nan where radii 0.05; "
            "give numbers, or NaN throughout where there is no ball",
        ),
        (
            put("velocities", (0, 2, 1, 1), np.inf),
            "scene 0, ball 1, frame 2: velocities inf where radii 0.05; "
            "give numbers, or NaN throughout where there is no ball",
        ),
        (
            put("radii", (1, 1), np.nan),
            "scene 1, ball 1: masses 2 where radii nan; "
            "give numbers, or NaN throughout where there is no ball",
        ),
        (put("radii", (1, 1), np.inf), f"scene 1, ball 1: radii inf do not fit the box; {FORMATS}"),
        (put("radii", (1, 1), 0.46), f"scene 1, ball 1: radii 0.46 do not fit the box; {FORMATS}"),
        (put("masses", (1, 1), -1), "scene 1, ball 1: masses -1, expected above 0; correct them"),
        (
            lambda content: content.update(masses=np.array([{}], object)),
            "cannot be read as arrays (Object arrays cannot be loaded when allow_pickle=False); "
            + AGAIN,
        ),
    ],
)
def test_a_wrong_npz_is_refused_in_a_line(tmp_path, damage, expected):
    content = arrays()
    damage(content)
    np.savez(tmp_path / "x.npz", **content)
    if expected is None:
        x = content["positions"][0, 0, 0, 0]
        expected = (
            f"scene 0, ball 0, frame 0: positions {x:g} out of the box of 1 x 0.9; "
            "divide lengths by its width"
        )
    assert line(tmp_path / "x.npz") == expected


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    middle = len(whole) // 3
    for content in (
        b"",
        b"PK",
        whole[:50],
        whole[:-9],
        whole[:middle] + b"\0" * 40 + whole[middle + 40 :],
    ):
        path.write_bytes(content)
        assert line(path).startswith("cannot be read as arrays (")
    path.write_text("hello")
    assert "pickle" not in line(path)  # to open it as one is no advice
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert line(path) == "is an array, not an archive; name it .npy"
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(name, b"")  # without .npy
    assert line(path).startswith("cannot be read as arrays (")
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(f"{name}.npy", b"none")
    assert line(path) == f"positions is no array; {AGAIN}"


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    path, header = tmp_path / "x.npz", io.BytesIO()
    shape = (10**9, 10**6, 10**6, 2)
    description = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(f"{name}.npy", header.getvalue())
    assert line(path).startswith("cannot be read as arrays (")  # nothing of it is there

    # A directory that says 2 GB of an entry that is small.
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    assert line(path) == SPLIT


def test_states_are_counted_over_trajectories(tmp_path, monkeypatch):
    path = dump(tmp_path / "x.json", world(*free(2, 3, 2), cx=400, cy=400))
    monkeypatch.setattr(ball_files, "_MOST", 2 * 3 * 2)
    read_balls(path)
    monkeypatch.setattr(ball_files, "_MOST", 2 * 3 * 2 - 1)
    assert line(path).startswith("more than 11 states")


# HDF5


def hdf5(path: Path, content: dict) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


def gswm(scenes=2, frames=5, balls=3, **others) -> dict[str, np.ndarray]:
    x, _ = free(scenes, frames, balls, 60, 60)
    images = np.zeros((scenes, frames, 64, 64, 3), np.uint8)
    sizes = np.full((scenes, balls), 8.0)
    return {"imgs": images, "positions": np.clip(x, 0, 64), "sizes": sizes} | others


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_gswm_is_read_in_widths_of_its_frames(tmp_path, suffix):
    content = gswm(ids=np.zeros((2, 3)))
    balls = read_balls(hdf5(tmp_path / f"x{suffix}", content))
    steps = np.diff(content["positions"], axis=1) / 64
    velocities = np.concatenate([steps[:, :1], steps], 1)
    same(balls, content["positions"] / 64, velocities, 8 / 64, 1, (1, 1))
    content["sizes"] = np.full((2, 5, 3), 8, np.uint8)  # once a frame
    same(read_balls(hdf5(tmp_path / f"y{suffix}", content)), *balls)


def painted(frames=4, scenes=17, side=48, seed=0):
    """R-NEM's pixels, painted one by one: groups (T, M, S, S, 1), centres and radii in px."""
    rng = np.random.default_rng(seed)
    groups = np.zeros((frames, scenes, side, side, 1), np.float32)
    centres = np.full((scenes, frames, 3, 2), np.nan)
    radii = np.full((scenes, 3), np.nan)
    for scene in range(scenes):
        for ball in range(2 + (scene == 16)):
            radii[scene, ball] = radius = rng.uniform(4, 6)
            start = np.array([7 + 15 * ball, rng.uniform(8, 20)])
            for frame in range(frames):
                x, y = centres[scene, frame, ball] = start + (0.5, 3.25 * frame)
                for row in range(side):
                    for column in range(side):
                        if (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 < radius**2:
                            groups[frame, scene, row, column, 0] = ball + 1
    return groups, centres, radii


def test_rnem_gives_centres_and_areas_of_its_groups(tmp_path):
    groups, centres, radii = painted()
    path = hdf5(tmp_path / "x.h5", {"training/groups": groups, "test/groups": groups[:, :3]})
    assert line(path) == "holds several splits, test, training; name one, as in x.h5/test"
    with pytest.raises(DataError) as error:
        read_balls(path / "validation")
    assert (
        str(error.value) == f"{path}: has no group 'validation'; name one of ['test', 'training']"
    )
    assert read_balls(path / "test").positions.shape == (3, 4, 2, 2)
    balls = read_balls(path / "training")
    # A disc of some 50 pixels: a row of them more or less moves the centre by a third of a pixel.
    np.testing.assert_allclose(balls.positions * 48, centres, atol=0.4)
    np.testing.assert_allclose(balls.radii * 48, radii, atol=0.2)
    np.testing.assert_allclose(np.nanmean(balls.positions * 48 - centres, (0, 1, 2)), 0, atol=0.03)
    np.testing.assert_array_equal(balls.masses, np.where(np.isnan(radii), np.nan, 1))
    np.testing.assert_array_equal(balls.velocities[:, 0], balls.velocities[:, 1])
    y, x = np.mean(np.argwhere(groups[2, 16, ..., 0] == 3) + 0.5, 0)  # one, the slow way
    np.testing.assert_allclose(balls.positions[16, 2, 2] * 48, (x, y))


def hidden(groups):
    groups[2, 1][groups[2, 1] == 2] = 0
    return groups


PAINTED = painted(scenes=2)[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"groups": hidden(PAINTED.copy())},
            "scene 1, ball 1, frame 2: is not seen, so its state is unknown; take another set",
        ),
        (
            {"groups": PAINTED * 0.5},
            f"scenes from 0: groups are no whole numbers from 0 to 16; {FORMATS}",
        ),
        (
            {"groups": PAINTED * 17},
            f"scenes from 0: groups are no whole numbers from 0 to 16; {FORMATS}",
        ),
        (
            {"groups": np.where(PAINTED, np.inf, np.nan)},
            f"scenes from 0: groups are no whole numbers from 0 to 16; {FORMATS}",
        ),
        (
            {"groups": PAINTED * 0},
            f"positions are (2, 4, 0, 2), expected scenes, 2 or more frames, balls, 2; {FORMATS}",
        ),
        (
            {"groups": PAINTED[..., 0]},
            f"groups are (4, 2, 48, 48), expected frames, scenes, S, S, 1; {FORMATS}",
        ),
        ({"features": PAINTED}, f"has neither positions, sizes and imgs nor groups; {FORMATS}"),
        ({"groups": np.array([b"x"])}, "groups hold |S1; give numbers"),
        (
            gswm(sizes=np.ones(3)),
            f"positions (2, 5, 3, 2), sizes (3,), imgs (2, 5, 64, 64, 3); {FORMATS}",
        ),
        (
            gswm(sizes=np.arange(1, 31).reshape(2, 5, 3)),
            "sizes change in time; take balls of one size",
        ),
        (
            gswm(positions=np.full((2, 5, 3, 2), 65)),
            "scene 0, ball 0, frame 0: positions 1.01562 out of the box of 1 x 1; "
            "divide lengths by its width",
        ),
        (
            gswm(positions=np.full((2, 5, 3, 2), np.nan)),
            "scene 0, ball 0, frame 0: positions nan where radii 0.125; "
            "give numbers, or NaN throughout where there is no ball",
        ),
    ],
)
def test_wrong_hdf5_is_refused_in_a_line(tmp_path, content, expected):
    assert line(hdf5(tmp_path / "x.h5", content)) == expected


def test_damaged_hdf5_is_refused(tmp_path):
    path = hdf5(tmp_path / "x.h5", gswm())
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert line(path).startswith("cannot be read as HDF5 (")


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual"])
@pytest.mark.parametrize("split", ["", "training"])
def test_hdf5_opens_no_other_file(tmp_path, kind, split):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path, secret = tmp_path / "x.h5", tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["positions"] = np.full((1, 3, 2, 2), 4.0)
    with h5py.File(path, "w") as file:
        group = file.create_group(split) if split else file
        group["imgs"], group["sizes"] = np.zeros((1, 3, 8, 8, 3), np.uint8), np.ones((1, 2))
        if kind == "external link":
            group["positions"] = h5py.ExternalLink(secret, "positions")
        elif kind == "soft link":
            group["positions"] = h5py.SoftLink("/elsewhere")
        elif kind == "external data":
            group.create_dataset("positions", (1, 3, 2, 2), "f8", external=[(secret, 0, 96)])
        else:
            layout = h5py.VirtualLayout((1, 3, 2, 2), "f8")
            layout[:] = h5py.VirtualSource(secret, "positions", (1, 3, 2, 2))
            group.create_virtual_dataset("positions", layout)
    assert line(path / split) == (
        "positions: leads elsewhere (a link, or data outside the file); "
        "copy what it leads to into the file"
    )


def test_hdf5_of_absurd_size_is_refused_unread(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    for name, shape, expected in (
        ("positions", (10**9, 10**3, 3, 2), SPLIT),
        ("groups", (10**9, 2, 64, 64, 1), f"more than 268,435,456 pixels in a scene; {AGAIN}"),
        ("groups", (2, 10**9, 4, 4, 1), SPLIT),
    ):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape))  # takes no room
            if name == "positions":
                file["sizes"], file["imgs"] = np.ones((2, 3)), np.ones((2, 5, 4, 4, 3))
        assert line(tmp_path / "x.h5") == expected


def test_without_h5py_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").touch()
    assert line(tmp_path / "x.h5") == (
        "needs h5py to be read; install it with `pip install 'vidreason[hdf5]'`"
    )


# Pickles


def convert(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), str(path), str(path.with_suffix(".npz"))]
    return subprocess.run(command, capture_output=True, text=True)


def stove(**others) -> dict:
    x, v = free(width=10, height=10)
    y = np.concatenate([np.clip(x, 0, 10), v / 80], -1)
    images = np.zeros((2, 5, 8, 8, 3))
    return {"X": images, "y": y, "coord_lim": 10, "r": 1.2, "m": 4.0, "dt": 1} | others


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOL.parent))
    try:
        import convert_stove
    finally:
        sys.path.remove(str(TOOL.parent))
    return convert_stove


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["<f8", ">f4"])
@pytest.mark.parametrize("order", "CF")
def test_a_pickle_of_stove_is_converted(tmp_path, tool, protocol, kind, order):
    y = stove()["y"]
    content = stove(y=y.astype(kind, order), r=np.float64(1.2), m=np.full(3, 4))
    del content["coord_lim"]
    content["hw"] = np.float32(10)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    balls = tool.read_stove(path)
    same(balls, y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1), rtol=1e-6)


def test_a_pickle_of_an_older_numpy_is_converted(tmp_path, tool):
    path, content = tmp_path / "x.pkl", pickle.dumps(stove(), 2)
    older = content.replace(b"cnumpy._core.", b"cnumpy.core.")
    assert older.count(b"cnumpy.core.") == 1
    path.write_bytes(older)
    y = stove()["y"]
    same(tool.read_stove(path), y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1))


def test_the_converter_writes_what_is_read(tmp_path):
    content = stove()
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    assert (done := convert(path)).returncode == 0, done.stderr
    y = content["y"]
    same(read_balls(tmp_path / "x.npz"), y[..., :2] / 10, y[..., 2:] / 10, 0.12, 4, (1, 1), 1e-6)


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path):
    import os

    path, trace = tmp_path / "x.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps(stove(r=Evil(os.system, f"touch {trace}")), 4))
    done = convert(path)
    assert done.returncode == 1 and done.stderr == (
        f"error: {path}: cannot be converted (names posix.system, which is not allowed); "
        "give a file of STOVE's, a dict with y, coord_lim and r\n"
    )
    assert not trace.exists() and not (tmp_path / "x.npz").exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pickle.dumps(stove(r=Evil(eval, "1 + 1"))), "names builtins.eval, which is not allowed"),
        (pickle.dumps(stove(r=Evil(getattr, 1, "real"))), "names builtins.getattr, which"),
        (pickle.dumps(stove(r=Evil(np.load, "x"))), "names numpy.load, which is not allowed"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "names numpy.ndarray.dumps, which"),
        (b"cnumpy\nndarray\n.", "argument of type"),
        (pickle.dumps(stove(y=np.array([{}, 1], object))), "array of 'O8'"),
        (pickle.dumps(stove(y=np.array(["x"]))), "array of 'U1'"),
        (pickle.dumps(stove(y=np.zeros(2, "M8[s]"))), "array of 'M8'"),
        (pickle.dumps(stove(y=[1, 2])), "y is no array of up to 100,000,000 states"),
        (pickle.dumps(stove(y=stove()["y"][0])), "y is (5, 3, 4)"),
        (pickle.dumps(stove(r="1.2")), "'1.2' is no number"),
        (pickle.dumps({"y": 1}), "no 'hw'"),
        (pickle.dumps([1]), "list indices"),
        (pickle.dumps(stove())[:-900], "pickle data was truncated"),
        (b"", "Ran out of input"),
        (b"\x80\x04]\x94(K\x01", "Ran out of input"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_in_a_line(tmp_path, tool, content, problem):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        tool.read_stove(path)
    assert problem in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: cannot be converted (")


def test_arrays_that_say_they_are_large_are_refused(tmp_path, tool):
    path = tmp_path / "x.pkl"
    content = pickle.dumps(stove(y=np.zeros((2, 5, 3, 4), np.uint8)), 4)
    shape, larger = b"(K\x02K\x05K\x03K\x04", b"(J\xff\xff\xff\x7fK\x05K\x03K\x04"
    assert content.count(shape) == 1
    framed = content.index(b"\x95")  # frames would have another length
    path.write_bytes((content[:framed] + content[framed + 9 :]).replace(shape, larger))
    with pytest.raises(DataError, match="y is no array of up to 100,000,000 states"):
        tool.read_stove(path)


# vidreason data get balls


@pytest.fixture
def discs(monkeypatch):
    """Stands in for the simulator; collects what was asked of it."""
    asked = []

    class Discs:
        def __init__(self, seed):
            self.seed = seed

        def states(self, index):
            asked.append((self.seed, index.tolist()))
            x = 0.2 + (index + self.seed % 7)[:, None, None, None] * 1e-4 + np.zeros((1, 60, 4, 2))
            shape = len(index), 4
            return Balls(x, 0 * x, np.full(shape, 0.075), np.ones(shape), np.ones(2))

    module = ModuleType("vidreason.decomposition.discs")
    module.Discs = Discs
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


SETS = {"train": (0, 1003), "val": (1 << 40, 2)}


def test_sets_are_simulated_once_and_verified_after(tmp_path, discs):
    getting.simulate(tmp_path / "balls", SETS)
    assert [(seed, len(index)) for seed, index in discs] == [*[(0, 500)] * 2, (0, 3), (1 << 40, 2)]
    assert sum((index for seed, index in discs if not seed), []) == list(range(1003))
    balls = read_balls(tmp_path / "balls" / "train.npz")
    np.testing.assert_allclose(balls.positions[:, 7, 1, 0], 0.2 + np.arange(1003) * 1e-4, rtol=1e-6)
    files = sorted((tmp_path / "balls").iterdir())
    assert [file.name for file in files] == ["train.npz", "val.npz"]
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    getting.simulate(tmp_path / "balls", SETS)
    assert before == [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]


@pytest.mark.parametrize("name", ["positions", "radii", "masses", "box"])
def test_other_sets_than_the_simulated_are_refused(tmp_path, discs, name):
    getting.simulate(tmp_path, SETS)
    balls = read_balls(tmp_path / "val.npz")
    shift = -0.1 if name == "box" else 0.01
    other = getattr(balls, name).copy()
    other.ravel()[-1] += shift
    write_balls(tmp_path / "val.npz", balls._replace(**{name: other}))
    with pytest.raises(DataError) as error:
        getting.simulate(tmp_path, SETS)
    assert str(error.value) == (
        f"{tmp_path / 'val.npz'}: holds other trajectories than this version simulates; "
        "choose another folder, or remove the file"
    )
    write_balls(tmp_path / "val.npz", Balls(*(array[:1] for array in balls[:4]), balls.box))
    with pytest.raises(DataError, match="holds other trajectories"):
        getting.simulate(tmp_path, SETS)


def test_the_command_writes_the_standard_sets(tmp_path, discs, capsys, monkeypatch):
    assert cli.main(["data", "get", "balls", "--root", str(tmp_path), "--from", "x"]) == 1
    assert capsys.readouterr().err == (
        "error: --from: balls are simulated, not fetched; leave it out\n"
    )
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    # Small ones here; the parameters are those of the standard.
    assert getting.BALLS == {
        "train": (0, 50_000),
        "val": (1 << 40, 2_000),
        "test": (2 << 40, 2_000),
    }
    monkeypatch.setattr(getting, "BALLS", {"val": (1 << 40, 2)})
    assert cli.main(["data", "get", "balls"]) == 0
    root = tmp_path / "balls"
    assert capsys.readouterr().out == f"balls: complete and verified in {root}\n"
    assert [file.name for file in root.iterdir()] == ["val.npz"]
