"""The run folder: configuration, metrics, and checkpoints that survive a crash."""

import csv
import io
import json
import math
import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from vidreason import __version__
from vidreason.core.errors import DataError
from vidreason.core.files import left_over, sweep, write_atomic
from vidreason.runs.moved import current
from vidreason.runs.weights import read_weights

# What a run leaves that stopped before its first checkpoint; such a folder can be used again.
_LEFTOVERS = {"config.yaml", "run.json", "metrics.csv", "tensorboard", "filmstrips"}


def checkpoint_path(folder: Path, name: str) -> Path:
    """Returns the path of a checkpoint.

    Args:
        folder: Run folder.
        name: `best` or `last` of the run, or the path of a file.

    Raises:
        DataError: If there is no such file.
    """
    own = name in ("best", "last")
    path = folder / "checkpoints" / f"{name}.ckpt" if own else Path(name)
    if not path.is_file():
        raise DataError(
            path, "no such checkpoint", "run `vidreason fit`, or give another --ckpt_path"
        )
    return path


def newest_checkpoint(folder: Path) -> Path:
    """Returns the newest intact checkpoint of a run; warns about a damaged one.

    Raises:
        DataError: If there is none.
    """
    kept = [folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous")]
    damaged: list[DataError] = []
    for path in kept:
        if not path.is_file():
            continue
        try:
            _read(path)
        except DataError as error:
            damaged.append(error)
            continue
        for passed in damaged:
            text = f"{passed.source}: {passed.problem}; continuing from {path.name}"
            rank_zero_only(print)(f"warning: {text}", file=sys.stderr)
        return path
    if damaged:
        fix = "restore it from a copy, or start again in another trainer.default_root_dir"
        other = f"so is {kept[1].name}" if len(damaged) > 1 else "there is no other"
        raise DataError(damaged[0].source, f"{damaged[0].problem}, and {other}", fix)
    raise DataError(kept[0], "no such checkpoint", "start without --resume")


def check_free(folder: Path) -> None:
    """Checks that a new run can use a folder: it holds nothing, or a run without checkpoint.

    Raises:
        DataError: If it holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(folder, "is a file", "set trainer.default_root_dir to a folder")
    known = {folder / name for name in _LEFTOVERS}
    kept = folder / "checkpoints"
    if kept.is_dir() and all(left_over(path) for path in kept.iterdir()):
        known.add(kept)
    if folder.is_dir() and any(p not in known and not left_over(p) for p in folder.iterdir()):
        fix = "add --resume to continue it, or set trainer.default_root_dir to another folder"
        raise DataError(folder, "already holds a run", fix)


class CheckpointFiles(CheckpointIO):
    """Writes checkpoints atomically; reads only tensors and plain values.

    Args:
        model: Model whose weights are read and written.
        config: Options of the run, plain values by dotted names; stored in checkpoints.
        fixed: Names of the options whose values must equal those of a loaded checkpoint.
    """

    def __init__(
        self, model: pl.LightningModule, config: Mapping[str, Any], fixed: set[str]
    ) -> None:
        self.model, self.config, self.fixed = model, dict(config), fixed

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint and replaces `path` in one step.

        Raises:
            DataError: If a weight is not finite.
        """
        _check_finite(path, checkpoint["state_dict"])
        # Through memory: torch reports a full disk as an internal error.
        buffer = io.BytesIO()
        torch.save({**checkpoint, "vidreason": self.config}, buffer)
        with write_atomic(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint of this model; `weights_only` is always true.

        Raises:
            DataError: If the file is damaged, of another program or of another model.
        """
        weights = Path(path).suffix == ".safetensors"
        checkpoint = read_weights(Path(path), self.model) if weights else _read(Path(path))
        stored = current(checkpoint["vidreason"])
        fix = "give the configuration and checkpoint of one run"
        for name in sorted(self.fixed):
            here, there = str(self.config[name]), str(stored.get(name, "(not set)"))
            if here != there:
                raise DataError(path, f"made with {name}={there}, not {here}", fix)
        state = self.model.state_dict()
        shapes = [
            {name: tuple(value.shape) for name, value in weights.items()}
            for weights in (checkpoint["state_dict"], state)
        ]
        for name in {**shapes[1], **shapes[0]}:
            there, here = (str(shape.get(name, "missing")) for shape in shapes)
            if here != there:
                raise DataError(path, f"weight {name} is {there}, the model's is {here}", fix)
        _check_finite(path, checkpoint["state_dict"])
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Removes one file."""
        Path(path).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    fix = "give another checkpoint"
    try:
        # torch does not verify the checksums of its own archive.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise DataError(path, "is damaged (wrong checksum)", fix, damaged)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # zipfile and torch raise anything on a damaged file
        if type(error).__name__ == "UnpicklingError":
            problem = "holds more than tensors and plain values, so it was not loaded"
        else:
            problem = f"is damaged or not a checkpoint ({type(error).__name__})"
        raise DataError(path, problem, fix) from None
    parts = {"vidreason": dict, "state_dict": dict, "pytorch-lightning_version": str}
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(name), kind) for name, kind in parts.items()
    ):
        raise DataError(path, "is not a checkpoint of vidreason", fix)
    if not all(isinstance(value, Tensor) for value in checkpoint["state_dict"].values()):
        raise DataError(path, "has weights that are not tensors", fix)
    return checkpoint


def _check_finite(path: Any, weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if not value.isfinite().all():
            fix = "train with a smaller model.lr or with trainer.gradient_clip_val"
            raise DataError(path, f"weight {name} is not finite", fix)


class RunFolder(Checkpoint):
    """Writes the run folder, and makes every step a function of (state, seed, epoch, batch).

    It is a `Checkpoint` because Lightning calls these callbacks last: what is saved includes the
    state of the other callbacks at the end of the epoch.

    Args:
        folder: Run folder.
        config: Text of `config.yaml`.
        command: Command line, for `run.json`.
        seed: Seed of the run.
    """

    def __init__(self, folder: Path, config: str, command: str, seed: int) -> None:
        self.folder, self.config, self.command, self.seed = folder, config, command, seed
        self.best: float | None = None
        self.best_epoch = -1
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes `config.yaml` and `run.json`, once data and checkpoint have been read."""
        if not trainer.is_global_zero:
            return
        for folder in (self.folder, *(p for p in self.folder.glob("*") if p.is_dir())):
            sweep(folder)
        packages = ("torch", "pytorch-lightning", "torch-geometric", "pyro-ppl")
        run = {
            "command": self.command,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "versions": {
                "vidreason": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in packages},
            },
        }
        for name, text in (("config.yaml", self.config), ("run.json", json.dumps(run, indent=1))):
            with write_atomic(self.folder / name) as temporary:
                temporary.write_text(text.rstrip() + "\n", "utf-8")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Updates checkpoints, and draws the sample order of a resumed run's first epoch again.

        Lightning requests the first batches from worker processes before it restores the epoch.
        """
        epoch, resumed = trainer.current_epoch, trainer.ckpt_path
        kept = self.folder / "checkpoints"
        if resumed and trainer.is_global_zero:
            if Path(resumed) == kept / "previous.ckpt":
                # Otherwise the damaged `last.ckpt` would be kept as the previous one.
                _copy(Path(resumed), kept / "last.ckpt")
            if self.best_epoch == epoch - 1:
                # The run may have been stopped before the copy.
                _copy(Path(resumed), kept / "best.ckpt")
        set_epoch = getattr(getattr(trainer.train_dataloader, "sampler", None), "set_epoch", None)
        if epoch and set_epoch:
            set_epoch(epoch)
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds dropout and noise, so that checkpoints need no generator states.

        Not once per epoch: Lightning skips that hook in the first epoch after resuming.
        """
        numbers = np.random.SeedSequence((self.seed, trainer.current_epoch, batch_idx))
        torch.manual_seed(int(numbers.generate_state(1)[0]))

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Stops before a loss that is not finite reaches the weights.

        Raises:
            DataError: If the loss is not finite, with epoch and step.
        """
        if not loss.isfinite():
            place = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
            fix = "lower model.lr or set trainer.gradient_clip_val"
            raise DataError("training", f"the loss is {loss.item()}", fix, place)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the row of metrics, `last.ckpt`, and `best.ckpt` if the epoch is the best so far.

        The preceding checkpoint is kept as `previous.ckpt`, in case the new one gets damaged.
        """
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate, **metrics}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write_rows()
        score = metrics.get(str(pl_module.monitor))  # None before the first validation
        if score is not None and math.isnan(score):
            problem, fix = f"{pl_module.monitor} is undefined", "validate on both classes"
            raise DataError("validation", problem, fix)
        sign = -1 if pl_module.monitor_mode == "min" else 1
        best = score is not None and (self.best is None or sign * score > sign * self.best)
        if best:
            self.best, self.best_epoch = score, trainer.current_epoch
        kept = self.folder / "checkpoints"
        if trainer.is_global_zero and (kept / "last.ckpt").exists():
            _copy(kept / "last.ckpt", kept / "previous.ckpt")
        trainer.save_checkpoint(kept / "last.ckpt")
        # After `last`, so that a run with a `best` can always be resumed.
        if trainer.is_global_zero and best:
            _copy(kept / "last.ckpt", kept / "best.ckpt")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the best score and its checkpoint."""
        if self.best is not None and trainer.is_global_zero:
            best = self.folder / "checkpoints" / "best.ckpt"
            print(f"best {pl_module.monitor} {self.best:.4g}: {best}")

    def _write_rows(self) -> None:
        path = self.folder / "metrics.csv"
        with write_atomic(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list({name: None for row in self.rows for name in row}))
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best score, its epoch, and a copy of the table of metrics.

        The table is stored because its file can be damaged, or one row ahead of the checkpoint.
        """
        return {"best": self.best, "best_epoch": self.best_epoch, "rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.best, self.best_epoch = state_dict["best"], state_dict.get("best_epoch", -1)
        self.rows = list(state_dict.get("rows", []))  # missing in older checkpoints


def _copy(path: Path, to: Path) -> None:
    with write_atomic(to) as temporary:
        shutil.copyfile(path, temporary)
