"""Instance segmentation by Mask2Former (Cheng et al., CVPR 2022), from the hub or from a folder.

Its classes are found by name, never by number: label sets number them differently, and the same
model comes with Cityscapes', Mapillary Vistas' or COCO's.
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
"""Names of classes in Cityscapes, Mapillary Vistas and COCO, in small letters."""

# Some label sets know these as stuff only: all of them in an image in one piece.
_LOOSE = [KINDS.index(kind) for kind in ("crosswalk", "zebra", "traffic_light", "sign")]
_LEAST = 16  # pixels of a piece
_MEND = "give a Mask2Former of the hub, or a folder written by `save_pretrained`"


class Segmenter:
    """Mask2Former, frame by frame.

    Args:
        source: Name on the Hugging Face hub, or a folder that `save_pretrained` has written model
            and image processor to; a folder needs no network.
        device: Of torch.
        least: Confidence from which a segment counts.
        threads: Of torch, on the CPU; with another number the last bits may differ.

    Attributes:
        features: C, width of the features.

    Raises:
        DataError: No such model, or one whose classes lack people or vehicles.
    """

    def __init__(
        self, source: str, device: str = "cpu", least: float = 0.5, threads: int = 1
    ) -> None:
        try:
            # Not at the top: the rest of the package does without this extra.
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
            # Pickled weights could run code.
            model: Any = Model.from_pretrained(source, use_safetensors=True, **options)
        except Exception as error:  # of the hub, JSON, safetensors, and many more
            reason = " ".join(str(error).split())
            reason = reason if len(reason) < 160 else reason[:160] + "…"
            raise DataError(source, f"cannot be loaded ({reason})", _MEND) from None
        if model.config.model_type != "mask2former":
            raise DataError(source, f"is a {model.config.model_type!r}", _MEND)
        self.model, self.device, self.least = model.to(device).eval(), device, least
        self.label = dict(model.config.id2label)
        self.kind = kinds(source, self.label)
        self.features = int(model.config.mask_feature_size)
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        """Instances in a frame (H, W, 3) uint8 RGB; its `number` plays no part here."""
        size = frame.shape[:2]
        inputs = self.processor(frame, return_tensors="pt").to(self.device)
        found = self.model(**inputs, output_hidden_states=False)
        segments = self.processor.post_process_panoptic_segmentation(
            found, threshold=self.least, target_sizes=[size], label_ids_to_fuse=set()
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
    """What to call a segmenter: its name on the hub, or that of its folder with a digest.

    Raises:
        DataError: A folder without weights.
    """
    folder = Path(source)
    if not folder.exists():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise DataError(source, "no such folder", _MEND)
        return source
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(source, f"is no folder with {name}", _MEND)
        digest.update(sha256(folder / name).encode())
    return f"{folder.resolve().name}@{digest.hexdigest()[:16]}"


def kinds(source: str, label: Mapping[int, str]) -> dict[int, int]:
    """Index into `KINDS` of those classes that are nodes of the scene graph.

    Raises:
        DataError: There are no people, or no vehicles.
    """
    index = {name: KINDS.index(kind) for kind, names in _NAMES.items() for name in names}
    found = {
        number: index[name.lower().strip()]
        for number, name in label.items()
        if name.lower().strip() in index
    }
    for kind in NEEDED:
        if KINDS.index(kind) not in found.values():
            problem = (
                f"has no class of {kind} among {len(label)} ({', '.join(label.values())[:80]})"
            )
            raise DataError(source, problem, f"needed is one of {', '.join(_NAMES[kind])}")
    return found


def _pieces(
    ids: np.ndarray, segments: list[dict[str, Any]], kind: Mapping[int, int]
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Masks (H, W) of the segments that are nodes, with what is known of them."""
    parts = []
    for info in segments:
        code = kind.get(info["label_id"])
        if code is None:
            continue
        mask = ids == info["id"]
        if code not in _LOOSE:
            parts.append((mask, info))
            continue
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        for piece in range(1, count):
            if stats[piece, cv2.CC_STAT_AREA] >= _LEAST:
                parts.append((pieces == piece, info))
    return [(mask, info) for mask, info in parts if mask.any()]
