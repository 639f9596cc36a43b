"""Drawn balls against OpenCV and closed forms; clips as functions of seed and number."""

import cv2
import numpy as np
import pytest
import torch

from vidreason.core.errors import DataError
from vidreason.decomposition.ball_data import BallsData, Drawing
from vidreason.decomposition.ball_files import write_balls
from vidreason.decomposition.clip import Balls
from vidreason.decomposition.discs import Discs

SMALL = {"size": 32, "length": 6, "frames": 12, "batch_size": 4, "epoch_clips": 10}
SMALL |= {"val_clips": 6, "test_clips": 7, "trajectories": 30}


def scene(*places, radius=0.1):
    """Returns one frame of balls at the given positions in box widths; None is no ball."""
    there = np.array([p is not None for p in places])
    position = np.array([p or (np.nan, np.nan) for p in places])[None, None]
    radii = np.where(there, radius, np.nan)[None]
    return Balls(position, 0 * position, radii, np.where(there, 1.0, np.nan)[None], np.ones(2))


def test_discs_equal_opencv_circles_at_rounded_positions():
    states = Discs(length=5).states(np.arange(20))
    found = Drawing(states.radii, 128).frames(states)
    for clip in range(20):
        for time in range(5):
            frame = np.zeros((128, 128), np.uint8)
            for x, y in states.positions[clip, time]:
                cv2.circle(frame, (round(x * 128), round(y * 128)), 9, 255, cv2.FILLED)
            np.testing.assert_array_equal(found[clip, time], frame)


@pytest.mark.parametrize("look", ["disc", "smooth", "soft"])
def test_balls_are_clipped_at_the_edge_and_absent_ones_not_drawn(look):
    balls = scene((0.5, 0.5), None)
    drawing = Drawing(np.array([0.1]), 64, look)
    whole = drawing.frames(balls)[0, 0]
    assert whole.max() == 255 and whole[:20].max() == 0
    for x, y in ((0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)):
        shift = round((y - 0.5) * 64), round((x - 0.5) * 64)
        moved = np.zeros_like(whole)
        rows = slice(max(0, shift[0]), min(64, 64 + shift[0]))
        columns = slice(max(0, shift[1]), min(64, 64 + shift[1]))
        back = slice(rows.start - shift[0], rows.stop - shift[0])
        moved[rows, columns] = whole[back, columns.start - shift[1] : columns.stop - shift[1]]
        np.testing.assert_array_equal(drawing.frames(scene((x, y)))[0, 0], moved)
    assert not drawing.frames(scene(None)).any()


def test_smooth_balls_have_the_right_area_and_centre():
    rng = np.random.default_rng(0)
    axis = np.arange(64) + 0.5
    for look, area in (("smooth", np.pi * 6.4**2), ("soft", None)):
        drawing = Drawing(np.array([0.1]), 64, look)
        for place in rng.uniform(0.2, 0.8, (20, 2)):
            balls = scene(tuple(place))
            frame = drawing.frames(balls)[0, 0] / 255.0
            centre = np.array([frame.sum(0) @ axis, frame.sum(1) @ axis]) / frame.sum()
            # Positions are truncated to an eighth of a pixel.
            np.testing.assert_allclose(centre, drawing.positions(balls)[0, 0, 0], atol=0.08)
            assert area is None or frame.sum() == pytest.approx(area, rel=0.01)


def test_balls_of_different_radii():
    balls = scene((0.3, 0.3), (0.7, 0.7))
    balls = balls._replace(radii=np.array([[0.05, 0.2]]))
    frame = Drawing(balls.radii, 64).frames(balls)[0, 0] > 0
    small, large = np.zeros((2, 64, 64), np.uint8)
    cv2.circle(small, (19, 19), 3, 1, cv2.FILLED)
    cv2.circle(large, (45, 45), 12, 1, cv2.FILLED)
    np.testing.assert_array_equal(frame, small + large > 0)


def batches(data, split="train", epoch=0):
    data.setup({"train": "fit", "val": "fit", "test": "test"}[split])
    found = getattr(data, f"{split}_dataloader")()
    if split == "train":
        found.sampler.set_epoch(epoch)
    return list(found)


def together(clips):
    return [torch.cat(part) for part in zip(*clips, strict=True)]


def test_clips_do_not_depend_on_batches_and_workers():
    first = together(batches(BallsData(**SMALL), epoch=3))
    assert first[0].shape == (10, 6, 1, 32, 32) and first[0].dtype == torch.uint8
    assert first[1].shape == (10, 6, 4, 2) and first[2].tolist() == [[0] * 4] * 10
    for options in ({"batch_size": 3}, {"workers": 2}):
        for one, other in zip(
            first, together(batches(BallsData(**SMALL | options), epoch=3)), strict=True
        ):
            assert torch.equal(one, other)
    for options, epoch in (({}, 4), ({"seed": 1}, 3)):
        other = together(batches(BallsData(**SMALL | options), epoch=epoch))
        assert not torch.equal(first[0], other[0])


def test_training_clips_are_random_windows_of_scenes():
    options = SMALL | {"epoch_clips": 500, "trajectories": 3}
    clips = together(batches(BallsData(**options)))
    states = Discs(length=12).states(np.arange(3))
    windows = {
        states.positions[s, t : t + 6].astype(np.float32).tobytes(): (s, t)
        for s in range(3)
        for t in range(7)
    }
    places = ((clips[1].double() - 0.5) / 32).numpy()
    known = np.array(list(windows.values()))
    truth = np.stack([states.positions[s, t : t + 6] for s, t in known])
    seen = set()
    for place in places:
        error = np.abs(truth - place).max((1, 2, 3))
        assert error.min() < 1e-5
        seen.add(tuple(known[error.argmin()].tolist()))
    assert len(seen) == 21


def test_files_replace_simulation(tmp_path):
    states = Discs(balls=3, length=9, seed=5).states(np.arange(4))
    write_balls(tmp_path / "mine.npz", states)
    data = BallsData(**SMALL, test_file=str(tmp_path / "mine.npz"))
    clips = together(batches(data, "test"))
    assert len(clips[0]) == 4 == data.clips["test"]
    expected = states.positions[:, :6] * 32 + 0.5
    np.testing.assert_allclose(clips[1].numpy(), expected, atol=1e-4)
    with pytest.raises(DataError, match="mine.npz: scenes have 9 frames, data.length is 10"):
        BallsData(**SMALL | {"length": 10}, test_file=str(tmp_path / "mine.npz")).setup("test")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"balls": 0}, "data.balls: must be between 1 and 64, got 0"),
        ({"frames": 5}, "data.frames: must be between 6 and 1000000, got 5"),
        ({"look": "flat"}, "data.look: must be one of disc, smooth, soft, got 'flat'"),
        ({"train_file": "/no/file.npz"}, "data.train_file: /no/file.npz does not exist"),
        ({"size": 8}, "data.size: must be between 16 and 1024, got 8"),
    ],
)
def test_invalid_options_are_rejected(options, line):
    with pytest.raises(DataError, match=line):
        BallsData(**SMALL | options)
