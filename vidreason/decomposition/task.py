"""`DecomposeTask`: trains, evaluates and applies a network that decomposes and predicts clips."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
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
from vidreason.decomposition.baselines import black, copy_last
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.filmstrips import (
    draw_animation,
    draw_curves,
    draw_filmstrip,
    draw_trajectories,
)
from vidreason.decomposition.metrics import VideoMetrics, mse
from vidreason.decomposition.predictions import track_columns, write_tracks

_SHOWN = 4  # clips that `predict` draws
_RISE = 40  # warm-up steps of the one-cycle schedule


class DecomposeTask(pl.LightningModule):
    """Trains a network on the ELBO of whole clips and evaluates the frames that it predicts.

    A network has `loss(frames, t_in)` in nats per clip, and `decompose(frames, t_out)`. If it also
    has `forecast_loss()`, its parameters under `forecast` are trained on that in separate steps.

    Args:
        net: The network.
        input_frames: Number of input frames T; the rest of a clip is predicted.
        lr: Maximum learning rate of Adam.
        betas: Betas of Adam.
        schedule: Learning rate schedule over the whole training: `one_cycle` (Smith 2018), `step`
            (divided by 10 after half of the training, as in DDPAE) or `constant`.
        clip: Maximum norm of the gradient, in nats per clip; 0 disables clipping.
        average: Decay per step of the moving average of the weights, which is evaluated and
            applied; 0 uses the last weights.
        forecast_steps: Steps of the forecast after each step of the rest of the network.
        forecast_lr: Maximum learning rate of the forecast's steps.
        objective: `closed_form` uses the network's own loss, `pyro` the `TraceMeanField_ELBO` of
            its model and guide.

    Raises:
        DataError: An option is out of range.
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
        # Manual, because two optimizers take different numbers of steps.
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
        """Returns Adam, AdamW for the forecast, and schedulers that advance with each step."""
        forecast = [p for name, p in self.net.named_parameters() if name.startswith("forecast.")]
        own = {id(p) for p in forecast} if self.forecast_steps else set()
        rest = [p for p in self.net.parameters() if id(p) not in own]
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, self.lr, self.betas)]
        if own:
            optimizers.append(torch.optim.AdamW(forecast, self.forecast_lr))
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf and self.schedule != "constant":
            fix = "set it, or set model.schedule to constant"
            problem = f"the {self.schedule} schedule requires a limit"
            raise DataError("trainer.max_epochs", problem, fix)
        schedulers = []
        for number, optimizer in enumerate(optimizers):
            if self.schedule == "one_cycle":
                total = max(2, int(steps) * (self.forecast_steps if number else 1))
                rate = optimizer.param_groups[0]["lr"]
                # Components separate in the first hundred steps, however long the cycle.
                rise = min(0.1, _RISE / max(2, int(steps)))
                scheduler: Any = torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, rate, total_steps=total, pct_start=rise, cycle_momentum=False
                )
            else:
                # DDPAE, the origin of `step`, has no forecast: count the other steps.
                drops = [max(1, int(steps) // 2)] if self.schedule == "step" else []
                scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, 0.1)
            schedulers.append(scheduler)
        return optimizers, schedulers

    def on_fit_start(self) -> None:
        """Checks that clips are longer than the input."""
        self._check_length(self.trainer.datamodule.length)  # type: ignore[attr-defined]

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the timer."""
        self._started = time.perf_counter()

    def training_step(self, clip: Clip, _: int) -> None:
        """Runs a step on a batch, then the steps of the forecast."""
        # Lightning returns a list only if there are several.
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
        """Stops the timer, which counts training steps only."""
        self.seconds += time.perf_counter() - self._started

    def on_train_epoch_end(self) -> None:
        """Logs the number of training clips and the training time."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        seen = (self.trainer.current_epoch + 1) * data.clips["train"]
        self.log_dict({"clips": float(seen), "seconds": self.seconds})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the timer."""
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the timer."""
        self.seconds = float(checkpoint.get("seconds", 0.0))

    def decompose(self, frames: Tensor, t_out: int) -> Decomposition:
        """Decomposes clips with the evaluated weights, which are averages if `average` is set.

        Args:
            frames: Input frames, (B, T, C, S, S) in [0, 1].
            t_out: Number of frames to predict.
        """
        net: Any = self.averaged.module
        return net.decompose(frames, t_out)

    def sample(self, frames: Tensor, t_out: int, samples: int) -> Tensor:
        """Samples futures with the evaluated weights.

        Args:
            frames: Input frames, (B, T, C, S, S) in [0, 1].
            t_out: Number of frames to predict.
            samples: Draws for each clip.

        Returns:
            (samples, B, t_out, C, S, S) in [0, 1].
        """
        net: Any = self.averaged.module
        return net.sample(frames, t_out, samples)

    def on_validation_start(self) -> None:
        """Creates the metrics of the model."""
        self._start("model")

    def validation_step(self, clip: Clip, batch: int) -> None:
        """Evaluates the mean prediction."""
        frames, decomposition = self._decompose(clip)
        self._score("model", clip, decomposition)
        if not batch:
            self._shown = frames[:1], Decomposition(*(part[:1] for part in decomposition))

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics and draws the first clip."""
        found = self._found("model")
        self.log_dict({f"val/{name}": value for name, value in found.items() if value.dim() == 0})
        folder = Path(self.trainer.default_root_dir)
        if self._shown and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            path = folder / "filmstrips" / f"epoch_{self.trainer.current_epoch:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_filmstrip(path, *self._shown, self.input_frames)

    def on_fit_end(self) -> None:
        """Draws the training curves."""
        table = Path(self.trainer.default_root_dir) / "metrics.csv"
        if table.is_file():
            draw_curves(table.with_suffix(".png"), table)

    def on_test_start(self) -> None:
        """Creates the metrics of the model and of baselines."""
        self._start("model", "black", "copy last")

    def test_step(self, clip: Clip, _: int) -> None:
        """Evaluates the mean prediction, a black frame, and the last input frame.

        With physical states, also evaluates the true positions, which the published rule compares
        with rounded ones, and extrapolation of the last two true positions.
        """
        frames, decomposition = self._decompose(clip)
        self._score("model", clip, decomposition)
        t_in, t_out = self.input_frames, frames.shape[1] - self.input_frames
        for name, baseline in (("black", black), ("copy last", copy_last)):
            self.scores[name].update(clip, baseline(frames[:, :t_in], t_out))
        if clip.velocities is not None:
            self._score_motion("true positions", clip, clip.positions)
            straight = constant_velocity(clip.positions, t_in)
            self._score_motion("constant velocity", clip, straight)

    def on_test_epoch_end(self) -> None:
        """Prints the metrics and writes them to `test.json` in the run folder."""
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
            # Without a terminal, no width is known.
            Console(width=None if sys.stdout.isatty() else 120).print(_table(found))
            print(path)

    def predict_step(self, clip: Clip, batch: int) -> dict[str, np.ndarray]:
        """Returns the track table of a batch, and draws the first clips."""
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
        return track_columns(clip, frames, decomposition)

    def write_predictions(
        self,
        folder: Path,
        batches: Sequence[Mapping[str, np.ndarray]],
        data: pl.LightningDataModule,
        made_with: Mapping[str, Any],
    ) -> Path:
        """Writes `tracks.parquet`, see `vidreason.decomposition.predictions`.

        Args:
            folder: Run folder.
            batches: Results of `predict_step`.
            data: Ignored.
            made_with: Provenance, stored in the file's metadata.

        Returns:
            The file.
        """
        columns = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        meta = {"input_frames": self.input_frames, **{k: str(v) for k, v in made_with.items()}}
        path = folder / "tracks.parquet"
        write_tracks(path, columns, meta)
        print(folder / "filmstrips")
        return path

    def _check_length(self, length: int) -> None:
        if self.input_frames >= length:
            problem = f"must be less than the {length} frames of a clip, got {self.input_frames}"
            raise DataError("model.input_frames", problem, "leave at least one frame to predict")

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
        self.reconstruction.update(mse(decomposition.frames[:, :t_in], seen))
        if clip.velocities is not None:
            self._score_motion(name, clip, decomposition.positions)

    def _score_motion(self, name: str, clip: Clip, positions: Tensor) -> None:
        """Adds positions (B, L, N, 2) px to the metrics of physical state."""
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
    """Returns numbers for JSON, which has no NaN."""
    if value.dim():
        return [_plain(part) for part in value]
    return None if value.isnan() else round(float(value), 4)


def _table(found: Mapping[str, Mapping[str, Tensor]]) -> Table:
    """Returns a table with models as columns and metrics as rows."""
    table = Table(title="predicted frames")
    table.add_column("metric")
    for name in found:
        table.add_column(name, justify="right")
    for key, value in found["model"].items():
        if value.dim() == 0:
            cells = [f"{float(row[key]):.3f}" if key in row else "" for row in found.values()]
            table.add_row(key.replace("_", " "), *cells)
    return table
