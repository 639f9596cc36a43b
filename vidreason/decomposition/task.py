"""`DecomposeTask`: trains and applies a network that takes clips apart and predicts their end."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchmetrics import MeanMetric

from vidreason.core.averaging import moving_average
from vidreason.core.errors import DataError, check_ranges
from vidreason.core.files import write_atomic
from vidreason.decomposition.ball_metrics import BallMetrics, constant_velocity
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.filmstrips import (
    draw_animation,
    draw_curves,
    draw_filmstrip,
    draw_trajectories,
)
from vidreason.decomposition.metrics import FRAME_METRICS, VideoMetrics

_SHOWN = 4  # clips that `predict` draws
_RISE = 40  # steps in which the learning rate of one cycle rises


class DecomposeTask(pl.LightningModule):
    """Maximises the evidence lower bound of whole clips; judged on the frames it does not see.

    A network has `loss(frames, t_in)` in nats per clip, and `decompose(frames, t_out)`. One that
    has a `forecast_loss()` too keeps the parameters under `forecast` for steps of their own.

    Args:
        net: The network.
        input_frames: Frames T that it sees; the rest of a clip is predicted.
        lr: Greatest learning rate of Adam.
        betas: Of Adam.
        schedule: Learning rate over the whole training: one cycle (Smith 2018), a tenth from half
            of it on (`step`, as DDPAE), or constant.
        clip: Greatest norm of the gradient, nats per clip; 0 does not clip.
        average: Decay per step of the moving average of the weights, which is what is judged and
            applied; 0 takes the last weights.
        forecast_steps: Steps of the forecast after each step of the rest.
        forecast_lr: Greatest learning rate of these.
        objective: The bound written out, or Pyro's `TraceMeanField_ELBO` of model and guide.

    Raises:
        DataError: An option out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        input_frames: int = 10,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Literal["one_cycle", "step", "constant"] = "one_cycle",
        clip: float = 0.0,
        average: float = 0.0,
        forecast_steps: int = 16,
        forecast_lr: float = 3e-3,
        objective: Literal["closed_form", "pyro"] = "closed_form",
    ) -> None:
        super().__init__()
        check_ranges(
            "model",
            ("input_frames", input_frames, 1, 10_000),
            ("lr", lr, 1e-12, 1e3),
            *(("betas", beta, 0, 1 - 1e-9) for beta in betas),
            ("clip", clip, 0, 1e12),
            ("average", average, 0, 1 - 1e-9),
            ("forecast_steps", forecast_steps, 0, 10_000),
            ("forecast_lr", forecast_lr, 1e-12, 1e3),
        )
        # Two optimisers of different pace.
        self.automatic_optimization = False
        self.net, self.input_frames = net, input_frames
        self.lr, self.betas, self.schedule, self.clip = lr, betas, schedule, clip
        self.forecast_steps = forecast_steps if hasattr(net, "forecast_loss") else 0
        self.forecast_lr, self.objective = forecast_lr, objective
        self.averaged = moving_average(net, average)
        self.monitor, self.monitor_mode = "val/mse", "min"
        self.scores: dict[str, VideoMetrics] = {}
        self.motion: dict[str, BallMetrics] = {}
        self.reconstruction = MeanMetric()
        self.seconds, self._started = 0.0, 0.0
        self.tested: dict[str, Any] = {}
        self._shown: tuple[Tensor, Decomposition] | None = None

    def configure_optimizers(self) -> Any:
        """Adam for all but the forecast, AdamW for that; rates move with every step."""
        forecast = [p for name, p in self.net.named_parameters() if name.startswith("forecast.")]
        own = {id(p) for p in forecast} if self.forecast_steps else set()
        rest = [p for p in self.net.parameters() if id(p) not in own]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, self.lr, self.betas)]
        if own:
            optimizers.append(torch.optim.AdamW(forecast, self.forecast_lr))
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf and self.schedule != "constant":
            mend = "set it, or model.schedule to constant"
            raise DataError("trainer.max_epochs", f"{self.schedule} needs an end", mend)
        schedulers = []
        for number, optimizer in enumerate(optimizers):
            if self.schedule == "one_cycle":
                total = max(2, int(steps) * (self.forecast_steps if number else 1))
                rate = optimizer.param_groups[0]["lr"]
                # However long the cycle, components separate in its first hundred steps.
                rise = min(0.1, _RISE / max(2, int(steps)))
                scheduler: Any = torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, rate, total_steps=total, pct_start=rise, cycle_momentum=False
                )
            else:
                # `step` is DDPAE's, which knows no forecast: per step of the rest.
                drops = [max(1, int(steps) // 2)] if self.schedule == "step" else []
                scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, 0.1)
            schedulers.append(scheduler)
        return optimizers, schedulers

    def on_fit_start(self) -> None:
        """Refuses clips that are too short."""
        self._check_length(self.trainer.datamodule.length)  # type: ignore[attr-defined]

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def training_step(self, clip: Clip, _: int) -> None:
        """A step on a batch, then the steps of the forecast."""
        # Lightning hands out a list only where there are several.
        found: list[Any] = [self.optimizers(), self.lr_schedulers()]
        optimizers, schedulers = (x if isinstance(x, list) else [x] for x in found)
        frames = clip.frames.float() / 255
        loss = self._loss(frames)
        self._descend(loss, optimizers[0], self.clip)
        schedulers[0].step()
        for _step in range(self.forecast_steps):
            self._descend(self.net.forecast_loss(), optimizers[1], 1.0)  # type: ignore[operator]
            schedulers[1].step()
        self.averaged.update_parameters(self.net)
        per_pixel = loss.detach() / frames[0].numel()
        self.log("train/loss", per_pixel, on_epoch=True, on_step=False, batch_size=len(frames))

    def _loss(self, frames: Tensor) -> Tensor:
        if self.objective == "closed_form":
            return self.net.loss(frames, self.input_frames)  # type: ignore[operator]
        elbo = TraceMeanField_ELBO(max_plate_nesting=1)
        loss = elbo.differentiable_loss(self.net.model, self.net.guide, frames, self.input_frames)
        return loss / len(frames)

    def _descend(self, loss: Tensor, optimizer: Any, clip: float) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clip:
            self.clip_gradients(optimizer, clip, "norm")
        optimizer.step()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stops the clock, which knows of training only."""
        self.seconds += time.perf_counter() - self._started

    def on_train_epoch_end(self) -> None:
        """Says how much was seen."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        seen = (self.trainer.current_epoch + 1) * data.clips["train"]
        self.log_dict({"clips": float(seen), "seconds": self.seconds})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the clock."""
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Sets the clock."""
        self.seconds = float(checkpoint.get("seconds", 0.0))

    def decompose(self, frames: Tensor, t_out: int) -> Decomposition:
        """Takes clips apart with the weights that are judged, which are averages as a rule.

        Args:
            frames: The input frames, (B, T, C, S, S) in [0, 1].
            t_out: Frames to predict.
        """
        net: Any = self.averaged.module
        return net.decompose(frames, t_out)

    def sample(self, frames: Tensor, t_out: int, samples: int) -> Tensor:
        """Futures, (samples, B, t_out, C, S, S) in [0, 1], with these weights; see `decompose`."""
        net: Any = self.averaged.module
        return net.sample(frames, t_out, samples)

    def on_validation_start(self) -> None:
        """Starts the scores of the model."""
        self._start("model")

    def validation_step(self, clip: Clip, batch: int) -> None:
        """Scores the mean prediction."""
        frames, decomposition = self._decompose(clip)
        self._score("model", clip, decomposition)
        if not batch:
            self._shown = frames[:1], Decomposition(*(part[:1] for part in decomposition))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores, and draws the first clip."""
        found = self._found("model")
        self.log_dict({f"val/{name}": value for name, value in found.items() if value.dim() == 0})
        folder = Path(self.trainer.default_root_dir)
        if self._shown and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            path = folder / "filmstrips" / f"epoch_{self.trainer.current_epoch:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_filmstrip(path, *self._shown, self.input_frames)

    def on_fit_end(self) -> None:
        """Draws the curves."""
        table = Path(self.trainer.default_root_dir) / "metrics.csv"
        if table.is_file():
            draw_curves(table.with_suffix(".png"), table)

    def on_test_start(self) -> None:
        """Starts the scores of the model and of some that need no training."""
        self._start("model", "black", "copy last")

    def test_step(self, clip: Clip, _: int) -> None:
        """Scores the mean prediction beside a black frame and the last one seen.

        Where there is a physical state, also beside the true positions, which the published rule
        compares with rounded ones, and beside going on as the last two of them.
        """
        frames, decomposition = self._decompose(clip)
        self._score("model", clip, decomposition)
        coming = torch.zeros_like(frames[:, self.input_frames :])
        self.scores["black"].update(clip, coming)
        last = frames[:, self.input_frames - 1 : self.input_frames]
        self.scores["copy last"].update(clip, last.expand_as(coming))
        if clip.velocities is not None:
            self._judge("true positions", clip, clip.positions)
            straight = constant_velocity(clip.positions, self.input_frames)
            self._judge("constant velocity", clip, straight)

    def on_test_epoch_end(self) -> None:
        """Prints the scores and writes them to `test.json` in the folder of the run."""
        found = {name: self._found(name) for name in {**self.scores, **self.motion}}
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        tested = {"clips": int(self.scores["model"].clips), **data.options}
        path = Path(self.trainer.default_root_dir) / "test.json"
        plain = {
            name: {key: _plain(value) for key, value in row.items()} for name, row in found.items()
        }
        metrics = {k: v for k, v in plain["model"].items() if isinstance(v, float)}
        self.tested = {"on": tested, "metrics": metrics}
        with write_atomic(path) as temporary:
            temporary.write_text(json.dumps({"tested": tested, **plain}, indent=1) + "\n", "utf-8")
        if self.trainer.is_global_zero:
            # Away from a terminal nothing says how wide a line may be.
            Console(width=None if sys.stdout.isatty() else 120).print(_table(found))
            print(path)

    def predict_step(self, clip: Clip, batch: int) -> dict[str, np.ndarray]:
        """Tracks and errors of a batch; draws the first clips."""
        frames, decomposition = self._decompose(clip)
        if not batch:
            folder = Path(self.trainer.default_root_dir) / "filmstrips"
            folder.mkdir(parents=True, exist_ok=True)
            for shown in range(min(_SHOWN, len(frames))):
                for draw, suffix in ((draw_filmstrip, "png"), (draw_animation, "gif")):
                    path = folder / f"clip_{int(clip.index[shown]):05d}.{suffix}"
                    draw(path, frames, decomposition, self.input_frames, shown)
                if not clip.positions.isnan().all():
                    path = folder / f"clip_{int(clip.index[shown]):05d}_paths.png"
                    draw_trajectories(path, clip, decomposition, self.input_frames, shown)
        error = FRAME_METRICS["mse"](decomposition.frames, frames)
        clips, length, count = decomposition.sides.shape
        grid = torch.meshgrid(
            clip.index.cpu(), torch.arange(length), torch.arange(count), indexing="ij"
        )
        named = dict(zip(("clip", "frame", "component"), grid, strict=True))
        x, y = decomposition.positions.unbind(-1)
        named |= {"x": x, "y": y, "side": decomposition.sides}
        named["frame_mse"] = error[..., None].expand(clips, length, count)
        return {name: value.flatten().cpu().numpy() for name, value in named.items()}

    def write_predictions(
        self,
        folder: Path,
        batches: Sequence[Mapping[str, np.ndarray]],
        data: pl.LightningDataModule,
        made_with: Mapping[str, Any],
    ) -> Path:
        """Writes `tracks.parquet`: a row for each clip, frame and component.

        Args:
            folder: Of the run.
            batches: What `predict_step` returned.
            data: Ignored.
            made_with: Goes into the file's metadata.
        """
        columns = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        meta = {"input_frames": self.input_frames, **{k: str(v) for k, v in made_with.items()}}
        table = pa.table(columns).replace_schema_metadata({"vidreason": json.dumps(meta)})
        path = folder / "tracks.parquet"
        with write_atomic(path) as temporary:
            pq.write_table(table, temporary)
        print(folder / "filmstrips")
        return path

    def _check_length(self, length: int) -> None:
        if self.input_frames >= length:
            problem = f"{self.input_frames} of clips of {length}"
            raise DataError("model.input_frames", problem, "leave at least one to be predicted")

    def _start(self, *names: str) -> None:
        length = self.trainer.datamodule.length  # type: ignore[attr-defined]
        self._check_length(length)
        t_in, t_out = self.input_frames, length - self.input_frames
        self.scores = {name: VideoMetrics(t_in, t_out).to(self.device) for name in names}
        self.motion = {}
        self.reconstruction.reset()

    def _decompose(self, clip: Clip) -> tuple[Tensor, Decomposition]:
        frames = clip.frames.float() / 255
        seen = frames[:, : self.input_frames]
        return frames, self.decompose(seen, frames.shape[1] - self.input_frames)

    def _score(self, name: str, clip: Clip, decomposition: Decomposition) -> None:
        t_in = self.input_frames
        self.scores[name].update(clip, decomposition.frames[:, t_in:], decomposition)
        seen = clip.frames[:, :t_in].float() / 255
        self.reconstruction.update(FRAME_METRICS["mse"](decomposition.frames[:, :t_in], seen))
        if clip.velocities is not None:
            self._judge(name, clip, decomposition.positions)

    def _judge(self, name: str, clip: Clip, positions: Tensor) -> None:
        """Adds what is physical; positions (B, L, N, 2) px."""
        if name not in self.motion:
            t_in, length = self.input_frames, positions.shape[1]
            made = BallMetrics(t_in, length - t_in, clip.frames.shape[-1])
            self.motion[name] = made.to(self.device)
        self.motion[name].update(clip, positions)

    def _found(self, name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if name in self.scores:
            found |= self.scores[name].compute()
        if name in self.motion:
            found |= self.motion[name].compute()
        if name == "model":
            found["reconstruction_mse"] = self.reconstruction.compute()
        return found


def _plain(value: Tensor) -> Any:
    """Numbers for JSON, which knows no NaN."""
    if value.dim():
        return [_plain(part) for part in value]
    return None if value.isnan() else round(float(value), 4)


def _table(found: Mapping[str, Mapping[str, Tensor]]) -> Table:
    """Predictors as columns, scores as rows."""
    table = Table(title="predicted frames")
    table.add_column("score")
    for name in found:
        table.add_column(name, justify="right")
    for key, value in found["model"].items():
        if value.dim() == 0:
            cells = [f"{float(row[key]):.3f}" if key in row else "" for row in found.values()]
            table.add_row(key.replace("_", " "), *cells)
    return table
