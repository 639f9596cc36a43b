"""HDF5 files of G-SWM and R-NEM."""

import sys
from pathlib import Path

import numpy as np
import pytest
from make.balls import AGAIN, FORMATS, TOO_MANY, assert_states, error_line, straight

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls


def hdf5(path: Path, content: dict) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


def gswm(scenes=2, frames=5, balls=3, **others) -> dict[str, np.ndarray]:
    x, _ = straight(scenes, frames, balls, 60, 60)
    images = np.zeros((scenes, frames, 64, 64, 3), np.uint8)
    sizes = np.full((scenes, balls), 8.0)
    return {"imgs": images, "positions": np.clip(x, 0, 64), "sizes": sizes} | others


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_gswm_is_converted_to_frame_widths(tmp_path, suffix):
    content = gswm(ids=np.zeros((2, 3)))
    balls = read_balls(hdf5(tmp_path / f"x{suffix}", content))
    steps = np.diff(content["positions"], axis=1) / 64
    velocities = np.concatenate([steps[:, :1], steps], 1)
    assert_states(balls, content["positions"] / 64, velocities, 8 / 64, 1, (1, 1))
    content["sizes"] = np.full((2, 5, 3), 8, np.uint8)  # one per frame
    assert_states(read_balls(hdf5(tmp_path / f"y{suffix}", content)), *balls)


def painted(frames=4, scenes=17, side=48, seed=0):
    """Returns discs as groups (T, M, S, S, 1) of R-NEM, with centres and radii in px."""
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
                row, column = np.indices((side, side)) + 0.5
                groups[frame, scene, (column - x) ** 2 + (row - y) ** 2 < radius**2, 0] = ball + 1
    return groups, centres, radii


def test_rnem_centres_and_radii_come_from_its_groups(tmp_path):
    groups, centres, radii = painted()
    path = hdf5(tmp_path / "x.h5", {"training/groups": groups, "test/groups": groups[:, :3]})
    assert error_line(path) == "has several splits, test, training; choose one, as in x.h5/test"
    with pytest.raises(DataError) as error:
        read_balls(path / "validation")
    assert str(error.value) == f"{path}: has no group 'validation'; use one of ['test', 'training']"
    assert read_balls(path / "test").positions.shape == (3, 4, 2, 2)
    balls = read_balls(path / "training")
    # One row of pixels more or less of a disc of some 50 moves the centre by a third of a pixel.
    np.testing.assert_allclose(balls.positions * 48, centres, atol=0.4)
    np.testing.assert_allclose(balls.radii * 48, radii, atol=0.2)
    np.testing.assert_allclose(np.nanmean(balls.positions * 48 - centres, (0, 1, 2)), 0, atol=0.03)
    np.testing.assert_array_equal(balls.masses, np.where(np.isnan(radii), np.nan, 1))
    np.testing.assert_array_equal(balls.velocities[:, 0], balls.velocities[:, 1])
    y, x = np.mean(np.argwhere(groups[2, 16, ..., 0] == 3) + 0.5, 0)  # computed directly
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
            "scene 1, ball 1, frame 2: ball is not visible, so its state is unknown; "
            "use another data set",
        ),
        (
            {"groups": PAINTED * 0.5},
            f"scenes from 0: groups must be integers between 0 and 16; {FORMATS}",
        ),
        (
            {"groups": PAINTED * 17},
            f"scenes from 0: groups must be integers between 0 and 16; {FORMATS}",
        ),
        (
            {"groups": np.where(PAINTED, np.inf, np.nan)},
            f"scenes from 0: groups must be integers between 0 and 16; {FORMATS}",
        ),
        (
            {"groups": PAINTED * 0},
            "positions: must be (scenes, at least 2 frames, balls, 2), got (2, 4, 0, 2); "
            + FORMATS,
        ),
        (
            {"groups": PAINTED[..., 0]},
            f"groups must be (frames, scenes, S, S, 1), got (4, 2, 48, 48); {FORMATS}",
        ),
        ({"features": PAINTED}, f"has neither positions, sizes and imgs nor groups; {FORMATS}"),
        ({"groups": np.array([b"x"])}, "groups are |S1; use numbers"),
        (
            gswm(sizes=np.ones(3)),
            "shapes disagree: positions (2, 5, 3, 2), sizes (3,), imgs (2, 5, 64, 64, 3); "
            + FORMATS,
        ),
        (
            gswm(sizes=np.arange(1, 31).reshape(2, 5, 3)),
            "sizes change over time; use balls of constant size",
        ),
        (
            gswm(positions=np.full((2, 5, 3, 2), 65)),
            "scene 0, ball 0, frame 0: positions 1.01562 outside the 1 x 1 box; "
            "divide lengths by the box width",
        ),
        (
            gswm(positions=np.full((2, 5, 3, 2), np.nan)),
            "scene 0, ball 0, frame 0: positions nan where the radius is 0.125; "
            "use numbers, or NaN throughout where there is no ball",
        ),
    ],
)
def test_invalid_hdf5_is_rejected_with_one_line(tmp_path, content, expected):
    assert error_line(hdf5(tmp_path / "x.h5", content)) == expected


def test_damaged_hdf5_is_rejected(tmp_path):
    path = hdf5(tmp_path / "x.h5", gswm())
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert error_line(path).startswith("is not a readable HDF5 file (")


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual"])
@pytest.mark.parametrize("split", ["", "training"])
def test_hdf5_links_to_other_files_are_not_followed(tmp_path, kind, split):
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
    assert error_line(path / split) == (
        "positions: is a link, or its data is outside the file; copy the data into the file"
    )


def test_oversized_hdf5_is_rejected_before_reading(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    for name, shape, expected in (
        ("positions", (10**9, 10**3, 3, 2), TOO_MANY),
        ("groups", (10**9, 2, 64, 64, 1), f"has more than 268,435,456 pixels in a scene; {AGAIN}"),
        ("groups", (2, 10**9, 4, 4, 1), TOO_MANY),
    ):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape))  # not allocated
            if name == "positions":
                file["sizes"], file["imgs"] = np.ones((2, 3)), np.ones((2, 5, 4, 4, 3))
        assert error_line(tmp_path / "x.h5") == expected


def test_missing_h5py_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").touch()
    assert error_line(tmp_path / "x.h5") == (
        "h5py is required to read it; install it with `pip install 'vidreason[hdf5]'`"
    )
