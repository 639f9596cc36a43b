import shutil

import numpy as np
import pytest

from vidreason.core.errors import DataError
from vidreason.perception import segmenter as segment
from vidreason.perception.segmenter import Segmenter, identity, kinds
from vidreason.scenes.scene import KINDS


def frame(seed, size=(90, 160)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def test_instances_of_a_frame(tiny_model):
    found = Segmenter(str(tiny_model), threshold=0)(frame(0, (360, 640)), 0)
    count = len(found.kind)
    assert count and found.image.shape == (360, 640)
    assert np.unique(found.image[found.image > 0]).tolist() == list(range(1, count + 1))
    assert {KINDS[k] for k in found.kind} <= {"person", "vehicle", "traffic_light"}
    assert all(0 < s <= 1 for s in found.score) and len(found.label) == count
    assert found.features.shape[0] == 32 and np.isfinite(found.features).all()
    # The image is resized to a whole number of cells, not padded.
    assert found.features.shape[1:] == (24, 48)


def test_segmentation_is_deterministic(tiny_model):
    one, two = (Segmenter(str(tiny_model), threshold=0)(frame(3), n) for n in (0, 7))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.features, two.features)


def test_frame_without_instances(tiny_model):
    found = Segmenter(str(tiny_model), threshold=1)(frame(0), 0)
    assert not found.image.any() and found.label == [] and found.kind.shape == (0,)


def test_stuff_segments_are_split_into_instances():
    ids = np.zeros((20, 30), int)
    ids[2:8, 2:8] = ids[2:8, 20:26] = ids[15, 15] = 4
    ids[10:14, 2:6] = ids[10:14, 20:24] = 7
    info = [{"id": 4, "label_id": 0, "score": 0.9}, {"id": 7, "label_id": 1, "score": 0.8}]
    parts = segment._pieces(ids, info, {0: KINDS.index("traffic_light"), 1: KINDS.index("vehicle")})
    assert [mask.sum() for mask, _ in parts] == [36, 36, 32]
    assert [i["id"] for _, i in parts] == [4, 4, 7]


CITYSCAPES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
    "person rider car truck bus train motorcycle bicycle"
)


def test_classes_are_mapped_by_name():
    label = {n: name.replace("_", " ") for n, name in enumerate(CITYSCAPES.split())}
    found = {label[n]: KINDS[k] for n, k in kinds("x", label).items()}
    assert found == {
        "person": "person",
        "traffic light": "traffic_light",
        "traffic sign": "sign",
        **dict.fromkeys(
            ("rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"), "vehicle"
        ),
    }
    vistas = {
        0: "Person",
        1: "Car",
        2: "Crosswalk - Plain",
        3: "Lane Marking - Crosswalk",
        4: "Sky",
    }
    names = ["person", "vehicle", "crosswalk", "zebra"]
    assert [KINDS[k] for k in kinds("x", vistas).values()] == names


@pytest.mark.parametrize(
    ("labels", "kind"), [(("cat", "car"), "person"), (("person", "sky"), "vehicle")]
)
def test_missing_classes_are_refused(labels, kind):
    with pytest.raises(DataError, match=f"^x: has no class for {kind} among its 2 "):
        kinds("x", dict(enumerate(labels)))


def test_unusable_segmenters_are_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="no such folder; give a Mask2Former"):
        identity(str(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"contains no config\.json"):
        identity(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"contains no model\.safetensors"):
        identity(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match="cannot be loaded") as error:
        Segmenter(str(tmp_path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_identity_depends_on_the_weights(tmp_path, tiny_model):
    other = shutil.copytree(tiny_model, tmp_path / "m2f")
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    names = {identity(str(folder)) for folder in (tiny_model, tiny_model, other)}
    assert len(names) == 2 and all(name.startswith("m2f@") for name in names)
    assert identity("facebook/some-model") == "facebook/some-model"
