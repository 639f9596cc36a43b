"""Scores of runs and baselines, and paired differences between runs.

Confidence intervals come from a bootstrap over pedestrians, not over windows: windows of one
pedestrian are nearly identical.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidreason.core.errors import DataError
from vidreason.intent.baselines import score_baselines
from vidreason.intent.intervals import Scores, score
from vidreason.intent.metrics import METRICS
from vidreason.intent.predictions import Predictions, match, read_predictions


class ScoredRun(NamedTuple):
    """The predictions of a run with its scores and those of the baselines.

    Attributes:
        predictions: Predictions of the run, n rows.
        baselines: Probabilities (n,) of crossing and the decision threshold, by baseline.
        scores: Scores by split (`all`, `clean`) and model; the run comes first.
    """

    predictions: Predictions
    baselines: dict[str, tuple[np.ndarray, float]]
    scores: dict[str, dict[str, Scores]]


class Differences(NamedTuple):
    """Differences between two runs on the rows that both have.

    Attributes:
        common: Number of rows in both.
        only_here: Number of rows in the first run only.
        only_there: Number of rows in the second run only.
        splits: By split: the difference of each metric with its confidence interval, the number
            of pedestrians and the number of rows.
    """

    common: int
    only_here: int
    only_there: int
    splits: dict[str, tuple[dict[str, dict[str, Any]], int, int]]


def predictions_file(path: Path, root: Path | None) -> Path:
    """Returns the predictions file of a run; predicts the test split if there is none yet.

    Args:
        path: Run folder, or a predictions file, which is returned as it is.
        root: Dataset folder.

    Raises:
        DataError: A folder that is not a run, or is the run of a decomposition.
    """
    if not path.is_dir():
        return path
    file = path / "predictions.parquet"
    if not file.exists():
        if not (path / "checkpoints").is_dir():
            problem = f"contains neither {file.name} nor checkpoints"
            raise DataError(path, problem, "give a run folder or a predictions file")
        config = path / "config.yaml"
        if config.is_file() and "DecomposeTask" in config.read_text("utf-8"):
            problem = "is a decomposition run, which has no crossing predictions"
            raise DataError(path, problem, "score it with `vidreason test --run`")
        # Imported here: it takes seconds, and existing predictions need none of it.
        train = importlib.import_module("vidreason.runs.train")
        data = ["--data.root", str(root)] if root else []
        train.main(["predict", "--run", str(path), "--data.predict_split", "test", *data])
    return file


def read_runs(paths: Sequence[Path], root: Path | None) -> dict[str, Predictions]:
    """Reads the predictions of runs.

    Args:
        paths: Run folders or predictions files.
        root: Dataset folder.

    Returns:
        Predictions by name: that of the folder or file where it is unique, else the path; the
        names of oracles end in `(ORACLE)`.

    Raises:
        DataError: A file is missing or damaged, or a run is given twice.
    """
    short = [p.parent.name if p.stem.startswith("predictions") else p.stem for p in paths]
    short = [p.resolve().name if p.is_dir() else s for p, s in zip(paths, short, strict=True)]
    runs = {}
    for path, name in zip(paths, short, strict=True):
        predictions = read_predictions(predictions_file(path, root))
        name = name if name and short.count(name) == 1 else str(path)
        if (name := name + " (ORACLE)" * predictions.oracle) in runs:
            raise DataError(path, "is given twice", "give every run once")
        runs[name] = predictions
    return runs


def split_masks(predictions: Predictions) -> dict[str, np.ndarray]:
    """Returns boolean masks (n,) of the rows in each split: `all`, and `clean` if it differs."""
    splits = {"all": np.ones(len(predictions.table), bool)}
    if predictions.meta["protocol"] == "benchmark" and not predictions["clean"].all():
        splits["clean"] = predictions["clean"]
    return {name: mask for name, mask in splits.items() if mask.any()}


def score_run(
    name: str, predictions: Predictions, root: Path | None, boot: tuple[int, int]
) -> ScoredRun:
    """Scores a run and the baselines on its rows.

    Args:
        name: Name of the run.
        predictions: Predictions of the run.
        root: Dataset folder; without a dataset there are no baselines.
        boot: Number of bootstrap resamples, and their random seed.

    Raises:
        DataError: The predictions are not of this dataset.
    """
    baselines = score_baselines(predictions, root)
    models = {name: (predictions["probability"], predictions.meta["threshold"]), **baselines}
    rows = {"label": predictions["label"], "horizon": predictions["horizon"]}
    rows["cluster"] = predictions.cluster
    scores = {
        split: {
            model: score({k: v[mask] for k, v in (rows | {"probability": p}).items()}, cut, *boot)
            for model, (p, cut) in models.items()
        }
        for split, mask in split_masks(predictions).items()
    }
    return ScoredRun(predictions, baselines, scores)


def differences(
    one: Predictions, other: Predictions, boot: tuple[int, int], allow_missing: bool = False
) -> Differences:
    """Computes paired differences, `one` minus `other`, on the same bootstrap resamples.

    Args:
        one: Predictions of the first run.
        other: Predictions of the second run for the same rows.
        boot: Number of bootstrap resamples, and their random seed.
        allow_missing: Whether rows that only one run has are left out instead of refused.

    Raises:
        DataError: Rows or labels differ.
    """
    left, right = match(one.table, other.table)
    missing, extra = len(one.table) - len(left), len(other.table) - len(left)
    if not len(left) or ((missing or extra) and not allow_missing):
        problem = f"{len(left)} predictions in common, {missing} only in {one.source}, "
        problem += f"{extra} only in the other"
        fix = "compare runs on one split" if not len(left) else "or pass --allow-missing"
        raise DataError(other.source, problem, fix)
    if (one["label"][left] != other["label"][right]).any():
        fix = "compare runs on one dataset and protocol"
        raise DataError(other.source, f"labels differ from those of {one.source}", fix)
    splits = {}
    for split, mask in split_masks(one).items():
        kept = mask[left]
        rows = {key: one[key][left][kept] for key in ("label", "horizon")}
        rows["cluster"] = one.cluster[left][kept]
        mine, theirs = (
            score(rows | {"probability": p[kept]}, run.meta["threshold"], *boot)
            for run, p in (
                (one, one["probability"][left]),
                (other, other["probability"][right]),
            )
        )
        changes = {key: mine.mean(key, theirs) for key in mine.value}
        splits[split] = changes, mine.people, int(mine.rows.sum())
    return Differences(len(left), missing, extra, splits)


def verdict(key: str, change: dict[str, Any]) -> str:
    """Returns what the confidence interval of a difference says.

    Args:
        key: Metric, such as `f1@validation`.
        change: Difference with the ends of its interval: `value`, `low`, `high`.

    Returns:
        `better` or `worse` if the interval excludes 0, else `undecided`; `no difference` if the
        difference, or the whole interval, is 0 to the digits that are printed.
    """
    if change["low"] is None:
        return "undecided"
    value, low, high = (round(change[end], 3) for end in ("value", "low", "high"))
    if change["low"] * change["high"] <= 0:
        return "undecided" if low or high else "no difference"
    if not value:
        return "no difference"
    sign = 1 if METRICS[key.partition("@")[0]].higher_is_better else -1
    return "better" if change["low"] * sign > 0 else "worse"


def task_name(predictions: Predictions, split: str) -> str:
    """Returns dataset, protocol, horizon, subset and split, such as `jaad stip 30 all test, all`.

    Runs with the same name are compared with each other.
    """
    meta = predictions.meta
    steps = f" {predictions['horizon'].max()}" if meta["protocol"] == "stip" else ""
    part = f"{meta['dataset']} {meta['protocol']}{steps} {meta['subset']} {meta['split']}"
    return f"{part}, {split}"


def metric_name(key: str, threshold: bool = False) -> str:
    """Returns the name of a metric for tables: `f1@0.5` is `F1`, or `F1 at 0.5`."""
    name, at, cut = key.partition("@")
    known = {"f1": "F1", "roc_auc": "ROC AUC", "brier": "Brier score"}
    return known.get(name, name.replace("_", " ")) + f" at {cut}" * bool(at and threshold)


def format_interval(numbers: dict[str, Any], short: bool = False) -> str:
    """Returns a value with its confidence interval: `0.750 [0.700, 0.800]`.

    Args:
        numbers: `value`, `low` and `high`; None where undefined.
        short: Whether the interval is left out.
    """
    if numbers["value"] is None:
        return "undefined"
    # z: a negative number that rounds to 0 is printed without its sign.
    if short or numbers["low"] is None:
        return f"{numbers['value']:z.3f}"
    return "{value:z.3f} [{low:z.3f}, {high:z.3f}]".format(**numbers)
