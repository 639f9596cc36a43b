"""Metrics, against scikit-learn and by hand, and their bootstrap."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from vidreason.core.errors import DataError
from vidreason.intent import metrics
from vidreason.intent.metrics import METRICS, Resamples, best_threshold, draw, interval, measure

NEEDS_THRESHOLD = [name for name, metric in METRICS.items() if metric.needs_threshold]


def sample(seed, n=60, decimals=1):
    """Returns probabilities with many ties, correlated labels and small integer weights."""
    rng = np.random.default_rng(seed)
    label = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    prob = np.clip(rng.normal(0.4 + 0.2 * label, 0.25), 0, 1).round(decimals)
    return prob, label, rng.integers(0, 4, n) + (np.arange(n) < 2)


def reference_calibration_error(prob, label, weight):
    total = 0.0
    for k in range(15):
        last = k == 14
        inside = (prob >= k / 15) & ((prob <= 1) if last else (prob < (k + 1) / 15))
        w = weight[inside]
        if w.sum():
            gap = np.average(prob[inside], weights=w) - np.average(label[inside], weights=w)
            total += w.sum() / weight.sum() * abs(gap)
    return total


REFERENCE = {
    "accuracy": lambda y, p, w: reference.accuracy_score(y, p >= 0.5, sample_weight=w),
    "balanced_accuracy": lambda y, p, w: reference.roc_auc_score(y, p >= 0.5, sample_weight=w),
    "f1": lambda y, p, w: reference.f1_score(y, p >= 0.5, sample_weight=w),
    "precision": lambda y, p, w: reference.precision_score(y, p >= 0.5, sample_weight=w),
    "recall": lambda y, p, w: reference.recall_score(y, p >= 0.5, sample_weight=w),
    "roc_auc": lambda y, p, w: reference.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, w: reference.average_precision_score(y, p, sample_weight=w),
    "brier": lambda y, p, w: reference.brier_score_loss(y, p, sample_weight=w),
    "calibration_error": lambda y, p, w: reference_calibration_error(p, y, w),
}


def test_metrics_of_five_rows_by_hand():
    prob = np.array([0.9, 0.8, 0.5, 0.3, 0.1])
    label = np.array([1, 0, 1, 0, 0])
    expected = {
        "accuracy": 4 / 5,
        "balanced_accuracy": (2 / 2 + 2 / 3) / 2,
        "f1": 4 / 5,
        "precision": 2 / 3,
        "recall": 1,
        "roc_auc": 5 / 6,  # of six pairs, only 0.5 < 0.8 is in the wrong order
        "average_precision": (1 / 1 + 2 / 3) / 2,
        "brier": (0.01 + 0.64 + 0.25 + 0.09 + 0.01) / 5,
        "calibration_error": (0.1 + 0.8 + 0.5 + 0.3 + 0.1) / 5,  # each row is in a bin of its own
    }
    assert {n: m.function(prob, label) for n, m in METRICS.items()} == pytest.approx(expected)


def test_ties_count_half_in_roc_auc():
    assert metrics.roc_auc(np.array([0.5, 0.5, 0.5]), np.array([1, 0, 0])) == 0.5
    assert metrics.roc_auc(np.array([0.5, 0.5, 0.1]), np.array([1, 0, 0])) == 0.75


def test_threshold_is_inclusive():
    prob, label = np.array([0.4, 0.6]), np.array([0, 1])
    assert metrics.recall(prob, label, threshold=0.6) == 1
    assert metrics.recall(prob, label, threshold=np.nextafter(0.6, 1)) == 0


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("decimals", [1, 9])
def test_metrics_equal_scikit_learn_and_weights_equal_repeated_rows(name, decimals):
    for seed in range(3):
        prob, label, weight = sample(seed, decimals=decimals)
        function = METRICS[name].function
        assert function(prob, label) == pytest.approx(REFERENCE[name](label, prob, np.ones(60)))
        fraction = weight * 0.37
        assert function(prob, label, fraction) == pytest.approx(
            REFERENCE[name](label, prob, fraction)
        )
        repeated = np.repeat(prob, weight), np.repeat(label, weight)
        assert function(prob, label, weight) == pytest.approx(function(*repeated))


def test_resamples_equal_repeated_rows_of_the_drawn_clusters(monkeypatch):
    prob, label, _ = sample(1, n=80, decimals=2)
    cluster = np.random.default_rng(1).permutation(np.arange(80) % 9)
    resamples = draw(cluster, 12, seed=3)
    assert (resamples.times.sum(1) == 9).all()
    monkeypatch.setattr(metrics, "_BLOCK", 60)  # several blocks, the last one smaller
    fast = measure(prob, label, resamples, {"0.5": 0.5, "low": 0.3})
    for r, times in enumerate(resamples.times.astype(int)):
        rows = np.concatenate(
            [np.flatnonzero(cluster == c) for c, n in enumerate(times) for _ in range(n)]
        )
        slow = measure(prob[rows], label[rows], None, {"0.5": 0.5, "low": 0.3})
        assert {name: value[r] for name, value in fast.items()} == pytest.approx(slow)


def test_resamples_of_one_class_are_left_out_and_counted():
    prob, label = np.array([0.9, 0.2, 0.6]), np.array([1, 0, 1])
    times = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0], [0, 1, 2]], float)
    values = measure(prob, label, Resamples(times, np.arange(3)))
    for name, value in values.items():
        assert np.isnan(value).tolist() == [False, True, True, False], name
    assert interval(values["roc_auc"]) == (1, 1, 2)
    low, high, left_out = interval(np.full(3, np.nan))
    assert np.isnan([low, high]).all() and left_out == 3


def test_interval_is_the_central_part_of_the_samples():
    low, high, left_out = interval(np.arange(1001) / 1000, level=0.9)
    assert (low, high, left_out) == (pytest.approx(0.05), pytest.approx(0.95), 0)


def test_draws_depend_only_on_the_seed():
    cluster = np.array([0, 0, 1, 2, 2])
    assert (draw(cluster, 5, 1).times == draw(cluster[::-1], 5, 1).times).all()
    assert (draw(cluster, 5, 1).times != draw(cluster, 5, 2).times).any()


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_invariances_of_metrics(seed):
    prob, label, weight = sample(seed, n=30)
    values = measure(prob, label, weight)
    order = np.random.default_rng(seed).permutation(30)
    assert measure(prob[order], label[order], weight[order]) == pytest.approx(values, nan_ok=True)
    # Ranking metrics are invariant to increasing functions of the scores and to scaled weights.
    monotone = measure(prob**3 / 2, label, weight * 7.0)
    assert monotone["roc_auc"] == pytest.approx(values["roc_auc"])
    assert monotone["average_precision"] == pytest.approx(values["average_precision"])
    # Exchanging the classes does not change the ROC AUC.
    exchanged = metrics.roc_auc(1 - prob, 1 - label, weight)
    assert exchanged == pytest.approx(values["roc_auc"])


def test_metrics_that_need_both_classes_are_nan_for_one():
    prob, label = np.array([0.2, 0.7]), np.array([0, 0])
    assert all(np.isnan(value) for value in measure(prob, label).values())
    assert metrics.accuracy(prob, label) == 0.5
    assert np.isnan([metrics.roc_auc(prob, label), metrics.recall(prob, label)]).all()
    assert metrics.precision(np.array([0.1, 0.2]), np.array([0, 1])) == 0


@pytest.mark.parametrize("objective", NEEDS_THRESHOLD)
def test_best_threshold_maximises_its_objective(objective):
    for seed in range(8):
        prob, label, _ = sample(seed, n=25)
        function = METRICS[objective].function
        best = best_threshold(prob, label, objective)
        tried = [function(prob, label, threshold=t) for t in np.linspace(0, 1, 101)]
        assert function(prob, label, threshold=best) == pytest.approx(max(tried))


def test_best_threshold_is_half_way_between_scores_and_closest_to_one_half():
    assert best_threshold(np.array([0.2, 0.7, 0.9]), np.array([0, 1, 1])) == pytest.approx(0.45)
    # All or none positive are equally good: 0.1 is farther from 0.5 than 0.6.
    assert best_threshold(np.array([0.2, 0.2]), np.array([0, 1])) == pytest.approx(0.6)
    # No threshold in [0, 1] excludes a score of 1.
    assert best_threshold(np.array([1.0, 1.0]), np.array([0, 0])) == 0.5


@pytest.mark.parametrize(
    ("prob", "label", "words"),
    [
        ([np.nan, 0.5], [0, 1], "NaN or not in [0, 1]"),
        ([0.5, 1.5], [0, 1], "NaN or not in [0, 1]"),
        ([0.5, 0.5], [0, -1], "neither 0 nor 1"),
        ([0.5], [0, 1], "1,) scores for (2,) labels"),
        ([], [], "(0,) scores"),
    ],
)
@pytest.mark.parametrize("name", METRICS)
def test_invalid_probabilities_and_labels_are_refused(name, prob, label, words):
    with pytest.raises(DataError) as error:
        METRICS[name].function(np.array(prob), np.array(label))
    assert words in str(error.value)


def test_best_threshold_needs_labels_of_both_classes():
    with pytest.raises(DataError, match="labels of both classes"):
        best_threshold(np.array([0.2, 0.7]), np.array([0, 0]), "recall")


def test_best_threshold_for_another_prior_equals_that_of_reweighted_rows():
    rng = np.random.default_rng(0)
    label = (rng.random(400) < 0.8).astype(int)
    prob = np.clip(0.3 * label + 0.7 * rng.random(400), 0, 1)
    weight = np.where(label == 1, 0.5 / label.mean(), 0.5 / (1 - label.mean()))
    cut = metrics.best_threshold(prob, label, "f1", prior=0.5)
    others = [float(metrics.f1(prob, label, weight, threshold=t)) for t in np.unique(prob)]
    assert float(metrics.f1(prob, label, weight, threshold=cut)) == pytest.approx(max(others))
    assert cut > metrics.best_threshold(prob, label, "f1")
