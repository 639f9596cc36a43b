"""`IntentTask`: trains and applies a network that predicts crossings from scene graphs."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import HeteroData

from vidreason.core import processes
from vidreason.core.averaging import moving_average
from vidreason.core.errors import DataError, check_ranges
from vidreason.intent.data import Graphs, IntentData
from vidreason.intent.features import NEAR, is_oracle
from vidreason.intent.metrics import (
    accuracy,
    average_precision,
    balanced_accuracy,
    best_threshold,
    f1,
    roc_auc,
)
from vidreason.intent.predictions import prediction_columns, write_predictions

_CHUNK = 256  # windows per batch in `forecast` and `influence`


class IntentTask(pl.LightningModule):
    """Lightning module that trains with binary cross-entropy on all labels.

    Validation, testing and prediction use the exponential moving average of the weights and the K
    predicted columns. With folds, validation includes every training window, predicted out-of-fold
    by the member that was trained without it. The decision threshold is chosen on the validation
    windows after every epoch and stored with the weights; testing and prediction use it unchanged.

    Args:
        net: Network from graphs of B windows to logits (B, T + K), or (M, B, T + K [+ A]) for an
            ensemble of M members: T detections in the observed steps, K predictions, A tags.
        protocol: Protocol of the data. The best epoch is chosen by AUROC, or by accuracy for
            `stip`.
        horizon: Number K of predicted columns.
        folds: Number of folds of the data; if more than 1, the network needs as many members.
        lr: Maximum learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        schedule: Learning rate schedule: one cycle (Smith 2018) over the whole training, or
            constant.
        balanced: Whether to weight both classes of the predictions equally, by their frequency in
            the training split.
        detection_weight: Weight of the loss in the observed steps.
        tag_weight: Weight of the loss on the tags.
        prior: Fraction of crossings for which to choose the threshold; that of the validation split
            if not given.
        average: Decay per step of the moving average of the weights; 0 uses the latest weights.

    Raises:
        DataError: If an option is out of range, or `folds` does not match the network.
    """

    threshold: Tensor
    prevalence: Tensor

    def __init__(
        self,
        net: nn.Module,
        protocol: str = "benchmark",
        horizon: int = 1,
        folds: int = 1,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        schedule: Literal["one_cycle", "constant"] = "one_cycle",
        balanced: bool = True,
        detection_weight: float = 0.5,
        tag_weight: float = 0.5,
        prior: float | None = None,
        average: float = 0.99,
    ) -> None:
        super().__init__()
        check_ranges(
            "model",
            ("lr", lr, 1e-12, 1e3),
            ("weight_decay", weight_decay, 0, 1e3),
            ("detection_weight", detection_weight, 0, 1e3),
            ("tag_weight", tag_weight, 0, 1e3),
            ("average", average, 0, 1 - 1e-9),
            ("prior", 0.5 if prior is None else prior, 1e-9, 1 - 1e-9),
        )
        members = getattr(net, "members", 1)
        if folds not in (1, members):
            problem = f"{folds} for a network of {members} members"
            raise DataError("data.folds", problem, "set it to 1 or to model.net.members")
        self.net, self.horizon, self.balanced = net, horizon, balanced
        self.lr, self.weight_decay, self.schedule = lr, weight_decay, schedule
        self.detection_weight, self.tag_weight = detection_weight, tag_weight

        self.averaged = moving_average(net, average)
        stip = protocol == "stip"
        self.monitor, self.monitor_mode = ("val/acc" if stip else "val/auc"), "max"
        self.objective, self.prior = ("accuracy" if stip else "f1"), prior
        self.register_buffer("threshold", torch.tensor(0.5))
        self.register_buffer("prevalence", torch.tensor(0.5))
        self._seen: list[tuple[Tensor, Tensor]] = []
        self.tested: dict[str, Any] = {}

    def configure_optimizers(self) -> Any:
        """Returns AdamW and its schedule, which advances per step to resume with equal rates."""
        weights = self.net.parameters()
        optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=self.weight_decay)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            problem = "must be set for the one-cycle schedule"
            raise DataError(
                "trainer.max_epochs", problem, "set it, or set model.schedule to constant"
            )
        # A cycle has at least two steps.
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=max(2, int(steps)), pct_start=0.15
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_fit_start(self) -> None:
        """Computes the fraction of crossings among the training labels."""
        if self.balanced:
            label = self.trainer.datamodule.windows["train"].label[:, -self.horizon :]  # type: ignore[attr-defined]
            share = float((label[label >= 0] == 1).mean()) if (label >= 0).any() else 0.0
            if not 0 < share < 1:
                problem = f"{share:.0%} of the training labels are crossings"
                raise DataError(
                    "data", problem, "use a larger split, or set model.balanced to false"
                )
            self.prevalence.fill_(share)

    def on_train_batch_end(self, *_: Any) -> None:
        """Updates the moving average of the weights."""
        self.averaged.update_parameters(self.net)

    def loss(self, logits: Tensor, graph: HeteroData) -> Tensor:
        """Returns the loss, summed over the members, in nats.

        Each member adds its mean losses on predictions, detections and tags.

        Args:
            logits: (M, B, T + K) or, with tags, (M, B, T + K + A).
            graph: Graphs with the labels `y` (B, T + K) and `tags` (B, A), NaN where unknown, and
                `fold` (B,), the member that holds a window out; -1 for none.
        """
        label = torch.cat([graph.y, graph.tags], 1)[:, : logits.shape[-1]]
        member = torch.arange(len(logits), device=logits.device)
        used = (member[:, None] != graph.fold)[..., None] & ~label.isnan()
        label = label.nan_to_num(0.0).expand_as(logits)
        # Masked before the loss as well: NaN times 0 is NaN.
        logits = logits.where(used, 0.0)
        loss = binary_cross_entropy_with_logits(logits, label, reduction="none") * used

        def mean(part: Tensor, used: Tensor) -> Tensor:
            # Over the samples of all processes, whose gradients are averaged, not summed.
            count = processes.total(used.sum((1, 2))).clamp(min=1) / processes.count()
            return (part.sum((1, 2)) / count).sum()

        steps = graph.y.shape[1] - self.horizon
        parts = [steps, self.horizon, logits.shape[-1] - graph.y.shape[1]]
        detected, predicted, tagged = loss.split(parts, -1)
        used_parts = used.split(parts, -1)
        crosses = label[..., steps : steps + self.horizon] > 0.5
        weight = torch.where(crosses, 0.5 / self.prevalence, 0.5 / (1 - self.prevalence))
        return (
            mean(predicted * weight, used_parts[1])
            + self.detection_weight * mean(detected, used_parts[0])
            + self.tag_weight * mean(tagged, used_parts[2])
        )

    def _logits(self, net: nn.Module, graph: HeteroData) -> Tensor:
        """Returns logits (M, B, T + K [+ A])."""
        logits = net(graph).float()
        return logits if logits.dim() == 3 else logits[None]

    def _probability(self, logits: Tensor, graph: HeteroData) -> Tensor:
        """Returns the out-of-fold ensemble mean of the predicted columns, (B, K).

        Raises:
            DataError: If a logit is NaN.
        """
        steps = graph.y.shape[1] - self.horizon
        probability = logits[..., steps : graph.y.shape[1]].sigmoid()
        if not (finite := probability.isfinite().all(2).all(0)).all():
            window = int(graph.window[~finite][0])
            problem, fix = "the network returned NaN", "train again with a smaller learning rate"
            raise DataError("model", problem, fix, f"window {window}")
        member = torch.arange(len(logits), device=logits.device)
        unseen = ((graph.fold < 0) | (graph.fold == member[:, None])).float()[..., None]
        return (probability * unseen).sum(0) / unseen.sum(0)

    def training_step(self, graph: HeteroData) -> Tensor:
        """Returns the loss of a batch."""
        loss = self.loss(self._logits(self.net, graph), graph)
        windows = int(processes.total(torch.tensor(len(graph.window), device=self.device)))
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=windows, sync_dist=True
        )
        return loss

    def validation_step(self, graph: HeteroData, batch: int, dataloader_idx: int = 0) -> None:
        """Collects the probabilities of a batch for `on_validation_epoch_end`."""
        self._collect(graph)

    def test_step(self, graph: HeteroData) -> None:
        """Collects the probabilities of a batch for `on_test_epoch_end`."""
        self._collect(graph)

    def _collect(self, graph: HeteroData) -> None:
        logits = self._logits(self.averaged.module, graph)
        probability = self._probability(logits, graph)
        label = graph.y[:, -self.horizon :]
        known = ~label.isnan()
        self._seen.append((probability[known].cpu(), label[known].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Chooses the threshold and logs the metrics with it."""
        # The few batches of a sanity check may hold a single class.
        if self.trainer.sanity_checking:
            self._seen.clear()
        else:
            self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics with the threshold from validation."""
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        probability, label = (torch.cat(part).numpy() for part in zip(*self._seen, strict=True))
        self._seen.clear()
        if split == "val":
            self.threshold.fill_(best_threshold(probability, label, self.objective, self.prior))
        cut = float(self.threshold)
        values = {
            "auc": roc_auc(probability, label),
            "ap": average_precision(probability, label),
            "f1": f1(probability, label, threshold=cut),
            "balanced_accuracy": balanced_accuracy(probability, label, threshold=cut),
            "acc": accuracy(probability, label, threshold=cut),
        }
        if split == "test":
            metrics = {name: round(float(value), 4) for name, value in values.items()}
            self.tested = {"on": {"forecasts": len(label)}, "metrics": metrics}
        for name, value in values.items():
            name = f"{split}/{name}"
            self.log(name, float(value), prog_bar=name == self.monitor)

    def predict_step(self, graph: HeteroData) -> dict[str, Tensor]:
        """Predicts a batch.

        Returns:
            `window` (B,), index into the windows of the data, and `probability` (B, K) float32.
        """
        probability = self._probability(self._logits(self.averaged.module, graph), graph)
        return {"window": graph.window, "probability": probability}

    @torch.inference_mode()
    def forecast(self, graphs: Graphs, rows: np.ndarray | None = None) -> np.ndarray:
        """Predicts windows; the task must be in `eval` mode.

        Args:
            graphs: Graphs from `IntentData.graphs`.
            rows: (W,) indices of the windows; all if not given.

        Returns:
            (W, K) float32 crossing probabilities.
        """
        rows = np.arange(len(graphs)) if rows is None else rows
        parts = [np.empty((0, self.horizon), np.float32)]
        for start in range(0, len(rows), _CHUNK):
            graph = graphs.__getitems__(rows[start : start + _CHUNK].tolist())
            parts.append(self.predict_step(graph.to(self.device))["probability"].cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def influence(
        self, graphs: Graphs, rows: np.ndarray, probability: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the influence of each neighbour: the change of the prediction without its edge.

        Unlike the weights of a gate, this is signed and available for any network.

        Args:
            graphs: Graphs from `IntentData.graphs`.
            rows: (W,) indices of the windows.
            probability: (W, K) predictions of `forecast` for these windows.

        Returns:
            For E edges, the position in `rows` (E,), the neighbour's track in the concatenated
            tracks of all scenes (E,), and the change of the probabilities (E, K), positive where
            the neighbour raises them.
        """
        builder = graphs.builder
        count = builder.others_ptr[rows + 1] - builder.others_ptr[rows]
        place = np.repeat(np.arange(len(rows)), count)
        nth = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        sender = builder.others[builder.others_ptr[rows[place]] + nth]
        without = [np.empty((0, self.horizon), np.float32)]
        for start in range(0, len(place), _CHUNK):
            part = slice(start, start + _CHUNK)
            graph = graphs.__getitems__(rows[place[part]].tolist())
            # Copy i of a window loses the edge of its nth[i] neighbour.
            person, near = graph["person"], graph[NEAR]
            other = torch.from_numpy(nth[part])
            node = person.ptr[:-1] + 1 + other
            edge = node - 1 - torch.arange(len(other))  # copies have one node more than edges
            for columns, at in ((person, node), (near, edge)):
                columns.valid[at] = False
            person.x[node], near.edge_attr[edge] = 0, 0
            if "image" in person:
                person.image[node] = 0
            without.append(self.predict_step(graph.to(self.device))["probability"].cpu().numpy())
        return place, sender, probability[place] - np.concatenate(without)

    def write_predictions(
        self,
        folder: Path,
        batches: Sequence[Mapping[str, Tensor]],
        data: IntentData,
        config: Mapping[str, Any],
    ) -> Path:
        """Writes the results of `predict_step` to `predictions.parquet`.

        The file of another split than `test` is named `predictions-SPLIT.parquet`.

        Args:
            folder: Run folder.
            batches: All results of `predict_step`.
            data: Data module of the graphs.
            config: Configuration of the run; without `seed_everything`, it identifies runs that
                differ only by seed.

        Returns:
            The path of the file.
        """
        split = data.predict_split
        row = torch.cat([batch["window"] for batch in batches]).cpu().numpy()
        probability = torch.cat([batch["probability"] for batch in batches]).cpu().numpy()
        windows = data.windows[split]
        same = {key: value for key, value in config.items() if key != "seed_everything"}
        meta = {
            "dataset": data.dataset,
            "protocol": data.protocol,
            "observed": data.observed,
            "subset": data.subset,
            "split": split,
            "features": list(data.features),
            "oracle": is_oracle(data.features),
            "threshold": float(self.threshold),
            "n_expected": int(np.sum(windows.label[:, windows.observed :] >= 0)),
            "seed": config["seed_everything"],
            "config": hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16],
        }
        name = "predictions" if split == "test" else f"predictions-{split}"
        columns = prediction_columns(windows.take(row), data.scenes[split], probability)
        write_predictions(folder / f"{name}.parquet", columns, meta)
        return folder / f"{name}.parquet"
