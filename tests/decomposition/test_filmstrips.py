"""Sizes, positions and colours in filmstrips, animations, trajectories and curves."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vidreason.core.errors import DataError
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.filmstrips import (
    draw_animation,
    draw_curves,
    draw_filmstrip,
    draw_trajectories,
)


def moving_square(size=32, length=6, channels=1, components=2):
    """Returns truth (2, L, C, S, S) and its correct decomposition.

    The first clip is black. The second is a square that moves right, drawn by the first component.
    """
    truth = torch.zeros(2, length, channels, size, size)
    positions = torch.full((2, length, components, 2), size / 2)
    for t in range(length):
        truth[1, t, :, 8:16, 4 + 2 * t : 12 + 2 * t] = 1
        positions[1, t, 0] = torch.tensor([8.0 + 2 * t, 12.0])
    parts = torch.zeros(2, length, components, channels, size, size)
    parts[:, :, 0] = truth
    sides = torch.full((2, length, components), 12.0)
    return truth, Decomposition(truth.clone(), parts, positions, sides)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def coloured(picture):
    """Returns a mask of the components' colours, without grey and nearly grey pixels."""
    return np.ptp(picture, axis=-1) > 60


@pytest.mark.parametrize(
    ("channels", "components", "t_in", "size"), [(1, 2, 4, 32), (3, 5, 6, 64), (1, 1, 0, 100)]
)
def test_filmstrip_has_a_row_per_component_and_a_column_per_frame(
    tmp_path, channels, components, t_in, size
):
    truth, decomposition = moving_square(size, 6, channels, components)
    draw_filmstrip(tmp_path / "strip.png", truth, decomposition, t_in, 1)
    height, width, _ = pixels(tmp_path / "strip.png").shape
    tile = round(120 / size) * size
    assert height // tile == 3 + components
    assert width // tile >= 6
    assert [path.name for path in tmp_path.iterdir()] == ["strip.png"]


def test_correct_trajectories_cover_the_true_ones(tmp_path):
    truth, decomposition = moving_square(components=1)
    frames = (255 * truth).byte()
    # An offset of the object in its window must not be visible.
    shifted = decomposition._replace(positions=decomposition.positions + 3)
    none = torch.zeros(2, 1, dtype=torch.int64)
    clip = Clip(frames, decomposition.positions, none, torch.arange(2))
    seen = {}
    for name, found in (("right", decomposition), ("shifted", shifted)):
        draw_trajectories(tmp_path / f"{name}.png", clip, found, 4, 1)
        seen[name] = pixels(tmp_path / f"{name}.png")
    assert (seen["right"] == seen["shifted"]).all()
    # From the last input frame to the last predicted one, at 20 times the size.
    y, x = np.nonzero(coloured(seen["right"]))
    assert abs(y - 12 * 20).max() <= 5
    assert 14 * 20 - 5 <= x.min() <= 14 * 20 + 5
    assert 18 * 20 - 5 <= x.max() <= 18 * 20 + 5


def test_wrong_trajectories_are_drawn_beside_the_true_ones(tmp_path):
    truth, decomposition = moving_square(components=1)
    none = torch.zeros(2, 1, dtype=torch.int64)
    clip = Clip((255 * truth).byte(), decomposition.positions, none, torch.arange(2))
    away = decomposition.positions.clone()
    away[:, 4:, :, 1] += 6
    draw_trajectories(tmp_path / "a.png", clip, decomposition._replace(positions=away), 4, 1)
    y, _ = np.nonzero(coloured(pixels(tmp_path / "a.png")))
    assert y.max() >= 18 * 20


def test_filmstrip_shows_the_chosen_clip(tmp_path):
    truth, decomposition = moving_square(components=1)
    draw_filmstrip(tmp_path / "0.png", truth, decomposition, 4)
    draw_filmstrip(tmp_path / "1.png", truth, decomposition, 4, 1)
    # 8 x 8 pixels at four times the size, in six frames of truth, model and windows.
    white = [(pixels(tmp_path / f"{k}.png") == 255).all(-1).sum() for k in (0, 1)]
    assert white == [0, 3 * 6 * (8 * 4) ** 2]


def test_windows_are_drawn_at_their_positions(tmp_path):
    truth, decomposition = moving_square(components=1)
    draw_filmstrip(tmp_path / "strip.png", truth, decomposition, 6, 1)
    picture = pixels(tmp_path / "strip.png")
    rows = picture[-128 - 8 : -8]  # the last row, without its gap and the margin
    box = np.argwhere(coloured(rows))
    # In the first frame the centre is (8, 12); the window is 12 wide, and each pixel 4.
    assert box[:, 0].min() == 4 * 6 and box[:, 0].max() == 4 * 18 - 1
    columns = np.unique(box[:, 1])
    assert columns[0] + 4 * 12 - 1 in columns


def test_truth_may_be_shorter_than_the_prediction(tmp_path):
    truth, decomposition = moving_square(components=1)
    draw_filmstrip(tmp_path / "strip.png", truth[:, :4], decomposition, 4, 1)
    white = (pixels(tmp_path / "strip.png") == 255).all(-1).sum()
    assert white == (4 + 2 * 6) * (8 * 4) ** 2
    draw_animation(tmp_path / "clip.gif", truth[:, :4], decomposition, 4, 1)


def test_nan_and_out_of_range_values_are_drawn(tmp_path):
    truth, decomposition = moving_square()
    for part in decomposition:
        part[1, 0] = torch.nan
    decomposition.frames[1, 1], decomposition.positions[1, 1] = 7, 1e4
    draw_filmstrip(tmp_path / "strip.png", truth, decomposition, 4, 1)


@pytest.mark.parametrize("size", [32, 65])
def test_animations_have_all_frames(tmp_path, size):
    truth, decomposition = moving_square(size)
    draw_animation(tmp_path / "clip.gif", truth, decomposition, 4, 1)
    draw_animation(tmp_path / "clip.mp4", truth, decomposition, 4, 1)
    with Image.open(tmp_path / "clip.gif") as image:
        assert image.n_frames == 6
        width, height = image.size
    video = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    shown = []
    while (frame := video.read())[0]:
        shown.append(frame[1])
    assert len(shown) == 6
    assert shown[0].shape == (height, width, 3)
    # In the left third, which shows the truth, the square moves to the right.
    bright = [np.argwhere(f[40:, : width // 3].min(-1) > 200)[:, 1].mean() for f in shown]
    assert (np.diff(bright) > 0).all()


def test_other_suffixes_are_rejected(tmp_path):
    truth, decomposition = moving_square()
    with pytest.raises(DataError, match=r"clip.txt: suffix must be one of .gif, .mp4; rename"):
        draw_animation(tmp_path / "clip.txt", truth, decomposition, 4)
    assert not list(tmp_path.iterdir())


def test_curves_omit_missing_columns(tmp_path):
    table = tmp_path / "metrics.csv"
    widths = []
    for text in (
        "epoch,train/loss\n0,1.0\n",
        "clips,train/loss,val/mse\n100,3.0,\n200,2.0,50\n",
        "clips,train/loss,val/mse,val/position_error,val/separated\n100,3.0,60,nan,0.5\n",
    ):
        table.write_text(text)
        draw_curves(tmp_path / "curves.png", table)
        widths.append(pixels(tmp_path / "curves.png").shape[1])
    assert widths[0] < widths[1] < widths[2]
