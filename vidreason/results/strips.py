"""Clips taken apart, as plain values for a page: strips of frames, and of what components draw."""

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vidreason.decomposition.ball_metrics import constant_velocity
from vidreason.decomposition.baselines import black, copy_last
from vidreason.decomposition.clip import Clip
from vidreason.decomposition.filmstrips import TINTS
from vidreason.decomposition.metrics import FRAME_METRICS, VideoMetrics, follow
from vidreason.decomposition.task import DecomposeTask


class Watched(NamedTuple):
    """What was seen in some test clips.

    Attributes:
        clips: How many.
        scores: Means by forecaster and metric; see `VideoMetrics.compute`.
        errors: By forecaster, position error (L,) px of each frame; empty if nothing is known.
        cards: Single clips as plain values, by the group they stand for.
    """

    clips: int
    scores: dict[str, dict[str, Tensor]]
    errors: dict[str, np.ndarray]
    cards: dict[str, list[dict[str, Any]]]


@torch.inference_mode()
def watch(task: DecomposeTask, data: Any, clips: int, each: int) -> Watched:
    """Scores the first test clips, and takes the first, the best and the worst of them apart.

    Args:
        task: In `eval` mode.
        data: Its data, set up for `test`.
        clips: How many to score.
        each: How many to show of each group.
    """
    t_in, t_out = task.input_frames, data.length - task.input_frames
    names = ("model", "copy last", "black")
    scores = {name: VideoMetrics(t_in, t_out) for name in names}
    kept: list[Clip] = []
    error, lines = [], []
    for clip in _first(data, clips):
        frames = clip.frames.float() / 255
        found = task.decompose(frames[:, :t_in], t_out)
        scores["model"].update(clip, found.frames[:, t_in:], found)
        for name, guess in (("copy last", copy_last), ("black", black)):
            scores[name].update(clip, guess(frames[:, :t_in], t_out))
        square = FRAME_METRICS["mse"](found.frames[:, t_in:], frames[:, t_in:])
        error.append(square.mean(1))
        straight = constant_velocity(clip.positions, t_in)
        lines.append(follow(straight, clip.positions, t_in).error)
        kept.append(clip)
    square = torch.cat(error)
    order = square.argsort()
    groups = {
        "the first": torch.arange(len(order))[:each],
        "the best": order[:each],
        "the worst": order.flip(0)[:each],
    }
    means = {name: score.compute() for name, score in scores.items()}
    errors = {}
    if "position_error_by_frame" in means["model"]:
        model = scores["model"]
        errors = {
            "model": (model.error / model.digits).numpy(),
            "true positions, going on in lines": torch.cat(lines).nanmean((0, 2)).numpy(),
        }
    together = Clip(*(_joined(kept, name) for name in ("frames", "positions", "labels", "index")))
    cards = {name: _cards(task, together, rows, square) for name, rows in groups.items()}
    return Watched(len(order), means, errors, cards)


def _first(data: Any, clips: int) -> Iterator[Clip]:
    for clip in data.test_dataloader():
        part: list[Any] = [None if field is None else field[:clips] for field in clip]
        clips -= len(part[0])
        yield Clip(*part)
        if clips <= 0:
            return


def _joined(clips: list[Clip], name: str) -> Tensor:
    return torch.cat([getattr(clip, name) for clip in clips])


def _cards(task: DecomposeTask, clip: Clip, rows: Tensor, error: Tensor) -> list[dict[str, Any]]:
    """Strips of some clips: images side by side, a frame each."""
    frames = clip.frames[rows].float() / 255
    t_in = task.input_frames
    found = task.decompose(frames[:, :t_in], frames.shape[1] - t_in)
    cards = []
    for i, row in enumerate(rows.tolist()):
        parts = found.components[i].mean(2)  # (L, N, S, S)
        tints = [TINTS[k % len(TINTS)] for k in range(parts.shape[1])]
        where = torch.cat([found.positions[i], found.sides[i][..., None]], -1)  # (L, N, 3)
        cards.append(
            {
                "name": f"clip {int(clip.index[row])}",
                "error": round(float(error[row]), 2),
                "input": t_in,
                "length": frames.shape[1],
                "side": frames.shape[-1],
                "truth": _strip(frames[i]),
                "model": _strip(found.frames[i]),
                "components": [
                    _strip(parts[:, k, None] * torch.tensor(tint)[:, None, None] / 255)
                    for k, tint in enumerate(tints)
                ],
                "tints": ["#" + bytes(tint).hex() for tint in tints],
                "windows": where.transpose(0, 1).round(decimals=1).tolist(),
            }
        )
    return cards


def _strip(frames: Tensor) -> str:
    """Frames (L, C, S, S) in [0, 1] side by side, as the data address of a PNG."""
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    wide = pixels.permute(2, 0, 3, 1).flatten(1, 2).numpy()  # (S, L S, C)
    buffer = io.BytesIO()
    Image.fromarray(wide[..., 0] if wide.shape[2] == 1 else wide).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
