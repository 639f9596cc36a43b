import numpy as np
import pytest
from make import tiny
from PIL import Image

from vidreason.core.colours import COLOURS
from vidreason.intent.windows import make_windows
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video
from vidreason.results.drawings import draw_instances, draw_windows
from vidreason.scenes.jaad import read_video


def share(picture, colour):
    """Returns the share of the pixels that have a colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(picture.astype(int) - wanted).max(-1) < 8).mean()


@pytest.mark.parametrize(("crosses", "colour", "other"), [(True, 1, 0), (False, 0, 1)])
def test_a_window_has_the_colour_of_its_label(tiny_root, tmp_path, crosses, colour, other):
    scenes = [read_video(tiny_root, video) for video in tiny.VIDEOS]
    windows = make_windows(scenes, "benchmark")
    rows = np.flatnonzero(windows.label[:, -1] == crosses)[:1]
    draw_windows(tmp_path / "one.png", scenes, windows, rows.tolist(), [0.7])
    picture = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
    assert share(picture, COLOURS[colour]) > 0.001 > share(picture, COLOURS[other])


def test_masks_are_tinted_and_the_rest_is_the_video(film, tmp_path):
    video, prepared = Video(film / "street.mp4"), Prepared(film / "store" / "street.arrow")
    draw_instances(tmp_path / "two.png", video, prepared, [10, 20])
    drawn = np.asarray(Image.open(tmp_path / "two.png"))
    frames = dict(video.frames())
    part = slice(video.height // 4, video.height * 7 // 8)
    shown = np.concatenate([frames[number][part] for number in (10, 20)])
    assert drawn.shape == shown.shape
    changed = (drawn != shown).any(-1).mean()
    assert 0 < changed < 0.5
