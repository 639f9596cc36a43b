"""Metrics of one model at every horizon, with bootstrap confidence intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidreason.intent.metrics import Resamples, draw, interval, measure


@dataclass(frozen=True)
class Scores:
    """Metrics at each of H horizons, with R bootstrap resamples.

    Attributes:
        horizon: (H,) int, frames ahead; 0 is the event.
        rows: (H,) int, number of predictions.
        people: Number of pedestrians.
        value: (H,) point estimates by metric.
        samples: (H, R) resampled values by metric.
    """

    horizon: np.ndarray
    rows: np.ndarray
    people: int
    value: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]

    def mean(self, name: str, other: "Scores | None" = None) -> dict[str, Any]:
        """Returns the mean of a metric over the horizons, with its confidence interval.

        Args:
            name: Name of the metric.
            other: Scores from which to return the paired difference; the same resamples.

        Returns:
            `value`, `low` and `high` (95 %), None if undefined, and `left_out`, the number of
            undefined resamples.
        """
        value, samples = self.value[name], self.samples[name]
        if other:
            value, samples = value - other.value[name], samples - other.samples[name]
        low, high, left_out = interval(samples.mean(0))
        return {**numbers(value.mean(), low, high), "left_out": left_out}

    def curve(self, name: str) -> np.ndarray:
        """Returns a metric by horizon, (3, H): value, and low and high end of its interval."""
        ends = np.array([interval(samples)[:2] for samples in self.samples[name]])
        return np.stack([self.value[name], *ends.T])

    def json(self) -> dict[str, Any]:
        """Returns all scores in plain types, for JSON."""
        text: dict[str, Any] = {"n": int(self.rows.sum()), "pedestrians": self.people}
        text["metrics"] = {name: self.mean(name) for name in self.value}
        if len(self.horizon) > 1:
            text["horizons"] = {
                "frames": self.horizon.tolist(),
                "n": self.rows.tolist(),
                "metrics": {
                    name: [numbers(*point) for point in self.curve(name).T] for name in self.value
                },
            }
        return text


def score(
    rows: Mapping[str, np.ndarray], threshold: float, resamples: int, seed: int = 0
) -> Scores:
    """Scores predictions at threshold 0.5 and at the one chosen on the validation split.

    Args:
        rows: `probability`, `label`, `horizon` and `cluster`, (n,) each.
        threshold: Threshold chosen on the validation split.
        resamples: Number R of bootstrap resamples of the clusters.
        seed: Seed of the resampling; equal clusters and seeds give equal resamples.
    """
    names, cluster = np.unique(rows["cluster"], return_inverse=True)
    drawn = draw(cluster, resamples, seed).times
    horizons, count = np.unique(rows["horizon"], return_counts=True)
    points, samples = [], []
    for horizon in horizons:
        at = rows["horizon"] == horizon
        args = rows["probability"][at], rows["label"][at]
        cuts = {"0.5": 0.5, "validation": threshold}
        points.append(measure(*args, None, cuts))
        samples.append(measure(*args, Resamples(drawn, cluster[at]), cuts))
    value, spread = (
        {name: np.stack([p[name] for p in parts]) for name in parts[0]}
        for parts in (points, samples)
    )
    return Scores(horizons, count, len(names), value, spread)


def numbers(value: float, *ends: float, **more: float) -> dict[str, float | None]:
    """Returns plain numbers by name; NaN becomes None, which JSON can hold."""
    named = {"value": value, **dict(zip(("low", "high"), ends, strict=False)), **more}
    return {key: None if np.isnan(number) else float(number) for key, number in named.items()}
