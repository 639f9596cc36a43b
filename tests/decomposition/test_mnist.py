"""Reading, drawing and downloading digits."""

import gzip
import hashlib
import struct
import tempfile

import cv2
import numpy as np
import pytest
from make.idx import idx, mnist

from vidreason import get as getting
from vidreason.core.errors import DataError
from vidreason.core.files import load_manifest
from vidreason.decomposition.mnist import drawn_digits, read_digits, read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
LABELS = np.array([3, 0, 9], np.uint8)


# Reading


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_are_read_as_written(tmp_path, pack):
    path = tmp_path / ("x" if pack is bytes else "x.gz")
    for items in (IMAGES, LABELS):
        path.write_bytes(pack(idx(items)))
        np.testing.assert_array_equal(read_idx(path, items.shape[1:]), items)


GOOD = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "starts with nothing, expected 00000803"),
        (GOOD[:3], "starts with 000008, expected 00000803"),
        (GOOD[:13], "holds no items"),
        (idx(LABELS), "starts with 00000801, expected 00000803"),
        (b"\0\0\x0d\3" + GOOD[4:], "starts with 00000d03"),  # floats
        (GOOD[:-1], "holds 2,351 bytes, expected 3 x 784"),
        (GOOD + b"\0", "holds 2,353 bytes"),
        (idx(IMAGES[:, :20]), r"images of \[20, 28\], expected \[28, 28\]"),
        (idx(IMAGES[:0]), "holds no items"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 28, 28) + b"0", "expected 4294967295 x 784"),
        (struct.pack(">4I", 0x803, 1, 2**31, 2**31) + b"0", "holds images of"),
        (struct.pack(">4I", 0x803, 0, 28, 28) + b"0", "holds 1 bytes, expected 0 x 784"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_other_files_are_rejected_with_one_line(tmp_path, content, problem, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=problem) as error:
        read_idx(path, (28, 28))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-30],
        lambda data: data[:-2],
        lambda data: b"no gzip",
        lambda data: data[:-8] + bytes(4) + data[-4:],  # checksum
        lambda data: data[:100] + b"\xff" * 20 + data[120:],
    ],
)
def test_damaged_gzip_is_rejected(tmp_path, damage):
    path = tmp_path / "x.gz"
    path.write_bytes(damage(gzip.compress(GOOD)))
    with pytest.raises(DataError, match="x.gz: is damaged"):
        read_idx(path, (28, 28))


def test_decompression_stops_at_the_largest_possible_set(tmp_path):
    path = tmp_path / "x.gz"
    zeros = gzip.compress(bytes(100_000_000), 1)
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 60_000, 28, 28)) + zeros)
    with pytest.raises(DataError, match="holds 47,040,001 bytes"):
        read_idx(path, (28, 28))


# Splits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    return root, mnist(root)


def test_validation_is_the_end_of_the_training_images(root):
    folder, items = root
    for split, name, part in (
        ("train", "train", slice(0, 20)),
        ("val", "train", slice(20, 5_020)),
        ("test", "t10k", slice(0, 30)),
    ):
        images, labels = read_digits(folder, split)
        np.testing.assert_array_equal(images, items[f"{name}-images-idx3-ubyte"][part])
        np.testing.assert_array_equal(labels, items[f"{name}-labels-idx1-ubyte"][part])


def test_inconsistent_sets_are_rejected(tmp_path):
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz: no such file; .*data get"):
        read_digits(tmp_path, "val")
    mnist(tmp_path, train=5_000, test=5)
    with pytest.raises(DataError, match="5000 training images, of which 5000"):
        read_digits(tmp_path, "train")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    with pytest.raises(DataError, match="t10k: 5 images and 3 labels"):
        read_digits(tmp_path, "test")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(6, 11))))
    with pytest.raises(DataError, match="t10k: labels must be between 0 and 9, got 10"):
        read_digits(tmp_path, "test")


def test_real_digits(real_digits):
    images, labels = read_digits(real_digits, "train")
    assert images.shape == (55_000, 28, 28) and np.bincount(labels).min() > 4_900
    assert len(read_digits(real_digits, "val")[0]) == 5_000
    images, labels = read_digits(real_digits, "test")
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.mean() == pytest.approx(0.1325 * 255, abs=0.01)
    getting.get("mnist", real_digits)


# Drawn digits


def test_drawn_digits_are_centred_and_distinct():
    images, labels = drawn_digits(300, 4)
    assert images.shape == (300, 28, 28) and images.dtype == labels.dtype == np.uint8
    assert set(labels.tolist()) == set(range(10))
    assert len({image.tobytes() for image in images}) == 300
    moments = [cv2.moments(image) for image in images]
    centres = [(m["m10"] / m["m00"], m["m01"] / m["m00"]) for m in moments]
    np.testing.assert_allclose(centres, 14, atol=0.1)  # pixel 14 of 0 to 27, as in MNIST
    edge = images.copy()
    edge[:, 2:-2, 2:-2] = 0
    assert not edge.any()
    assert 10 < images.mean() < 60
    # Anti-aliased, with full brightness inside strokes.
    assert ((images > 20) & (images < 235)).any((1, 2)).all()
    assert (images.max((1, 2)) > 200).all()


def test_drawn_digits_depend_on_the_seed_and_are_recognizable():
    images, labels = drawn_digits(400, 1)
    again = drawn_digits(400, 1)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    others, true = drawn_digits(100, 2)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in others}
    flat = images.reshape(400, -1).astype(float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    nearest = (others.reshape(100, -1) @ flat.T).argmax(1)
    assert (labels[nearest] == true).mean() > 0.9


# Getting


@pytest.fixture
def manifest(monkeypatch, root):
    pinned = {
        "source": str(root[0]),
        "max_bytes": 1 << 23,
        "uncompressed": {n: hashlib.sha256(idx(i)).hexdigest() for n, i in root[1].items()},
    }
    monkeypatch.setattr(getting, "load_manifest", lambda name: pinned)
    return pinned


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_get_accepts_plain_and_gzipped_files(manifest, root, tmp_path):
    target = tmp_path / "data" / "mnist"
    getting.get("mnist", target)
    assert content(target) == content(root[0])
    assert [path.name for path in target.parent.iterdir()] == ["mnist"]
    repacked = tmp_path / "repacked"
    repacked.mkdir()
    for name, items in root[1].items():
        (repacked / f"{name}.gz").write_bytes(gzip.compress(idx(items), 1))
    getting.get("mnist", tmp_path / "other", str(repacked))
    assert content(tmp_path / "other") == content(repacked)


def test_second_get_verifies_without_source(manifest, tmp_path, monkeypatch):
    target = tmp_path / "data" / "mnist"
    getting.get("mnist", target)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryDirectory", None)  # nothing is written
        getting.get("mnist", target, "/no/folder")
    (target / "t10k-images-idx3-ubyte").write_bytes(GOOD)
    with pytest.raises(DataError, match=r"data/mnist: t10k-images-idx3-ubyte: content has SHA-256"):
        getting.get("mnist", target)


def test_get_adds_missing_files(manifest, tmp_path):
    target = tmp_path / "mnist"
    getting.get("mnist", target)
    (target / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(
        DataError, match="/no/folder: is not a folder; give the folder that holds t10k"
    ):
        getting.get("mnist", target, "/no/folder")
    getting.get("mnist", target)
    assert len(content(target)) == 4


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS)), "content has SHA-256"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS))[:-3], "is damaged"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(bytes(1 << 25)), "content has SHA-256"),
        ("t10k-labels-idx1-ubyte.gz", None, "cannot be fetched"),
        ("train-images-idx3-ubyte", b"", "content has SHA-256"),
    ],
    # Generated ids would contain the time in gzip headers.
    ids=["other labels", "cut", "zeros", "missing", "empty"],
)
def test_get_rejects_other_files_and_leaves_nothing(manifest, tmp_path, name, data, problem):
    source = tmp_path / "source"
    mnist(source)
    (source / name).unlink()
    if data is not None:
        (source / name).write_bytes(data)
    with pytest.raises(DataError, match=f"source.*{name}.*{problem}"):
        getting.get("mnist", tmp_path / "data" / "mnist", str(source))
    assert not list((tmp_path / "data").iterdir())


def test_manifest_has_four_files():
    manifest = load_manifest("mnist")
    assert len(manifest["uncompressed"]) == 4 and manifest["source"].startswith("https://")
    images = 16 + 60_000 * 784
    assert images < manifest["max_bytes"]
