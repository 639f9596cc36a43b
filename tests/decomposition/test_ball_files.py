"""Balls in .npy and .npz files, and files of no known format."""

import io
import zipfile

import numpy as np
import pytest
from make.balls import AGAIN, FORMATS, TOO_MANY, assert_states, error_line, straight

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls, write_balls
from vidreason.decomposition.clip import Balls

INFO = "must be floats (scenes, frames, balls, 4)"
SHAPE = "positions: must be (scenes, at least 2 frames, balls, 2)"
RADII = "scene 1, ball 1: radii must be positive and fit into the box"
ABSENT = "use numbers, or NaN throughout where there is no ball"
LONGER = "divide all lengths by the longer side"


def test_unknown_files_are_rejected(tmp_path):
    assert error_line(tmp_path) == f"no .json files in this folder; {FORMATS}"
    assert error_line(tmp_path / "x.json") == "no such file or folder; check the path"
    (tmp_path / "x.mat").touch()
    assert (
        error_line(tmp_path / "x.mat")
        == f"suffix must be one of .json, .npy, .npz, .h5, .hdf5; {FORMATS}"
    )
    (tmp_path / "x.pkl").touch()
    assert error_line(tmp_path / "x.pkl") == (
        "is a pickle, which can run code and is not opened; convert it with tools/convert_stove.py"
    )


# dataset_info.npy


def info(x, sizemul=1.0, mass=1.0) -> np.ndarray:
    return np.concatenate(
        [x, np.full_like(x, mass)[..., :1], np.full_like(x, sizemul)[..., :1]], -1
    )


def test_dataset_info_has_velocities_from_the_previous_frame(tmp_path):
    x, v = straight()
    x[1, 3:, 0] += 7  # a jump, which must show in frame 3 and not before
    expected = v / 800
    expected[1, 3, 0] += 7 / 800
    np.save(tmp_path / "dataset_info.npy", info(x, 0.5, 25))
    assert_states(
        read_balls(tmp_path / "dataset_info.npy"), x / 800, expected, 30 / 800, 25, (1, 1), 1e-9
    )


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (info(straight()[0])[0], f"{INFO}, got float64 (5, 3, 4); {FORMATS}"),
        (straight()[0], f"{INFO}, got float64 (2, 5, 3, 2); {FORMATS}"),
        (
            info(straight()[0]).astype(int),
            f"{INFO}, got int64 (2, 5, 3, 4); {FORMATS}",
        ),
        (
            info(straight()[0])[:, :0],
            f"{INFO}, got float64 (2, 0, 3, 4); {FORMATS}",
        ),
        (
            info(straight()[0])[:, :1],
            f"{SHAPE}, got (2, 1, 3, 2); {FORMATS}",
        ),
        (
            info(straight()[0]).astype(np.float16),
            "positions: must be float32 or float64 (2, 5, 3, 2), got float16 (2, 5, 3, 2); "
            + FORMATS,
        ),
        (
            np.where(np.arange(4) == 1, np.inf, info(straight()[0])),
            "scene 0, ball 0, frame 0: positions inf where the radius is 0.075; " + ABSENT,
        ),
    ],
)
def test_invalid_dataset_info_is_rejected_with_one_line(tmp_path, array, expected):
    np.save(tmp_path / "x.npy", array)
    assert error_line(tmp_path / "x.npy") == expected


def test_pickled_and_damaged_arrays_are_rejected(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], object))
    assert error_line(path) == (
        "is not a readable .npy array (Array can't be memory-mapped: Python objects in dtype.); "
        + AGAIN
    )
    np.save(path, info(straight()[0]))
    whole = path.read_bytes()
    # The last has a header with more numbers than a disk could hold.
    for content in (
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        whole.replace(b"(2,", b"(9" + b"9" * 9),
    ):
        path.write_bytes(content)
        assert error_line(path).startswith("is not a readable .npy array (")
    with path.open("wb") as file:
        np.savez(file, x=np.ones(3))
    assert error_line(path).startswith(
        "is not a readable .npy array (the magic string is not correct;"
    )


# npz


def arrays(scenes=2, frames=5, balls=3) -> dict[str, np.ndarray]:
    x, v = straight(scenes, frames, balls)
    shape = scenes, balls
    return {
        "positions": x / 800,
        "velocities": v / 800,
        "radii": np.full(shape, 0.05),
        "masses": np.full(shape, 2.0),
        "box": np.array([1, 0.9]),
    }


def test_npz_round_trip_and_missing_velocities(tmp_path):
    content = arrays()
    np.savez(tmp_path / "x.npz", **content, other=np.arange(3))
    assert_states(read_balls(tmp_path / "x.npz"), *content.values())
    velocities = content.pop("velocities")
    np.savez_compressed(tmp_path / "x.npz", **content)
    np.testing.assert_allclose(read_balls(tmp_path / "x.npz").velocities, velocities, atol=1e-12)


def test_write_is_float32_and_atomic(tmp_path):
    balls = Balls(**arrays())
    path = tmp_path / "new" / "x.npz"
    write_balls(path, balls)
    with np.load(path, allow_pickle=False) as file:
        assert {key: str(file[key].dtype) for key in file} == dict.fromkeys(
            balls._fields, "float32"
        )
    assert_states(read_balls(path), *balls, rtol=1e-6)
    with pytest.raises(
        DataError, match="scene 0, ball 0: radii must be positive and fit into the box, got -1"
    ):
        write_balls(path, balls._replace(radii=np.full((2, 3), -1.0)))
    assert_states(read_balls(path), *balls, rtol=1e-6)
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
            f"box: must be positive and its longer side 1, got 800 x 600; {LONGER}",
        ),
        (
            lambda content: content.update(box=np.array([1.0, 0.0])),
            f"box: must be positive and its longer side 1, got 1 x 0; {LONGER}",
        ),
        (
            lambda content: content.update(box=np.array([1, 1])),
            f"box: must be float32 or float64 (2,), got int64 (2,); {FORMATS}",
        ),
        (
            lambda content: content.update(radii=np.ones(3)),
            f"radii: must be float32 or float64 (2, 3), got float64 (3,); {FORMATS}",
        ),
        (
            lambda content: content.update(velocities=content["velocities"][:, 1:]),
            "velocities: must be float32 or float64 (2, 5, 3, 2), got float64 (2, 4, 3, 2); "
            + FORMATS,
        ),
        (
            lambda content: content.update(positions=content["positions"].astype("U9")),
            f"positions: must be float32 or float64 (2, 5, 3, 2), got <U9 (2, 5, 3, 2); {FORMATS}",
        ),
        (
            lambda content: content.update(positions=content["positions"] * 800),
            None,  # in px
        ),
        (
            put("positions", (1, 4, 2, 1), 0.91),
            "scene 1, ball 2, frame 4: positions 0.91 outside the 1 x 0.9 box; "
            "divide lengths by the box width",
        ),
        (
            put("positions", (1, 4, 2, 0), -0.01),
            "scene 1, ball 2, frame 4: positions -0.01 outside the 1 x 0.9 box; "
            "divide lengths by the box width",
        ),
        (
            put("velocities", (0, 0, 1, 0), -20),
            "scene 0, ball 1, frame 0: velocities -20 above 1 box width per frame; "
            "use box widths per frame",
        ),
        (
            put("positions", (0, 2, 1, 0), np.nan),
            "scene 0, ball 1, frame 2: positions nan where the radius is 0.05; " + ABSENT,
        ),
        (
            put("velocities", (0, 2, 1, 1), np.inf),
            "scene 0, ball 1, frame 2: velocities inf where the radius is 0.05; " + ABSENT,
        ),
        (
            put("radii", (1, 1), np.nan),
            "scene 1, ball 1: masses 2 where the radius is nan; " + ABSENT,
        ),
        (
            put("radii", (1, 1), np.inf),
            f"{RADII}, got inf; {FORMATS}",
        ),
        (
            put("radii", (1, 1), 0.46),
            f"{RADII}, got 0.46; {FORMATS}",
        ),
        (
            put("masses", (1, 1), -1),
            "scene 1, ball 1: masses must be above 0, got -1; correct the masses",
        ),
        (
            lambda content: content.update(masses=np.array([{}], object)),
            "is not a readable .npz archive (Object arrays cannot be loaded when "
            f"allow_pickle=False); {AGAIN}",
        ),
    ],
)
def test_invalid_npz_is_rejected_with_one_line(tmp_path, damage, expected):
    content = arrays()
    damage(content)
    np.savez(tmp_path / "x.npz", **content)
    if expected is None:
        x = content["positions"][0, 0, 0, 0]
        expected = (
            f"scene 0, ball 0, frame 0: positions {x:g} outside the 1 x 0.9 box; "
            "divide lengths by the box width"
        )
    assert error_line(tmp_path / "x.npz") == expected


def test_damaged_archives_are_rejected(tmp_path):
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
        assert error_line(path).startswith("is not a readable .npz archive (")
    path.write_text("hello")
    assert "pickle" not in error_line(path)  # never advise to open it as a pickle
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert error_line(path) == "is an array, not an archive; rename it to .npy"
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(name, b"")  # without .npy
    assert error_line(path).startswith("is not a readable .npz archive (")
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(f"{name}.npy", b"none")
    assert error_line(path) == f"positions is not an array; {AGAIN}"


def test_archive_that_unpacks_to_too_much_is_rejected(tmp_path):
    path, header = tmp_path / "x.npz", io.BytesIO()
    shape = (10**9, 10**6, 10**6, 2)
    description = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(path, "w") as archive:
        for name in Balls._fields:
            archive.writestr(f"{name}.npy", header.getvalue())
    assert error_line(path).startswith("is not a readable .npz archive (")  # has no data

    # A directory that claims 2 GB for a small entry.
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    assert error_line(path) == TOO_MANY
