import numpy as np
import pytest
from pycocotools import mask as coco

from vidreason.perception.masks import Masks, areas, boxes, decode, encode, numbers, overlaps, pool


def images(seed):
    """Returns an image of instance numbers (noise, vertical stripes or blocks) and their count."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 14, 2)
    count = int(rng.integers(0, 6))
    kind = seed % 3
    if kind == 0:
        image = rng.integers(0, count + 1, (height, width))
    elif kind == 1:
        image = np.tile(rng.integers(0, count + 1, width), (height, 1))
    else:
        image = np.kron(rng.integers(0, count + 1, (2, 2)), np.ones((5, 4), int))
    return image.astype((np.uint8, np.uint16)[seed % 2]), count


def coco_mask(image, number):
    return coco.encode(np.asfortranarray((image == number).astype(np.uint8)))


@pytest.mark.parametrize("seed", range(90))
def test_masks_match_coco(seed):
    image, count = images(seed)
    masks = encode(image, count)
    found = decode(masks)
    assert found.shape == (count, *image.shape) and len(masks.offsets) == count + 1
    assert (numbers(masks) == image).all()
    for n in range(count):
        truth = coco_mask(image, n + 1)
        counts = masks.counts[masks.offsets[n] : masks.offsets[n + 1]].tolist()
        size = [int(s) for s in image.shape]
        assert sum(counts) == image.size
        assert coco.frPyObjects({"size": size, "counts": counts}, *size) == truth
        assert (found[n] == (image == n + 1)).all()
        assert areas(masks)[n] == coco.area(truth)
        x, y, w, h = coco.toBbox(truth)
        assert boxes(masks)[n].tolist() == [x, y, x + w, y + h]


def test_no_instances_and_empty_masks():
    masks = encode(np.zeros((3, 4), np.uint8), 0)
    assert decode(masks).shape == (0, 3, 4) and boxes(masks).shape == (0, 4)
    assert areas(Masks(np.array([12], np.int32), np.array([0, 1]), 3, 4)).tolist() == [0]


@pytest.mark.parametrize("seed", range(12))
def test_overlaps_are_mask_iou(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 4, (2, 9, 11)).astype(np.uint8)
    found = overlaps(before, after, (3, 4))
    for m in range(3):
        for n in range(4):
            one, two = before == m + 1, after == n + 1
            union = (one | two).sum()
            assert found[m, n] == pytest.approx((one & two).sum() / union if union else 0)


@pytest.mark.parametrize("seed", range(8))
def test_pool_averages_cells_whose_centre_is_in_the_mask(seed):
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 4, (4, 6)), np.ones((8, 8), int)).astype(np.uint8)
    image[1, 1] = 4  # covers no cell centre
    features = rng.standard_normal((5, 8, 12)).astype(np.float32)
    found = pool(features, image, 5)
    centres = image[2::4, 2::4]
    for n in range(3):
        if (centres == n + 1).any():
            want = features[:, centres == n + 1].mean(1)
            np.testing.assert_allclose(found[n], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[3], features[:, 0, 0])
    assert np.isfinite(found[4]).all()  # not in the image


def test_pool_of_a_constant_map_is_the_constant():
    image = np.random.default_rng(0).integers(0, 9, (27, 48)).astype(np.uint16)
    features = np.full((3, 7, 12), 2.5, np.float32)
    assert pool(features, image, 8).tolist() == [[2.5] * 3] * 8
    assert pool(features, np.zeros((27, 48), np.uint8), 0).shape == (0, 3)
