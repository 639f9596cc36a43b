"""The public Python interface, offered by `import vidreason as vr` without importing torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from vidreason.core.errors import DataError
from vidreason.decomposition.clip import Decomposition
from vidreason.decomposition.task import DecomposeTask
from vidreason.intent.datasets import dataset_root, read_split, split_windows
from vidreason.intent.features import feature_names
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import Windows
from vidreason.results.evaluate import evaluate as evaluate_runs
from vidreason.runs.train import load_with_data
from vidreason.scenes.scene import Scene


def read_scenes(
    dataset: str,
    root: Path | str | None = None,
    split: str | None = None,
    protocol: str = "benchmark",
) -> list[Scene]:
    """Reads the videos of a driving dataset as scenes.

    Args:
        dataset: `jaad`, `pie`, `stip`, `stip-all-views`, `stip-20fps`, or `boxes` (custom
            tables).
        root: Dataset folder; `$VIDREASON_DATA/DATASET` if not given.
        split: `train`, `val` or `test`; all videos if not given.
        protocol: Evaluation protocol that defines the split: `benchmark`, `benchmark-clean` or
            `stip`. On JAAD they differ.

    Returns:
        One `Scene` per video, in the order of their names.

    Raises:
        DataError: The dataset is unknown, or its files are missing or damaged.

    Example:
        >>> import vidreason as vr
        >>> scenes = vr.read_scenes("jaad", "data/jaad", split="test")
        >>> boxes = scenes[0].boxes()
        >>> list(boxes.columns[:8])
        ['track', 'frame', 'x1', 'y1', 'x2', 'y2', 'kind', 'occlusion']
        >>> crossing = boxes[boxes.cross == "crossing"].groupby("track").size()
    """
    return read_split(dataset, dataset_root(dataset, root), protocol, split)


def windows(
    scenes: Sequence[Scene],
    protocol: str = "benchmark",
    subset: str = "all",
    horizon: int = 30,
    stride: int = 0,
    observed: int = 0,
    dataset: str = "jaad",
) -> Windows:
    """Cuts tracks into observation windows with labels, as an evaluation protocol defines them.

    Args:
        scenes: Videos of one split.
        protocol: `benchmark` (Kotseruba et al., WACV 2021: 16 observed boxes, event 30 to 60
            frames ahead), `benchmark-clean` (the same without positives that are already crossing)
            or `stip` (Liu et al., RA-L 2020: the state in each of the coming frames).
        subset: `beh`, pedestrians with behaviour annotations; `all`, bystanders too; `place`, the
            lane ahead of the ego vehicle.
        horizon: Predicted frames K of the `stip` protocol; 1 in the others.
        stride: Boxes between consecutive windows; 0 uses the protocol's default.
        observed: Observed boxes T of the `stip` protocol; 0 uses 30.
        dataset: Dataset whose conventions for subset and stride apply.

    Returns:
        W windows in columns; `windows.take(rows)` selects some of them.

    Raises:
        DataError: The protocol or subset is unknown, or they are incompatible.

    Example:
        >>> import vidreason as vr
        >>> scenes = vr.read_scenes("jaad", "data/jaad", split="test")
        >>> windows = vr.windows(scenes, protocol="benchmark", subset="beh")
        >>> windows.label.shape == (len(windows), 16 + 1)
        True
    """
    return split_windows(dataset, scenes, protocol, subset, horizon, stride, observed)


def graphs(
    scenes: Sequence[Scene],
    windows: Windows,
    features: Sequence[str] = ("box", "neighbours"),
) -> HeteroData:
    """Builds the scene graphs of windows: one star of nodes around every target pedestrian.

    Time is an axis of every node and edge, so the graphs of W windows are one `HeteroData`.
    `graph["person"].x` is (N, T, C); nodes `graph["person"].ptr[w]` are the targets, the other
    persons and objects of window w follow them. `graph["person", "near", "person"].edge_attr` is
    (E, T, D), `graph.y` holds the labels (W, T + K), NaN where unknown.

    Args:
        scenes: The scenes that `windows` was made from.
        windows: W windows of T observed boxes.
        features: Feature groups: `box`, `neighbours`, `ego`, `traffic`, `orientation`, `objects`,
            `odometry`. Groups named `oracle_…` leak the label.

    Returns:
        The batched graph. `graph.feature_names` maps each node and edge type to the names of its
        columns, in order.

    Raises:
        DataError: A feature group is unknown.

    Example:
        >>> import vidreason as vr
        >>> scenes = vr.read_scenes("jaad", "data/jaad", split="test")
        >>> windows = vr.windows(scenes)
        >>> graph = vr.graphs(scenes, windows, features=("box", "neighbours", "ego"))
        >>> graph["person"].x.shape[-1] == len(graph.feature_names["person"])
        True
    """
    graph = GraphBuilder(scenes, windows, features)(np.arange(len(windows)))
    graph.feature_names = feature_names(features)
    return graph


def load(name: Path | str, root: Path | str | None = None) -> pl.LightningModule:
    """Loads a trained model, ready to be applied.

    Args:
        name: Name of shipped weights (`jaad_all`, `jaad_all_boxes`, `moving_mnist`), a run folder,
            a folder of `vidreason export`, or `user/model` on the Hugging Face hub.
        root: Dataset folder for `task.data`, if it differs from that in training.

    Returns:
        An `IntentTask` or a `DecomposeTask` in evaluation mode. `task.data` is its data module,
        which has not read anything yet. `IntentTask.forecast` gives probabilities (W, K),
        `DecomposeTask.decompose` and `.sample` decompositions and futures.

    Raises:
        DataError: There is no such model, or its files are damaged.

    Example:
        >>> import vidreason as vr
        >>> task = vr.load("jaad_all_boxes")
        >>> scenes = vr.read_scenes("jaad", "data/jaad", split="test")
        >>> windows = vr.windows(scenes)
        >>> probability = task.forecast(task.data.graphs(scenes, windows))
        >>> probability.shape == (len(windows), 1)
        True
    """
    task, data = load_with_data(name, Path(root) if root else None)
    task.data = data  # type: ignore[assignment]
    return task


def decompose(
    frames: np.ndarray | Tensor,
    weights: Path | str | DecomposeTask = "moving_mnist",
    predict: int = 10,
) -> Decomposition:
    """Decomposes clips into components with constant appearance and moving pose, and predicts.

    Args:
        frames: Input frames, (T, H, W), (B, T, H, W) or (B, T, C, H, W): integers from 0 to 255 or
            floats from 0 to 1, with the size and number of frames the model was trained on
            (`moving_mnist`: 10 frames of 64 x 64 pixels, white objects on black).
        weights: What `load` accepts, or a loaded `DecomposeTask`.
        predict: Number of frames to predict; `moving_mnist` predicts up to 10.

    Returns:
        Reconstructed and predicted frames, the components, their positions (pixels) and window
        sizes, as CPU tensors with L = T + `predict` frames.

    Raises:
        DataError: `weights` is not a decomposition model, or `frames` do not fit it.

    Example:
        >>> import numpy as np
        >>> import vidreason as vr
        >>> frames = np.zeros((10, 64, 64), np.uint8)
        >>> for t in range(10):
        ...     frames[t, 10 + 2 * t : 20 + 2 * t, 20:26] = 255
        >>> found = vr.decompose(frames, predict=5)
        >>> found.components.shape  # clips, frames, components, channels, height, width
        torch.Size([1, 15, 2, 1, 64, 64])
    """
    task = weights if isinstance(weights, DecomposeTask) else load(weights)
    if not isinstance(task, DecomposeTask):
        raise DataError("weights", f"{weights} predict intent", "give a decomposition model")
    with torch.inference_mode():
        found = task.decompose(_clips(frames).to(task.device), predict)
    return Decomposition(*(part.cpu() for part in found))


def _clips(frames: np.ndarray | Tensor) -> Tensor:
    """Frames as float32 in [0, 1], (B, T, C, H, W)."""
    clips = torch.as_tensor(frames)
    if clips.dim() not in (3, 4, 5):
        problem = f"have shape {tuple(clips.shape)}"
        raise DataError("frames", problem, "give (T, H, W), (B, T, H, W) or (B, T, C, H, W)")
    if clips.dim() < 5:
        clips = clips.reshape(-1, *clips.shape[-3:])[:, :, None]
    whole = not clips.is_floating_point()
    clips = clips.float() / 255 if whole else clips.float()
    if not ((clips >= 0) & (clips <= 1)).all():  # also false for NaN
        problem = "hold values that are NaN or outside their range"
        raise DataError("frames", problem, "give integers from 0 to 255 or floats from 0 to 1")
    return clips


def evaluate(
    inputs: Sequence[Path | str] | Path | str,
    root: Path | str | None = None,
    against: Path | str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores predictions with confidence intervals, next to baselines on the same windows.

    Intervals resample pedestrians, not windows. A run without a predictions file predicts its test
    split first, and keeps that file.

    Args:
        inputs: Run folders or predictions files (Parquet).
        root: Dataset folder, for the baselines; without it and without `$VIDREASON_DATA` there are
            none.
        against: Run or predictions file to compare each input with, in pairs.
        bootstrap: Number of resamples.
        seed: Random seed of the resampling.

    Returns:
        The contents of `metrics.json` as `vidreason evaluate` writes it: per run, split and model
        each metric with `value`, `low` and `high` (95 %).

    Raises:
        DataError: A file is missing or damaged, or runs do not share their windows.

    Example:
        >>> import vidreason as vr
        >>> report = vr.evaluate("runs/first", root="data/jaad", bootstrap=100)
        >>> scores = report["runs"]["first"]["splits"]["all"]["scores"]["first"]
        >>> auc = scores["metrics"]["roc_auc"]
        >>> auc["low"] <= auc["value"] <= auc["high"]
        True
    """
    paths = [inputs] if isinstance(inputs, str | Path) else inputs
    other = Path(against) if against else None
    found = evaluate_runs(
        [Path(path) for path in paths], Path(root) if root else None, other, (bootstrap, seed)
    )
    return found.json()
