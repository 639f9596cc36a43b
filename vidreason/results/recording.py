"""Recordings for the Rerun viewer: frames, boxes, edges, and probabilities over time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.results.layers import Layers
from vidreason.results.overlay import Overlay, edge_colour


def write_recording(
    path: Path, layers: Layers, frames: Iterator[tuple[int, np.ndarray | None]]
) -> None:
    """Writes a recording.

    Args:
        path: Output file, `.rrd`.
        layers: What is drawn.
        frames: Number and image (h, w, 3) uint8 RGB of each frame; None without an image.

    Raises:
        DataError: rerun-sdk is not installed.
    """
    overlay = Overlay(*layers.size, layers.fps, layers.threshold, layers.words)
    with _recording(path) as (rr, record):
        for number, picture in frames:
            shown = layers.at(number)
            record.set_time("frame", sequence=number)
            record.set_time("video", duration=number / layers.fps)
            scale = 1.0
            if picture is not None:
                scale = picture.shape[1] / layers.size[0]
                record.log("camera/image", rr.Image(picture).compress(jpeg_quality=80))
            box = shown.box * scale
            names = [
                name if np.isnan(p) else f"{name}: {p:.0%}"
                for name, p in zip(shown.name, shown.probability, strict=True)
            ]
            colours = [overlay.colour(p) for p in shown.probability]
            record.log(
                "camera/people",
                rr.Boxes2D(
                    array=box, array_format=rr.Box2DFormat.XYXY, labels=names, colors=colours
                ),
            )
            middle = (box[:, :2] + box[:, 2:]) / 2
            record.log(
                "camera/edges",
                rr.LineStrips2D(
                    middle[shown.edge],
                    radii=0.5 + 10 * np.nan_to_num(np.abs(shown.weight)),
                    colors=[edge_colour(weight) for weight in shown.weight],
                ),
            )
            for name, p in zip(shown.name, shown.probability, strict=True):
                if not np.isnan(p):
                    record.log(f"probability/{name}", rr.Scalars(float(p)))


@contextmanager
def _recording(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        import rerun
    except ImportError as error:
        fix = "pip install 'vidreason[rerun]'"
        raise DataError("--out", f"{path} needs rerun-sdk ({error})", fix) from None
    with write_atomic(path) as temporary:
        record = rerun.RecordingStream("vidreason")
        record.save(str(temporary))
        yield rerun, record
        record.flush()
        record.disconnect()
