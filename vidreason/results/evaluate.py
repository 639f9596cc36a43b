"""Evaluation of runs: metrics with confidence intervals, as JSON values, files and figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidreason.core.files import progress, write_atomic
from vidreason.intent.intervals import numbers
from vidreason.intent.predictions import Predictions
from vidreason.results.figures import draw
from vidreason.results.scoring import (
    Differences,
    ScoredRun,
    differences,
    read_runs,
    score_run,
    split_masks,
)

_VARIES = ("seed", "threshold", "version")  # between runs that are averaged


class Evaluation(NamedTuple):
    """Scores of runs, and their differences from a reference run.

    Attributes:
        runs: Scored runs by name.
        reference: Name and predictions of the run that the others are compared with.
        differences: Differences from the reference by name of the run; empty without reference.
        boot: Number of bootstrap resamples, and their random seed.
    """

    runs: dict[str, ScoredRun]
    reference: tuple[str, Predictions] | None
    differences: dict[str, Differences]
    boot: tuple[int, int]

    def json(self) -> dict[str, Any]:
        """Returns the contents of `metrics.json`."""
        return {
            "resamples": self.boot[0],
            "seed": self.boot[1],
            "runs": {name: self._run(name) for name in self.runs},
            "seeds": seed_means(self.runs),
        }

    def _run(self, name: str) -> dict[str, Any]:
        predictions, _, scores = self.runs[name]
        report: dict[str, Any] = {
            "file": str(predictions.source),
            "oracle": predictions.oracle,
            "meta": predictions.meta,
            "splits": {
                split: {
                    "n_expected": expected_rows(predictions, split),
                    "scores": {model: s.json() for model, s in models.items()},
                }
                for split, models in scores.items()
            },
        }
        if self.reference:
            other, found = self.reference[1], self.differences[name]
            report["against"] = {
                "file": str(other.source),
                "oracle": other.oracle,
                "n": found.common,
                "only_here": found.only_here,
                "only_there": found.only_there,
                "splits": {split: changes for split, (changes, _, _) in found.splits.items()},
            }
        return report


def evaluate(
    inputs: Sequence[Path],
    root: Path | None = None,
    against: Path | None = None,
    boot: tuple[int, int] = (1000, 0),
    allow_missing: bool = False,
) -> Evaluation:
    """Scores runs and baselines, and compares the runs with a reference run.

    Args:
        inputs: Run folders or predictions files.
        root: Dataset folder, for the baselines; `$VIDREASON_DATA/DATASET` if not given.
        against: Reference run that each input is compared with, on the same bootstrap resamples.
        boot: Number of bootstrap resamples, and their random seed.
        allow_missing: Whether to skip rows present in only one of the runs.

    Raises:
        DataError: Predictions are missing or damaged, or do not belong together.
    """
    runs = read_runs(inputs, root)
    reference = next(iter(read_runs([against], root).items())) if against else None
    scored, changes = {}, {}
    with progress() as bar:
        for name, predictions in bar.track(runs.items(), description="scoring"):
            scored[name] = score_run(name, predictions, root, boot)
            if reference:
                changes[name] = differences(predictions, reference[1], boot, allow_missing)
    return Evaluation(scored, reference, changes, boot)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Writes `metrics.json` and figures into a folder."""
    text = json.dumps(evaluation.json(), indent=1, allow_nan=False) + "\n"
    with write_atomic(out / "metrics.json") as temporary:
        temporary.write_text(text, "utf-8")
    draw(out, evaluation.runs)


def seed_means(runs: Mapping[str, ScoredRun]) -> list[dict[str, Any]]:
    """Returns mean and standard deviation of each metric over runs that differ in the seed only.

    Returns:
        Per group of runs and split: `runs`, `seeds`, `split` and `metrics`.
    """
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        meta = run.predictions.meta
        if {"seed", "config"} <= meta.keys():
            rest = {k: v for k, v in meta.items() if k not in _VARIES}
            groups.setdefault(json.dumps(rest, sort_keys=True), []).append(name)
    found = []
    for names in groups.values():
        seeds = sorted({runs[name].predictions.meta["seed"] for name in names})
        if len(seeds) < 2 or len(seeds) < len(names):
            continue
        for split in runs[names[0]].scores:
            scores = [runs[name].scores[split][name] for name in names]
            entry: dict[str, Any] = {"runs": names, "seeds": seeds, "split": split, "metrics": {}}
            for key in scores[0].value:
                values = np.array([s.value[key].mean() for s in scores])
                entry["metrics"][key] = numbers(values.mean(), sd=values.std(ddof=1))
            found.append(entry)
    return found


def expected_rows(predictions: Predictions, split: str) -> int | None:
    """Returns the number of rows a split should have; None for a part of an incomplete file."""
    if split == "all":
        return int(predictions.meta["n_expected"])
    complete = len(predictions.table) == predictions.meta["n_expected"]
    return int(split_masks(predictions)[split].sum()) if complete else None
