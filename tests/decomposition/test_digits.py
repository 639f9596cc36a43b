"""Moving digits against a plain implementation, one number and one pixel at a time."""

import hashlib
import math

import numpy as np
import pytest
import torch

from vidreason.core.errors import DataError
from vidreason.core.loading import GOLDEN, splitmix64
from vidreason.decomposition import digits as moving
from vidreason.decomposition.digits import (
    MovingDigits,
    read_official,
    render,
    trajectories,
    uniforms,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
NAMES = np.arange(40, dtype=np.uint8)  # a different label for each image


def made(**options):
    return MovingDigits(IMAGES, NAMES, **options)


# A plain implementation


def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def plain_uniforms(seed, index, count):
    """Returns outputs from index * count + 1 on of SplitMix64, seeded with the first of `seed`."""
    gamma = 0x9E3779B97F4A7C15
    key = mix((seed + gamma) % 2**64)
    places = range(index * count + 1, (index + 1) * count + 1)
    return [(mix((key + place * gamma) % 2**64) >> 11) / 2**53 for place in places]


def plain_path(x, y, angle, length, free):
    """Returns the top left pixels (x, y) of each frame."""
    dx, dy = 0.1 * math.cos(angle), 0.1 * math.sin(angle)
    path = []
    for _ in range(length):
        x += dx
        y += dy
        if x <= 0:
            x, dx = 0.0, -dx
        if x >= 1:
            x, dx = 1.0, -dx
        if y <= 0:
            y, dy = 0.0, -dy
        if y >= 1:
            y, dy = 1.0, -dy
        path.append((int(free * x), int(free * y)))
    return path


def plain_frame(digits, corners, size):
    frame = np.zeros((size, size), np.uint8)
    for digit, (left, top) in zip(digits, corners, strict=True):
        for row in range(len(digit)):
            for column in range(len(digit)):
                pixel = frame[top + row, left + column]
                frame[top + row, left + column] = max(pixel, digit[row, column])
    return frame


def plain_clip(seed, index, counts, size, length):
    """Returns the digits of a clip and their top left pixels."""
    most = max(counts)
    draws = plain_uniforms(seed, index, 1 + 4 * most)
    count = counts[int(draws[0] * len(counts))]
    which, paths = [], []
    for digit in range(count):
        pick, x, y, turn = draws[1 + 4 * digit : 5 + 4 * digit]
        which.append(int(pick * len(IMAGES)))
        paths.append(plain_path(x, y, 2 * math.pi * turn, length, size - 28))
    return which, paths


def test_clips_equal_the_plain_implementation():
    for seed in range(150):
        clip = made(seed=seed, counts=(1, 3, 2)).clips(np.array([seed * 7]))
        which, paths = plain_clip(seed, seed * 7, (1, 3, 2), 64, 20)
        none = [-1] * (3 - len(which))
        assert clip.labels[0].tolist() == which + none
        corner = clip.positions[0, :, : len(which)] - 14
        assert corner.tolist() == np.array(paths).transpose(1, 0, 2).tolist()
        assert clip.positions[0, :, len(which) :].isnan().all()
        t = seed % 20
        frame = plain_frame(IMAGES[which], [path[t] for path in paths], 64)
        np.testing.assert_array_equal(clip.frames[0, t, 0], frame)


@pytest.mark.parametrize(
    ("counts", "size", "length"),
    [((2,), 64, 20), ((1,), 28, 3), ((1, 2, 3), 41, 4), ((5,), 64, 1), ((2,), 150, 40)],
)
def test_pixels_equal_the_plain_implementation(counts, size, length):
    index = np.arange(10)
    clips = made(counts=counts, size=size, length=length, seed=9).clips(index)
    assert clips.frames.shape == (10, length, 1, size, size)
    for number in index:
        which, paths = plain_clip(9, int(number), counts, size, length)
        for t in {0, length // 3, length - 1}:
            frame = plain_frame(IMAGES[which], [path[t] for path in paths], size)
            np.testing.assert_array_equal(clips.frames[number, t, 0], frame)


def test_render_equals_paste():
    for counts, size in (((2,), 64), ((1, 3), 37), ((2,), 28)):
        clips = made(counts=counts, size=size, seed=3).clips(np.arange(20))
        digits = torch.from_numpy(IMAGES)[clips.labels] * (clips.labels >= 0)[..., None, None]
        corner = (clips.positions - 14).nan_to_num(0).long()
        assert torch.equal(render(digits, corner, size), clips.frames[:, :, 0])
        assert torch.equal(
            render(digits / 255, corner.int(), size), clips.frames[:, :, 0].float() / 255
        )


# Motion


def test_motion_between_walls_is_straight_at_constant_speed():
    rng = np.random.default_rng(1)
    path = trajectories(rng.random((2, 400)), rng.random(400) * 2 * np.pi, 60)
    assert path.shape == (60, 2, 400) and path.min() >= 0 and path.max() <= 1
    step = np.diff(path, axis=0) * 36
    inside = ((path[1:] > 0) & (path[1:] < 1)).all(1)  # the step was not cut
    assert 0.4 < inside.mean() < 0.95
    np.testing.assert_allclose(np.hypot(step[:, 0], step[:, 1])[inside], 3.6)
    # At a wall, only the velocity along that axis changes its sign.
    speed = np.abs(step).max(0)
    at_wall = (path == 0) | (path == 1)
    for low, wall in ((True, 0), (False, 1)):
        after = step[1:][(path[1:-1] == wall)]
        assert (after > 0).all() if low else (after < 0).all()
    free = ~at_wall[1:] & ~at_wall[:-1]
    np.testing.assert_allclose(np.abs(step)[free], np.broadcast_to(speed, step.shape)[free])


def test_step_across_a_wall_ends_at_the_wall():
    path = trajectories(np.array([0.95, 0.5]), np.array(0.0), 4)
    np.testing.assert_allclose(path[:, 0], [1, 0.9, 0.8, 0.7])
    assert (path[:, 1] == 0.5).all()


def test_step_that_ends_at_a_wall_turns_there():
    path = trajectories(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, np.pi]), 3)
    assert path[0, 0].tolist() == [1, 0]
    np.testing.assert_allclose(path[1:, 0], [[0.9, 0.1], [0.8, 0.2]])


def test_first_frame_is_one_step_after_the_start():
    start, angle = np.array([0.5, 0.5]), np.array(np.pi / 6)
    np.testing.assert_allclose(
        trajectories(start, angle, 1)[0], 0.5 + 0.1 * np.array([0.75**0.5, 0.5])
    )


def test_pixel_positions_are_within_a_pixel_of_the_motion():
    clips = made(seed=2).clips(np.arange(300))
    corner = clips.positions - 14
    assert corner.min() >= 0 and corner.max() <= 36
    touched = ((corner <= 1) | (corner >= 35)).any(-1).cumsum(1) > 0
    moved = (corner[:, 10] - corner[:, 0]).norm(dim=-1)[~touched[:, 10]]
    assert len(moved) == 0 or (moved - 36).abs().max() < 2**0.5
    moved = (corner[:, 4] - corner[:, 0]).norm(dim=-1)[~touched[:, 4]]
    assert len(moved) > 50 and (moved - 4 * 3.6).abs().max() < 2**0.5
    assert abs(moved.mean() - 4 * 3.6) < 0.1


# Random numbers


def test_random_numbers_are_splitmix64():
    state = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * GOLDEN
    assert splitmix64(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    for seed, index, count in ((0, 0, 4), (2**64 - 1, 12345, 7), (5, 2**40, 9)):
        found = uniforms(seed, np.array([index]), count)
        assert found.tolist() == [plain_uniforms(seed, index, count)]


def test_random_numbers_are_uniform_and_uncorrelated():
    numbers = uniforms(7, np.arange(20_000), 5)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert len(np.unique(numbers)) == numbers.size
    counts = np.histogram(numbers, 50, (0, 1))[0]
    assert ((counts - 2_000) ** 2 / 2_000).sum() < 85  # chi-squared of 49: p = 0.001
    assert abs(np.corrcoef(numbers.T) - np.eye(5)).max() < 0.03
    other = uniforms(8, np.arange(20_000), 5)
    assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.015


def test_clips_do_not_depend_on_the_batch():
    source = made(counts=(1, 2), seed=4)
    whole = source.clips(np.arange(50))
    order = np.random.default_rng(0).permutation(50)
    parts = [source.clips(part) for part in np.split(order, [1, 4, 30])]
    for name in ("frames", "positions", "labels", "index"):
        column = getattr(whole, name)
        shuffled = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(shuffled, column[order], equal_nan=True, rtol=0, atol=0)
    far = made(counts=(1, 2), seed=5).clips(np.arange(50))
    assert not (far.frames == whole.frames).flatten(1).all(1).any()
    assert len({frames.tobytes() for frames in whole.frames.numpy()}) == 50
    assert source.clips(np.array([10**12])).index.tolist() == [10**12]


def test_counts_digits_and_starts_are_uniform():
    source = made(counts=(1, 2, 4), length=1, seed=6)
    which, corner = source.scripts(np.arange(6_000))
    counts = (which >= 0).sum(1)
    found, times = np.unique(counts, return_counts=True)
    assert found.tolist() == [1, 2, 4] and abs(times - 2_000).max() < 150
    assert (np.sort(which >= 0)[:, ::-1] == (which >= 0)).all()  # present digits come first
    picked = np.bincount(which[which >= 0], minlength=40)
    assert abs(picked - picked.mean()).max() < 5 * picked.mean() ** 0.5
    assert abs(corner[which[:, None] >= 0].mean(0) - 17.5).max() < 0.5
    assert abs(np.corrcoef(which[counts == 4].T)[0, 1]) < 0.08


def test_channels_are_identical_and_dtypes_documented():
    source = made(channels=3, seed=1)
    clips = source.clips(np.arange(3))
    assert clips.frames.shape == (3, 20, 3, 64, 64)
    assert torch.equal(
        clips.frames, made(seed=1).clips(np.arange(3)).frames.expand(3, 20, 3, 64, 64)
    )
    assert clips.velocities is None
    types = [column.dtype for column in clips[:4]]
    assert types == [torch.uint8, torch.float32, torch.int64, torch.int64]


def test_smaller_digits():
    clips = MovingDigits(IMAGES[:, 8:20, 8:20], NAMES, size=30, seed=1).clips(np.arange(20))
    corner = clips.positions - 6
    assert corner.min() >= 0 and corner.max() <= 18 and (corner == corner.floor()).all()


# The benchmark's own clips


@pytest.fixture
def official(monkeypatch, tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (20, 6, 64, 64), np.uint8)
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, clips)
    checksum = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(moving, "OFFICIAL", (clips.shape, checksum))
    return path, clips


def test_benchmark_file_is_memory_mapped(official):
    path, clips = official
    found = read_official(path)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, clips)


def header(text):
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


UNREADABLE = "is not a readable .npy array"
SHAPE = "'fortran_order': False, 'shape': (20, 6, 64, 64), }"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path, clips: np.save(path, clips.swapaxes(0, 1)), r"holds uint8 \(6, 20, 64, 64\)"),
        (lambda path, clips: np.save(path, clips[:, :5]), r"holds uint8 \(20, 5, 64, 64\)"),
        (lambda path, clips: np.save(path, clips / 255), "holds float64"),
        (lambda path, clips: np.save(path, clips.astype(np.int8)), "holds int8"),
        (lambda path, clips: np.save(path, clips ^ 1), "has MD5 .*, expected"),
        (lambda path, clips: np.save(path, np.asfortranarray(clips)), "has MD5"),
        (
            lambda path, clips: np.save(path, np.array([print]), allow_pickle=True),
            UNREADABLE,
        ),
        (lambda path, clips: np.savez(path.open("wb"), clips), "holds an archive"),
        (lambda path, clips: path.write_bytes(path.read_bytes()[:-1]), UNREADABLE),
        (lambda path, clips: path.write_bytes(b""), UNREADABLE),
        (lambda path, clips: path.write_bytes(b"\x80\4K\1."), UNREADABLE),  # a pickle
        (lambda path, clips: path.write_bytes(header("{'descr': '|u1', (")), UNREADABLE),
        (
            lambda path, clips: path.write_bytes(header("{'descr': '|,', " + SHAPE)),
            UNREADABLE,
        ),
        (
            lambda path, clips: path.write_bytes(
                header("{'descr': '|u1', " + SHAPE.replace("20", "-20"))
            ),
            UNREADABLE,
        ),
        (lambda path, clips: path.unlink(), "no such file"),
        (lambda path, clips: path.unlink() or path.mkdir(), UNREADABLE),
    ],
)
def test_other_files_are_rejected_with_one_line(official, damage, problem):
    path, clips = official
    damage(path, clips)
    with pytest.raises(DataError, match=f"^{path}: {problem}") as error:
        read_official(path)
    assert "\n" not in str(error.value) and "data.test_file" in str(error.value)


def test_shape_is_checked_before_the_digest(official, monkeypatch):
    path, clips = official
    np.save(path, clips.swapaxes(0, 1))
    monkeypatch.setattr(hashlib, "file_digest", None)
    with pytest.raises(DataError, match="with time first"):
        read_official(path)


def test_pinned_file_has_the_size_of_the_benchmark():
    shape, checksum = moving.OFFICIAL
    assert shape == (20, 10_000, 64, 64) and 128 + math.prod(shape) == 819_200_128
    assert len(checksum) == 32
