"""Instance segmentation with Mask2Former (Cheng et al., CVPR 2022), from the hub or a folder.

Classes are looked up by name, not by number: the model is published with the label sets of
Cityscapes, Mapillary Vistas and COCO, which number them differently.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidreason.core.errors import DataError
from vidreason.core.files import sha256
from vidreason.perception.store import Instances
from vidreason.scenes.scene import KINDS

NEEDED = ("person", "vehicle")
_NAMES = {
    "person": ("person", "pedestrian"),
    "vehicle": (
        *("rider", "bicyclist", "motorcyclist", "other rider"),
        *("car", "truck", "bus", "train", "motorcycle", "bicycle", "caravan", "trailer", "boat"),
        *("on rails", "other vehicle", "wheeled slow"),
    ),
    "crosswalk": ("crosswalk - plain",),
    "zebra": ("lane marking - crosswalk",),
    "traffic_light": ("traffic light",),
    "sign": ("traffic sign", "traffic sign (front)", "stop sign"),
}
"""Class names of Cityscapes, Mapillary Vistas and COCO, in lower case."""

# Some label sets have these as stuff classes only: all objects of an image in one segment.
_LOOSE = [KINDS.index(kind) for kind in ("crosswalk", "zebra", "traffic_light", "sign")]
_MIN_AREA = 16  # pixels of a connected component
_FIX = "give a Mask2Former of the Hugging Face hub, or a folder written by `save_pretrained`"


class Segmenter:
    """Segments single frames with Mask2Former.

    Args:
        source: Name on the Hugging Face hub, or a folder to which `save_pretrained` has written the
            model and the image processor; a folder needs no network access.
        device: Torch device.
        threshold: Minimum score of a segment, 0 to 1.
        threads: Number of torch threads on the CPU; changes the results by rounding.

    Attributes:
        features: C, number of channels of the feature map.

    Raises:
        DataError: The model is not found, cannot be loaded, is no Mask2Former, or has no class for
            persons or vehicles.
    """

    def __init__(
        self, source: str, device: str = "cpu", threshold: float = 0.5, threads: int = 1
    ) -> None:
        try:
            # Imported here, since transformers is an optional extra.
            from huggingface_hub.utils import logging as hub_logging
            from transformers import Mask2FormerForUniversalSegmentation as Model
            from transformers import Mask2FormerImageProcessorPil as Processor
            from transformers.utils import logging
        except ImportError as error:
            problem = f"needs transformers ({error})"
            raise DataError("--segmenter", problem, "pip install 'vidreason[segment]'") from None
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        hub_logging.set_verbosity_error()
        options: dict[str, Any] = {"local_files_only": Path(source).exists()}
        try:
            self.processor = Processor.from_pretrained(source, **options)
            # Pickled weights can execute code.
            model: Any = Model.from_pretrained(source, use_safetensors=True, **options)
        except Exception as error:  # raised by the hub, JSON, safetensors and others
            reason = " ".join(str(error).split())
            reason = reason if len(reason) < 160 else reason[:160] + "…"
            raise DataError(source, f"cannot be loaded ({reason})", _FIX) from None
        if model.config.model_type != "mask2former":
            problem = f"must be a Mask2Former, got {model.config.model_type!r}"
            raise DataError(source, problem, _FIX)
        self.model, self.device, self.threshold = model.to(device).eval(), device, threshold
        self.label = dict(model.config.id2label)
        self.kind = kinds(source, self.label)
        self.features = int(model.config.mask_feature_size)
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        """Returns the instances of a frame (H, W, 3) uint8 RGB; `number` is not used."""
        size = frame.shape[:2]
        inputs = self.processor(frame, return_tensors="pt").to(self.device)
        found = self.model(**inputs, output_hidden_states=False)
        segments = self.processor.post_process_panoptic_segmentation(
            found, threshold=self.threshold, target_sizes=[size], label_ids_to_fuse=set()
        )[0]
        ids = segments["segmentation"].cpu().numpy()
        features = found.pixel_decoder_last_hidden_state[0].float().cpu().numpy()
        parts = _pieces(ids, segments["segments_info"], self.kind)
        image = np.zeros(size, np.uint16)
        for place, (mask, _) in enumerate(parts, 1):
            image[mask] = place
        info = [info for _, info in parts]
        return Instances(
            image=image,
            label=[self.label[i["label_id"]] for i in info],
            kind=np.array([self.kind[i["label_id"]] for i in info], np.int8),
            score=np.array([i["score"] for i in info], np.float32),
            features=features,
        )


def identity(source: str) -> str:
    """Returns a name that identifies a segmenter: that on the hub, or `FOLDER@DIGEST`.

    Raises:
        DataError: The folder does not exist, or lacks weights or configuration.
    """
    folder = Path(source)
    if not folder.exists():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise DataError(source, "no such folder", _FIX)
        return source
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(source, f"contains no {name}", _FIX)
        digest.update(sha256(folder / name).encode())
    return f"{folder.resolve().name}@{digest.hexdigest()[:16]}"


def kinds(source: str, label: Mapping[int, str]) -> dict[int, int]:
    """Maps a segmenter's classes to `KINDS`, leaving out those that are no scene-graph nodes.

    Args:
        source: Segmenter, for errors.
        label: Class names by class number.

    Returns:
        Index into `KINDS` by class number.

    Raises:
        DataError: There is no class for persons, or none for vehicles.
    """
    index = {name: KINDS.index(kind) for kind, names in _NAMES.items() for name in names}
    found = {
        number: index[name.lower().strip()]
        for number, name in label.items()
        if name.lower().strip() in index
    }
    for kind in NEEDED:
        if KINDS.index(kind) not in found.values():
            known = ", ".join(label.values())[:80]
            problem = f"has no class for {kind} among its {len(label)} ({known})"
            fix = f"use a segmenter that has one of {', '.join(_NAMES[kind])}"
            raise DataError(source, problem, fix)
    return found


def _pieces(
    ids: np.ndarray, segments: list[dict[str, Any]], kind: Mapping[int, int]
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Returns a mask (H, W) bool and the segment info of each instance; splits stuff segments."""
    parts = []
    for info in segments:
        code = kind.get(info["label_id"])
        if code is None:
            continue
        mask = ids == info["id"]
        if code not in _LOOSE:
            parts.append((mask, info))
            continue
        count, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        for component in range(1, count):
            if stats[component, cv2.CC_STAT_AREA] >= _MIN_AREA:
                parts.append((components == component, info))
    return [(mask, info) for mask, info in parts if mask.any()]
