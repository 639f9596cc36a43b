"""Decomposed clips as JSON values for the report: strips of frames and of rendered components."""

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


class ScoredClips(NamedTuple):
    """Metrics of some test clips, and single clips for inspection.

    Attributes:
        clips: Number of clips.
        scores: Mean metrics by model; see `VideoMetrics.compute`.
        errors: Position error (L,) of each frame, px, by model; empty without true positions.
        cards: Single clips as JSON values, by group.
    """

    clips: int
    scores: dict[str, dict[str, Tensor]]
    errors: dict[str, np.ndarray]
    cards: dict[str, list[dict[str, Any]]]


@torch.inference_mode()
def score_clips(task: DecomposeTask, data: Any, clips: int, each: int) -> ScoredClips:
    """Scores the first test clips, and decomposes the first, the best and the worst of them.

    Args:
        task: Model in `eval` mode.
        data: Its data module, set up for `test`.
        clips: Number of clips to score.
        each: Number of clips in each group of cards.
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
        extrapolated = constant_velocity(clip.positions, t_in)
        lines.append(follow(extrapolated, clip.positions, t_in).error)
        kept.append(clip)
    square = torch.cat(error)
    order = square.argsort()
    groups = {
        "first clips": torch.arange(len(order))[:each],
        "smallest error": order[:each],
        "largest error": order.flip(0)[:each],
    }
    means = {name: score.compute() for name, score in scores.items()}
    errors = {}
    if "position_error_by_frame" in means["model"]:
        model = scores["model"]
        errors = {
            "model": (model.error / model.digits).numpy(),
            "true positions, constant velocity": torch.cat(lines).nanmean((0, 2)).numpy(),
        }
    together = Clip(*(_joined(kept, name) for name in ("frames", "positions", "labels", "index")))
    cards = {name: _cards(task, together, rows, square) for name, rows in groups.items()}
    return ScoredClips(len(order), means, errors, cards)


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
    """Cards of some clips: strips of all frames side by side."""
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
    """Data URI of a PNG with frames (L, C, S, S) in [0, 1] side by side."""
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    wide = pixels.permute(2, 0, 3, 1).flatten(1, 2).numpy()  # (S, L S, C)
    buffer = io.BytesIO()
    Image.fromarray(wide[..., 0] if wide.shape[2] == 1 else wide).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
