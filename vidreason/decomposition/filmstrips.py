"""Figures of decompositions: filmstrips, animations, trajectories and training curves."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vidreason.core.colours import COLOURS
from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.metrics import follow
from vidreason.perception.video import write_video

_INK, _PAPER, _QUIET = (225, 225, 230), (24, 24, 28), (150, 150, 160)
TINTS = tuple(
    tuple(int(COLOURS[i][j : j + 2], 16) for j in (1, 3, 5)) for i in (4, 5, 3, 2)
)  # the colours that are visible on black
_GAP, _HEAD, _MARGIN, _BREAK = 4, 62, 140, 28
_FPS = 8
_PANELS = {
    "train/loss": "training loss",
    "val/mse": "squared error per predicted frame",
    "val/position_error": "position error (px)",
    "val/separated": "share of clips separated",
}


def draw_filmstrip(
    path: Path, frames: Tensor, decomposition: Decomposition, t_in: int, clip: int = 0
) -> None:
    """Draws a clip as a PNG filmstrip with one column per frame.

    The rows are the ground truth, the model's reconstruction and prediction, each component in its
    colour, and the model's frames with the components' windows.

    Args:
        path: Output file.
        frames: Ground truth, (B, T, C, S, S) float in [0, 1]; T may be less than L.
        decomposition: Decomposition over L frames.
        t_in: Number of input frames.
        clip: Index of the clip in the batch.
    """
    rows, side = _rows(frames, decomposition, clip, 120), decomposition.frames.shape[-1]
    tile = _scale(side, 120) * side
    length = decomposition.frames.shape[1]
    left = [_MARGIN + t * (tile + _GAP) + (_BREAK if t >= t_in else 0) for t in range(length)]
    height = _HEAD + len(rows) * (tile + _GAP) + _GAP
    sheet = Image.new("RGB", (left[-1] + tile + 4 * _GAP, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for first, last, word in ((0, t_in, "input"), (t_in, length, "future")):
        if first < last:
            pen.text((left[first], 4), word, _INK, _font(24))
    for t, x in enumerate(left):
        pen.text((x + tile / 2, _HEAD - 4), str(t + 1), _QUIET, _font(20), anchor="mb")
    if 0 < t_in < length:
        x = left[t_in] - (_BREAK + _GAP) // 2
        pen.line((x, 6, x, height - _GAP), _QUIET)
    for row, (name, (colour, pictures)) in enumerate(rows.items()):
        y = _HEAD + row * (tile + _GAP)
        pen.text((_MARGIN - 8, y + tile / 2), name, colour, _font(20), anchor="rm")
        for x, picture in zip(left, pictures, strict=False):
            sheet.paste(picture, (x, y))
    with write_atomic(path) as temporary:
        sheet.save(temporary, "png")


def draw_animation(
    path: Path, frames: Tensor, decomposition: Decomposition, t_in: int, clip: int = 0
) -> None:
    """Draws a clip as an animation of ground truth, model with windows, and coloured components.

    Args:
        path: Output file, .gif or .mp4.
        frames: Ground truth, (B, T, C, S, S) float in [0, 1]; T may be less than L.
        decomposition: Decomposition over L frames.
        t_in: Number of input frames.
        clip: Index of the clip in the batch.

    Raises:
        DataError: The suffix is neither.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise DataError(path, "suffix must be one of .gif, .mp4", "rename the output")
    rows = _rows(frames, decomposition, clip, 192)
    parts = [
        np.stack([np.asarray(picture, np.uint16) for picture in pictures])
        for name, (_, pictures) in rows.items()
        if name.startswith("component")
    ]
    mixed = [Image.fromarray(picture) for picture in np.sum(parts, 0).clip(0, 255).astype(np.uint8)]
    panels = {"truth": rows["truth"][1], "model": rows["windows"][1], "components": mixed}
    tile, foot = mixed[0].width, 26
    # Video codecs require even sides.
    size = (3 * tile + 4 * _GAP + tile % 2, tile + 2 * foot + tile % 2)
    sheets = []
    for t in range(len(mixed)):
        sheet = Image.new("RGB", size, _PAPER)
        pen = ImageDraw.Draw(sheet)
        for column, (name, pictures) in enumerate(panels.items()):
            x = _GAP + column * (tile + _GAP)
            pen.text((x + tile / 2, foot / 2), name, _INK, _font(14), anchor="mm")
            if t < len(pictures):
                sheet.paste(pictures[t], (x, foot))
        word, colour = ("input", _QUIET) if t < t_in else ("prediction", _INK)
        place = (size[0] / 2, foot + tile + foot / 2)
        pen.text(place, f"{word}, frame {t + 1}", colour, _font(14), anchor="mm")
        sheets.append(sheet)
    if path.suffix == ".mp4":
        write_video(path, map(np.asarray, sheets), _FPS)
        return
    with write_atomic(path) as temporary:
        sheets[0].save(
            temporary, save_all=True, append_images=sheets[1:], duration=1000 / _FPS, loop=0
        )


def draw_trajectories(
    path: Path, clip: Clip, decomposition: Decomposition, t_in: int, which: int = 0
) -> None:
    """Draws true and predicted trajectories over the last input frame as a PNG.

    True trajectories are grey, thin in the input frames; predicted ones are coloured. Dots are
    frames. Predicted trajectories begin at the last input frame and are shifted by the mean offset
    between window and object, because the position of an object inside its window is arbitrary.

    Args:
        path: Output file.
        clip: Ground truth with positions; may be shorter than the prediction.
        decomposition: Decomposition over L frames.
        t_in: Number of input frames.
        which: Index of the clip in the batch.
    """
    size = clip.frames.shape[-1]
    scale = _scale(size, 640)
    frame = clip.frames[which : which + 1, t_in - 1].float() / 255
    sheet = _pictures(_array(frame * 0.35), 640)[0]
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((0, 0, sheet.width - 1, sheet.height - 1), outline=_QUIET)
    truth, placed = clip.positions[which : which + 1], decomposition.positions[which : which + 1]
    found = follow(placed.to(truth.device), truth, t_in).component[0].tolist()
    for ball, component in enumerate(found):
        true = _array(truth[0, :, ball]) * scale
        _path(pen, true[: t_in + 1], _QUIET, 1)
        _path(pen, true[t_in - 1 :], _QUIET, 2)
        if component < 0:
            continue
        colour = TINTS[component % len(TINTS)]
        ours = _array(placed[0, :, component]) * scale
        ours = ours + (true[:t_in] - ours[:t_in]).mean(0)
        _path(pen, ours[t_in - 1 :], colour, 2)
    with write_atomic(path) as temporary:
        sheet.save(temporary, "png")


def _path(
    pen: ImageDraw.ImageDraw, points: np.ndarray, colour: tuple[int, ...], width: int
) -> None:
    """Draws a line (T, 2) px with a dot at each frame except the first."""
    pen.line([tuple(point) for point in points.tolist()], colour, width)
    for x, y in points[1:].tolist():
        pen.ellipse((x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width), fill=colour)


def draw_curves(path: Path, metrics_csv: Path) -> None:
    """Draws training curves over the number of training clips as a PNG.

    Args:
        path: Output file.
        metrics_csv: Metrics table of a run, with the column `clips` and any of `train/loss`,
            `val/mse`, `val/position_error` and `val/separated`. Missing columns have no panel,
            empty cells no point.
    """
    with metrics_csv.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    curves = {}
    for name in _PANELS:
        pairs = [(line.get("clips"), line[name]) for line in lines if line.get(name)]
        points = [(float(x), float(y)) for x, y in pairs if x]
        if points:
            curves[name] = np.array(points).T
    figure = Figure(figsize=(3.4 * max(len(curves), 1), 2.8), layout="constrained")
    for i, (name, (x, y)) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), i + 1)
        axes.plot(x, y, color=COLOURS[0], marker="." if len(x) < 30 else "")
        axes.set_title(_PANELS[name], fontsize="medium")
        axes.set_xlabel("training clips")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        finite = y[np.isfinite(y)]
        if name != "train/loss" and len(finite):
            axes.set_ylim(0, 1.02 if name == "val/separated" else 1.05 * finite.max() or 1)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _rows(
    frames: Tensor, decomposition: Decomposition, clip: int, target: int
) -> dict[str, tuple[tuple[int, ...], list[Image.Image]]]:
    """Returns the colour and the images, one per frame, of each row by its name."""
    truth = _pictures(_array(frames[clip]), target)
    model = _array(decomposition.frames[clip])
    parts = _array(decomposition.components[clip])  # (L, N, C, S, S)
    windows = _pictures(model, target)
    scale = _scale(model.shape[-1], target)
    where, sides = _array(decomposition.positions[clip]), _array(decomposition.sides[clip])
    for picture, centres, widths in zip(windows, where, sides, strict=True):
        pen = ImageDraw.Draw(picture)
        for k, (centre, width) in enumerate(zip(centres, widths, strict=True)):
            low, high = np.round(scale * (centre - width / 2)), scale * (centre + width / 2)
            high = np.maximum(np.round(high) - 1, low)
            pen.rectangle((*low.tolist(), *high.tolist()), outline=TINTS[k % len(TINTS)], width=2)
    found: dict[str, tuple[tuple[int, ...], list[Image.Image]]]
    found = {"truth": (_INK, truth), "model": (_INK, _pictures(model, target))}
    for k in range(parts.shape[1]):
        tint = np.array(TINTS[k % len(TINTS)]) / 255
        coloured = parts[:, k].mean(1, keepdims=True) * tint[:, None, None]
        found[f"component {k + 1}"] = TINTS[k % len(TINTS)], _pictures(coloured, target)
    return found | {"windows": (_INK, windows)}


def _array(tensor: Tensor) -> np.ndarray:
    return np.nan_to_num(tensor.detach().float().cpu().numpy())


def _scale(side: int, target: int) -> int:
    """Returns the integer factor that enlarges `side` to about `target` pixels."""
    return max(round(target / side), 1)


def _pictures(frames: np.ndarray, target: int) -> list[Image.Image]:
    """Converts frames (L, C, S, S) in [0, 1], with C 1 or 3, to enlarged images."""
    scale = _scale(frames.shape[-1], target)
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).repeat(scale, 1).repeat(scale, 2)
    return [Image.fromarray(picture) for picture in pixels]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
