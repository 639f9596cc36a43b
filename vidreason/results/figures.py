"""Figures of an evaluation: runs of one task together, with the baselines of the first."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidreason.intent.baselines import COUNTS, TREES
from vidreason.results import plots
from vidreason.results.scoring import ScoredRun, metric_name, split_masks, task_name

_CURVES = {
    "roc": plots.roc,
    "pr": plots.precision_recall,
    "calibration": plots.calibration,
}


class Drawn(NamedTuple):
    """A figure with its numbers.

    Attributes:
        path: Image file.
        kind: `roc`, `pr`, `calibration` or `horizons`.
        title: Title, with the number of predictions.
        curves: Probabilities and labels (n,) by model; empty for `horizons`.
        lines: Metric and its interval (3, H), i.e. value, low, high, by model; for `horizons` only.
        frames: (H,) prediction horizons, frames.
    """

    path: Path
    kind: str
    title: str
    curves: plots.Curves
    lines: Mapping[str, np.ndarray]
    frames: np.ndarray


def draw(out: Path, runs: Mapping[str, ScoredRun], suffix: str = ".png") -> list[Drawn]:
    """Draws ROC, precision-recall and calibration curves, and metrics over the horizon.

    Args:
        out: Output folder.
        runs: Scored runs by name.
        suffix: Format of the figures: `.png` or `.svg`.
    """
    drawn: list[Drawn] = []
    tasks: dict[tuple[str, str], dict[str, ScoredRun]] = {}
    for name, run in runs.items():
        for split in run.scores:
            tasks.setdefault((task_name(run.predictions, split), split), {})[name] = run
    for (task, split), group in tasks.items():
        first = next(iter(group.values()))
        frames = next(iter(first.scores[split].values())).horizon
        models = {name: (r.predictions, r.predictions["probability"]) for name, r in group.items()}
        models |= {k: (first.predictions, p) for k, (p, _) in first.baselines.items() if k == TREES}
        curves = {}
        for name, (predictions, probability) in models.items():
            at = split_masks(predictions)[split] & (predictions["horizon"] == frames[-1])
            if 0 < predictions["label"][at].mean() < 1:
                curves[name] = probability[at], predictions["label"][at]
        stem = str(out / task.replace(", ", "-").replace(" ", "-"))
        if curves:
            n = len(next(iter(curves.values()))[0])
            title = task + f", {frames[-1]} frames ahead" * bool(frames[-1]) + f" (n = {n})"
            for kind, plot in _CURVES.items():
                path = Path(f"{stem}-{kind}{suffix}")
                plot(path, curves, title)
                drawn.append(Drawn(path, kind, title, curves, {}, frames[-1:]))
        if len(frames) == 1:
            continue
        baselines = [
            k for k in first.baselines if k in (TREES, COUNTS, "majority") or "persist" in k
        ]
        for key in ("accuracy@0.5", "roc_auc"):
            lines = {name: run.scores[split][name].curve(key) for name, run in group.items()}
            lines |= {k: first.scores[split][k].curve(key) for k in baselines}
            path = Path(f"{stem}-{metric_name(key).replace(' ', '-').lower()}-by-time{suffix}")
            plots.horizons(path, lines, frames, task, metric_name(key, True))
            title = f"{task}: {metric_name(key, True)}"
            drawn.append(Drawn(path, "horizons", title, {}, lines, frames))
    return drawn
