"""Plots of curves and metrics, in the colour-blind-safe palette of Okabe and Ito."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from vidreason.core.colours import COLOURS
from vidreason.core.files import write_atomic
from vidreason.intent.metrics import average_precision, brier, roc_auc

matplotlib.use("Agg")
STYLES = ("-", "--", "-.", ":")
BINS = 10

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Probabilities and labels (n,) by the name in the legend."""


def roc(path: Path, curves: Curves, title: str) -> None:
    """Plots the receiver operating characteristic, with its area in the legend."""
    figure, axes = _figure(title, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="chance, AUC 0.500")
    for i, (name, (prob, label)) in enumerate(curves.items()):
        fpr, tpr, _ = roc_curve(label, prob)
        axes.plot(fpr, tpr, label=f"{name}, AUC {roc_auc(prob, label):.3f}", **_style(i))
    axes.set_aspect("equal")
    _save(figure, axes, path)


def precision_recall(path: Path, curves: Curves, title: str) -> None:
    """Plots precision over recall, with the average precision in the legend."""
    figure, axes = _figure(title, "recall", "precision")
    share = float(np.mean(next(iter(curves.values()))[1]))
    axes.axhline(share, color="0.7", linewidth=1, label=f"always positive, AP {share:.3f}")
    for i, (name, (prob, label)) in enumerate(curves.items()):
        precision, recall, _ = precision_recall_curve(label, prob)
        ap = average_precision(prob, label)
        axes.step(recall, precision, where="post", label=f"{name}, AP {ap:.3f}", **_style(i))
    axes.set_aspect("equal")
    _save(figure, axes, path)


def calibration(path: Path, curves: Curves, title: str) -> None:
    """Plots the fraction of positives over the probability; below, a histogram of probabilities.

    Bins with fewer than 1 % of the predictions are drawn as hollow dots: their values are noisy.
    """
    figure, axes = _figure(title, "", "fraction crossing", below=True)
    below = figure.axes[1]
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect calibration")
    edges = np.linspace(0, 1, BINS + 1)
    for i, (name, (prob, label)) in enumerate(curves.items()):
        bins = np.minimum((prob * BINS).astype(int), BINS - 1)
        count = np.bincount(bins, minlength=BINS)
        used = count > 0
        x, y = (np.bincount(bins, v, BINS)[used] / count[used] for v in (prob, label * 1.0))
        axes.plot(x, y, label=f"{name}, Brier {brier(prob, label):.3f}", **_style(i))
        few, colour = count[used] < 0.01 * len(prob), _style(i)["color"]
        axes.scatter(x, y, s=22, c=np.where(few, "white", colour), edgecolor=colour, zorder=3)
        below.stairs(count / len(prob), edges, **_style(i))
    below.set_xlabel("predicted probability of crossing")
    below.set_ylabel("fraction of\npredictions")
    below.grid(alpha=0.3)
    below.set_ylim(bottom=0)
    _save(figure, axes, path)


def horizons(
    path: Path,
    lines: Mapping[str, np.ndarray],
    frames: np.ndarray,
    title: str,
    ylabel: str,
) -> None:
    """Plots a metric over the prediction horizon.

    Args:
        path: Output file, PNG or SVG.
        lines: Metric and its confidence interval (3, H), i.e. value, low, high, by model.
        frames: (H,) frames ahead.
        title: Title.
        ylabel: Name of the metric.
    """
    figure, axes = _figure(title, "frames ahead", ylabel)
    for i, (name, (value, low, high)) in enumerate(lines.items()):
        style = _style(i)
        axes.plot(frames, value, label=f"{name}, mean {np.mean(value):.3f}", **style)
        axes.fill_between(frames, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axes.set_xlim(frames[0], frames[-1])
    lowest = min(np.min(line[np.isfinite(line)], initial=1) for line in lines.values())
    axes.set_ylim(np.floor(lowest * 20) / 20, 1.0)
    _save(figure, axes, path)


def levels(path: Path, rows: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> None:
    """Plots ROC AUC with its confidence interval by subgroup, one mark per model.

    Args:
        path: Output file, PNG or SVG.
        rows: Value, low and high (3, L) by model; NaN is not drawn.
        names: Names of the L subgroups.
        title: Title.
    """
    figure = Figure(figsize=(5.2, 1.2 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        shift = (i - (len(rows) - 1) / 2) * 0.6 / max(len(rows), 1)
        ends = np.abs(np.stack([value - low, high - value]))
        colour = COLOURS[i % len(COLOURS)]
        axes.errorbar(value, place + shift, xerr=ends, fmt="o", color=colour, label=name, capsize=2)
    axes.axvline(0.5, color="0.7", linewidth=1)
    axes.set(title=title, xlabel="ROC AUC", yticks=place, yticklabels=names, xlim=(0.2, 1.01))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
    _save(figure, axes, path)


def by_frame(
    path: Path, lines: Mapping[str, np.ndarray], first: int, title: str, ylabel: str
) -> None:
    """Plots a quantity over the frames of a clip.

    Args:
        path: Output file, PNG or SVG.
        lines: Values (L,) by model.
        first: Number of the first frame.
        title: Title.
        ylabel: Name of the quantity.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(lines.items()):
        axes.plot(first + np.arange(len(values)), values, label=name, marker=".", **_style(i))
    axes.set(title=title, xlabel="frame", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _save(figure, axes, path)


def _style(i: int) -> dict:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}


def _figure(title: str, xlabel: str, ylabel: str, below: bool = False) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 6.5 if below else 5.2), layout="constrained")
    ratios = [4, 1] if below else [1]
    axes = figure.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)[0, 0]
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.005))
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend(fontsize="small", loc="best")
    with write_atomic(path) as temporary:
        # Without it, an SVG contains the time and is never the same file twice.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, dpi=150, metadata=metadata)
