"""Metrics of one forecaster at every horizon, with the resamples that their intervals come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidreason.intent.metrics import Resamples, draw, interval, measure


@dataclass(frozen=True)
class Scores:
    """Metrics at each of H horizons, with R resamples.

    Attributes:
        horizon: (H,) frames ahead; 0 is the event.
        rows: (H,) forecasts.
        people: Pedestrians.
        value: (H,) by metric.
        samples: (H, R) by metric.
    """

    horizon: np.ndarray
    rows: np.ndarray
    people: int
    value: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]

    def mean(self, name: str, other: "Scores | None" = None) -> dict[str, Any]:
        """A metric, or its difference from that of `other`: mean over horizons, and interval."""
        value, samples = self.value[name], self.samples[name]
        if other:
            value, samples = value - other.value[name], samples - other.samples[name]
        low, high, left_out = interval(samples.mean(0))
        return {**numbers(value.mean(), low, high), "left_out": left_out}

    def curve(self, name: str) -> np.ndarray:
        """A metric by horizon: value, low and high (3, H)."""
        ends = np.array([interval(samples)[:2] for samples in self.samples[name]])
        return np.stack([self.value[name], *ends.T])

    def json(self) -> dict[str, Any]:
        """All of it, in plain types."""
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
    """Scores forecasts at threshold 0.5 and at the one chosen on validation.

    Args:
        rows: `probability`, `label`, `horizon` and `cluster` (n,).
        threshold: The one chosen on validation.
        resamples: R, of the clusters.
        seed: Of the resampling; the same clusters and seed give the same resamples.
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
    """Plain numbers; undefined ones are None, which JSON has a word for."""
    named = {"value": value, **dict(zip(("low", "high"), ends, strict=False)), **more}
    return {key: None if np.isnan(number) else float(number) for key, number in named.items()}
