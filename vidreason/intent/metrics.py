"""Binary classification metrics, with a bootstrap clustered by pedestrian.

Every metric is `f(prob, label, weight=None)` with probabilities (n,) in [0, 1] and labels (n,) of 0
or 1. Metrics of decisions also take `threshold`: a row is predicted positive if `prob >=
threshold`. The weight is None, (n,) numbers, or `Resamples`; the latter give one value per
resample, by the same formula, so that point estimates and intervals agree. Undefined values (a
single class) are NaN.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from vidreason.core.errors import DataError

Array = np.ndarray
BINS = 15
_BLOCK = 2**17  # scores x resamples per block: small enough for the cache


class Resamples(NamedTuple):
    """Bootstrap resamples: how often each of C clusters of rows was drawn.

    Attributes:
        times: (R, C) float counts, or (C,) for a single resample.
        cluster: (n,) int from 0 to C - 1, the cluster of each row.
    """

    times: np.ndarray
    cluster: np.ndarray


Weight = np.ndarray | Resamples | None


class Metric(NamedTuple):
    """A metric and its properties."""

    function: Callable[..., np.ndarray]
    higher_is_better: bool
    needs_threshold: bool


def draw(cluster: np.ndarray, resamples: int, seed: int = 0) -> Resamples:
    """Draws bootstrap resamples of clusters, with replacement.

    The windows of one pedestrian are nearly identical; resampling rows as if they were independent
    would make intervals several times too narrow.

    Args:
        cluster: (n,) int from 0 to C - 1, the cluster of each row.
        resamples: Number R of resamples.
        seed: Seed of the draws.
    """
    count = int(cluster.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return Resamples(times.astype(np.float64), cluster)


def _decision_metric(formula: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Decorates a formula on (weighted) confusion counts tn, fp, fn and tp to be a metric."""

    def metric(
        prob: np.ndarray, label: np.ndarray, weight: Weight = None, threshold: float = 0.5
    ) -> np.ndarray:
        prob, label = _checked(prob, label)
        cells = _totals(2 * label + (prob >= threshold), 4, weight)
        return formula(*np.moveaxis(cells, -1, 0))

    metric.__name__, metric.__doc__ = formula.__name__, formula.__doc__
    metric.formula = formula  # type: ignore[attr-defined]
    return metric


@_decision_metric
def accuracy(tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
    """Fraction of correct decisions."""
    return (tp + tn) / (tn + fp + fn + tp)


@_decision_metric
def balanced_accuracy(tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
    """Mean of the recalls of both classes.

    The WACV 2021 benchmark reports this value as "AUC", because it computes `roc_auc_score` on
    rounded scores; `roc_auc` is the area under the actual curve.
    """
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


@_decision_metric
def precision(tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
    """Fraction of positives among the predicted positives; 0 if there are none."""
    return tp / np.where(tp + fp > 0, tp + fp, 1)


@_decision_metric
def recall(tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
    """Fraction of the positives that are predicted positive."""
    return _ratio(tp, tp + fn)


@_decision_metric
def f1(tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
    """Harmonic mean of precision and recall of the positive class."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def roc_auc(prob: np.ndarray, label: np.ndarray, weight: Weight = None) -> np.ndarray:
    """Area under the ROC curve: probability that a positive outranks a negative, ties half."""
    return _ranking(prob, label, weight)[0]


def average_precision(prob: np.ndarray, label: np.ndarray, weight: Weight = None) -> np.ndarray:
    """Average precision: precision at each distinct score, weighted by the gain in recall."""
    return _ranking(prob, label, weight)[1]


def brier(prob: np.ndarray, label: np.ndarray, weight: Weight = None) -> np.ndarray:
    """Brier score: mean squared difference between probability and label."""
    prob, label = _checked(prob, label)
    cell = np.zeros_like(label)
    return _totals(cell, 1, weight, (prob - label) ** 2)[..., 0] / _totals(cell, 1, weight)[..., 0]


def calibration_error(prob: np.ndarray, label: np.ndarray, weight: Weight = None) -> np.ndarray:
    """Expected calibration error over 15 bins of equal width.

    Mean absolute difference between the mean probability and the fraction of positives of a bin,
    weighted by the rows in it. Bins include their lower edge, the last one also 1.
    """
    prob, label = _checked(prob, label)
    cell = np.minimum((prob * BINS).astype(np.int64), BINS - 1)
    gap = np.abs(_totals(cell, BINS, weight, prob - label)).sum(-1)
    return gap / _totals(cell, BINS, weight).sum(-1)


METRICS = {
    "accuracy": Metric(accuracy, True, True),
    "balanced_accuracy": Metric(balanced_accuracy, True, True),
    "f1": Metric(f1, True, True),
    "precision": Metric(precision, True, True),
    "recall": Metric(recall, True, True),
    "roc_auc": Metric(roc_auc, True, False),
    "average_precision": Metric(average_precision, True, False),
    "brier": Metric(brier, False, False),
    "calibration_error": Metric(calibration_error, False, False),
}


def measure(
    prob: np.ndarray,
    label: np.ndarray,
    weight: Weight = None,
    thresholds: Mapping[str, float] = {"0.5": 0.5},  # noqa: B006
) -> dict[str, np.ndarray]:
    """Computes every metric, at every threshold.

    Args:
        prob: (n,) probabilities in [0, 1].
        label: (n,) labels, 0 or 1.
        weight: None, (n,) weights, or `Resamples`.
        thresholds: Decision thresholds by name.

    Returns:
        Values by the names in `METRICS`; decision metrics are named `metric@threshold_name`. Each
        is a scalar, or (R,) for resamples, and NaN where there is a single class.

    Raises:
        DataError: If a probability or label is invalid.
    """
    # Both metrics share one pass over the ranking.
    auc, ap = _ranking(prob, label, weight)
    known = {"roc_auc": auc, "average_precision": ap}
    values = {}
    for name, metric in METRICS.items():
        if metric.needs_threshold:
            for key, cut in thresholds.items():
                values[f"{name}@{key}"] = metric.function(prob, label, weight, cut)
        else:
            values[name] = known[name] if name in known else metric.function(prob, label, weight)
    return {name: np.where(np.isnan(auc), np.nan, value)[()] for name, value in values.items()}


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float, int]:
    """Returns the percentile interval of bootstrapped values.

    Args:
        samples: (R,) values; NaN ones are left out.
        level: Confidence level.

    Returns:
        Low end, high end, and the number of values left out.
    """
    kept = samples[~np.isnan(samples)]
    if not len(kept):
        return float("nan"), float("nan"), len(samples)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), len(samples) - len(kept)


def best_threshold(
    prob: np.ndarray,
    label: np.ndarray,
    objective: str = "accuracy",
    prior: float | None = None,
) -> float:
    """Returns the threshold that maximises a metric; of equally good ones, the closest to 0.5.

    Args:
        prob: (n,) probabilities in [0, 1] of the validation split.
        label: (n,) labels, 0 or 1.
        objective: Name from `METRICS` of a metric that needs a threshold.
        prior: Fraction of positives to reweight the rows to; as given if None.

    Raises:
        DataError: If the metric is undefined on these labels.
    """
    prob, label = _checked(prob, label)
    score, rank = np.unique(prob, return_inverse=True)
    # Cut k predicts score k and all above it positive; it is half way to the score below, or to 0.
    bounds = np.concatenate([[0.0], score, [1.0]])
    cut = (bounds[1:] + bounds[:-1]) / 2
    below = np.bincount(2 * rank + label, minlength=2 * len(score)).reshape(-1, 2).cumsum(0)
    tn, fn = np.vstack([[0, 0], below]).T.astype(np.float64)
    formula = METRICS[objective].function.formula  # type: ignore[attr-defined]
    if prior is not None:
        tn, fn = tn * (1 - prior) / max(tn[-1], 1), fn * prior / max(fn[-1], 1)
    value = formula(tn, tn[-1] - tn, fn, fn[-1] - fn)
    if score[-1] == 1:
        value[-1] = np.nan  # no threshold excludes a score of 1
    best = cut[value == np.nanmax(np.append(value, -1))]
    if not len(best):
        raise DataError(objective, "undefined on these labels", "use labels of both classes")
    return float(best[np.argmin(np.abs(best - 0.5))])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole > 0, whole, np.nan)


def _checked(prob: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prob, label = np.asarray(prob, np.float64), np.asarray(label)
    fix = "evaluate the predictions of a finished run"
    if not len(prob) or prob.shape != label.shape:
        raise DataError("scores", f"{prob.shape} scores for {label.shape} labels", fix)
    if not ((prob >= 0) & (prob <= 1)).all():  # NaN compares false
        raise DataError("scores", "a probability is NaN or not in [0, 1]", fix)
    if not ((label == 0) | (label == 1)).all():
        raise DataError("scores", "a label is neither 0 nor 1", fix)
    return prob, label.astype(np.int64)


def _resamples(weight: Weight, n: int) -> Resamples:
    if isinstance(weight, Resamples):
        return weight
    if weight is None:
        return Resamples(np.ones(1), np.zeros(n, np.int64))
    return Resamples(np.asarray(weight, np.float64), np.arange(n))


def _totals(
    cell: np.ndarray, cells: int, weight: Weight, value: np.ndarray | None = None
) -> np.ndarray:
    """Returns weighted sums of `value` (or of ones) by cell, (cells,) or (R, cells)."""
    times, cluster = _resamples(weight, len(cell))
    sums = np.bincount(cluster * cells + cell, value, times.shape[-1] * cells)
    return times @ sums.reshape(-1, cells).astype(np.float64)


def _ranking(prob: np.ndarray, label: np.ndarray, weight: Weight) -> tuple[np.ndarray, np.ndarray]:
    """Returns the area under the ROC curve and the average precision, from one ranking pass.

    Rows are first counted by distinct score and cluster, so that one sort serves all resamples and
    ties cost nothing. The pass runs in blocks of scores, which bounds the memory.
    """
    prob, label = _checked(prob, label)
    times, cluster = _resamples(weight, len(prob))
    score, rank = np.unique(-prob, return_inverse=True)
    shape = (len(score), times.shape[-1])
    everyone = sparse.csr_array((np.ones(len(prob)), (rank, cluster)), shape)
    positive = sparse.csr_array((label.astype(np.float64), (rank, cluster)), shape)
    positive.eliminate_zeros()
    drawn = np.ascontiguousarray(np.atleast_2d(times).T)  # (C, R)
    above, hit, area, ap = np.zeros((4, drawn.shape[1]))
    step = max(1, _BLOCK // drawn.shape[1])
    for start in range(0, len(score), step):
        gain = positive[start : start + step] @ drawn
        all_gain = everyone[start : start + step] @ drawn
        # A positive outranks the negatives below it and half of those with the same score.
        hits, aboves = hit + np.cumsum(gain, 0), above + np.cumsum(all_gain, 0)
        area += np.einsum("kr,kr->r", hits - gain / 2, all_gain - gain)
        ap += np.einsum("kr,kr->r", gain, hits / np.maximum(aboves, np.finfo(float).tiny))
        hit, above = hits[-1], aboves[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        auc, ap = area / (hit * (above - hit)), ap / hit
    return auc.reshape(times.shape[:-1])[()], ap.reshape(times.shape[:-1])[()]
