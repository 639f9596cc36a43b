"""`vidreason evaluate`: forecasts to metrics with intervals, beside the baselines.

A figure never stands without the number of forecasts it is made of and the number there should
have been. Intervals come from resampling pedestrians, not windows.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.intent.baselines import COUNTS, TREES, beside
from vidreason.intent.intervals import Scores, numbers, score
from vidreason.intent.metrics import METRICS
from vidreason.intent.predictions import Predictions, match, read_predictions, write_predictions
from vidreason.results import plots

__all__ = ["add_arguments", "read_predictions", "run", "write_predictions"]

_SHORT = ("accuracy@0.5", "balanced_accuracy@0.5", "f1@0.5", "roc_auc", "average_precision")
_CURVES = {
    "roc": plots.roc,
    "pr": plots.precision_recall,
    "calibration": plots.calibration,
}
_VARIES = ("seed", "threshold", "version")  # between runs that are averaged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Scores forecasts: metrics with 95 % intervals (pedestrians are resampled), beside baselines
on the same windows. Prints tables, writes metrics.json and figures."""
    parser.epilog = """examples:
  vidreason evaluate runs/graph --root data/jaad
  vidreason evaluate runs/seed1 runs/seed2 runs/seed3      also mean and spread over seeds
  vidreason evaluate runs/graph --against runs/stip        also the paired difference"""
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="RUN", help="run folder or predictions file"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="dataset, for baselines ($VIDREASON_DATA/DATASET)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="for results (`evaluation` in the folder of the first)",
    )
    parser.add_argument(
        "--against", type=Path, metavar="RUN", help="compare every RUN with this one, in pairs"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="compare the forecasts that both have"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (0)")


class Judged(NamedTuple):
    """A run, who else forecasts its rows (probability and threshold), and all scores by split."""

    found: Predictions
    rivals: dict[str, tuple[np.ndarray, float]]
    scores: dict[str, dict[str, Scores]]


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.bootstrap < 1 or args.seed < 0:
        given = f"{args.bootstrap} and --seed {args.seed}"
        raise DataError("--bootstrap", given, "give a number from 1 and a seed from 0")
    # Away from a terminal nothing says how wide a line may be; a table needs more than 80.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False)
    boot = args.bootstrap, args.seed
    runs = read_all(args.inputs, args.root)
    others = read_all([args.against], args.root) if args.against else {}
    first = args.inputs[0]
    out = args.out or (first if first.is_dir() else first.parent) / "evaluation"
    judged, report = {}, {}
    for name, found in runs.items():
        with console.status(f"scoring {name}"):
            rivals = beside(found, args.root)
            judged[name] = Judged(found, rivals, judge(name, found, rivals, boot))
        report[name] = _print_run(console, judged[name])
        if not rivals:
            console.print("No baselines: they need the dataset; give `--root DIR`.\n")
        for other in others.items():
            report[name]["against"] = _compare(console, (name, found), other, args, boot)
    seeds = _print_seeds(console, judged)
    text = {"resamples": boot[0], "seed": boot[1], "runs": report, "seeds": seeds}
    with write_atomic(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(text, indent=1, allow_nan=False) + "\n", "utf-8")
    draw(out, judged)
    console.print(f"metrics.json and figures are in {out}")
    return 0


def locate(path: Path, root: Path | None) -> Path:
    """The predictions file that `path` is or holds; a run that has none yet makes it."""
    if not path.is_dir():
        return path
    file = path / "predictions.parquet"
    if not file.exists():
        if not (path / "checkpoints").is_dir():
            problem = f"holds neither {file.name} nor checkpoints"
            raise DataError(path, problem, "give the folder of a run, or a predictions file")
        config = path / "config.yaml"
        if config.is_file() and "DecomposeTask" in config.read_text("utf-8"):
            mend = "score it with `vidreason test --run`"
            raise DataError(path, "is a decomposition, not a forecast of intent", mend)
        # Imported here: it takes seconds, and finished predictions need none of it.
        train = importlib.import_module("vidreason.runs.train")
        data = ["--data.root", str(root)] if root else []
        train.main(["predict", "--run", str(path), "--data.predict_split", "test", *data])
    return file


def read_all(paths: list[Path], root: Path | None) -> dict[str, Predictions]:
    """Predictions by a name that is short where it can be; those of oracles say so."""
    short = [p.parent.name if p.stem.startswith("predictions") else p.stem for p in paths]
    short = [p.resolve().name if p.is_dir() else s for p, s in zip(paths, short, strict=True)]
    runs = {}
    for path, name in zip(paths, short, strict=True):
        found = read_predictions(locate(path, root))
        name = name if name and short.count(name) == 1 else str(path)
        if (name := name + " (ORACLE)" * found.oracle) in runs:
            raise DataError(path, "is given twice", "give every run once")
        runs[name] = found
    return runs


def masks_of(found: Predictions) -> dict[str, np.ndarray]:
    """Masks (n,) of the rows to report on."""
    splits = {"all": np.ones(len(found.table), bool)}
    if found.meta["protocol"] == "benchmark" and not found["clean"].all():
        splits["clean"] = found["clean"]
    return {name: mask for name, mask in splits.items() if mask.any()}


def judge(
    name: str, found: Predictions, rivals: dict[str, tuple[np.ndarray, float]], boot: tuple
) -> dict[str, dict[str, Scores]]:
    everyone = {name: (found["probability"], found.meta["threshold"]), **rivals}
    rows = {"label": found["label"], "horizon": found["horizon"], "cluster": found.cluster}
    return {
        split: {
            who: score({k: v[mask] for k, v in (rows | {"probability": p}).items()}, cut, *boot)
            for who, (p, cut) in everyone.items()
        }
        for split, mask in masks_of(found).items()
    }


def _expected(found: Predictions, split: str) -> int | None:
    """Rows the split should have; unknown for a part of an incomplete one."""
    if split == "all":
        return int(found.meta["n_expected"])
    complete = len(found.table) == found.meta["n_expected"]
    return int(masks_of(found)[split].sum()) if complete else None


def _print_run(console: Console, judged: Judged) -> dict[str, Any]:
    """Prints the tables of a run and returns them in plain types."""
    found = judged.found
    report: dict[str, Any] = {
        "file": str(found.source),
        "oracle": found.oracle,
        "meta": found.meta,
        "splits": {},
    }
    for split, scores in judged.scores.items():
        expected = _expected(found, split)
        name, ours = next(iter(scores.items()))
        steps = len(ours.horizon)
        used = _of(ours.rows.sum(), expected)
        title = f"{name}: {task_of(found, split)}" + f", mean over {steps} frames" * (steps > 1)
        left_out = ours.mean("roc_auc")["left_out"]
        caption = f"95 % intervals from {ours.people} pedestrians, resampled"
        caption += f"; {left_out} resamples with one class left out" * bool(left_out)
        if steps == 1:
            caption += '\nthe WACV 2021 benchmark prints balanced accuracy at 0.5 as "AUC"'
        cut = found.meta["threshold"]
        table = Table("metric", "at 0.5", f"at {cut:.3f} (validation)", "n", title=title)
        table.caption = caption
        for key, metric in METRICS.items():
            cells = [key + "@0.5", key + "@validation"] if metric.needs_threshold else [key]
            texts = [cell(ours.mean(name)) for name in cells]
            table.add_row(words(key), *texts, *[""] * (2 - len(texts)), used)
        _show(console, table)
        if steps > 1:
            heads = map(words, _SHORT[:4])
            table = Table("frames ahead", *heads, "n", title=f"{name}, by time (threshold 0.5)")
            for i in sorted({0, steps // 2 - 1, steps - 1}):
                cells = [cell(numbers(*ours.curve(key)[:, i])) for key in _SHORT[:4]]
                part = expected // steps if expected else None
                table.add_row(str(ours.horizon[i]), *cells, _of(ours.rows[i], part))
            _show(console, table)
        if len(scores) > 1:
            title = f"beside baselines, {split} (threshold 0.5)"
            table = Table("forecaster", *map(words, _SHORT), "n", title=title)
            for who, theirs in scores.items():
                cells = [cell(theirs.mean(key), short=True) for key in _SHORT]
                table.add_row(who, *cells, _of(theirs.rows.sum(), expected))
            _show(console, table)
        everyone = {who: s.json() for who, s in scores.items()}
        report["splits"][split] = {"n_expected": expected, "scores": everyone}
    return report


def _compare(
    console: Console,
    named: tuple[str, Predictions],
    named_other: tuple[str, Predictions],
    args: argparse.Namespace,
    boot: tuple[int, int],
) -> dict[str, Any]:
    """Prints and returns the differences, first minus other, on the rows that both have."""
    (name, one), (against, other) = named, named_other
    found = differences(one, other, boot, args.allow_missing)
    report: dict[str, Any] = {
        "file": str(other.source),
        "oracle": other.oracle,
        "n": found.common,
        "only_here": found.only_here,
        "only_there": found.only_there,
        "splits": {},
    }
    counts = f"{found.common} forecasts in common, {found.only_here} only in {name}, "
    counts += f"{found.only_there} only in the other"
    for split, (changes, people, n) in found.splits.items():
        table = Table("metric", "difference", "", "n", title=f"{name} - {against}: {split}")
        table.caption = f"{counts}; paired intervals from {people} pedestrians"
        used = _of(n, _expected(one, split))
        for key, change in changes.items():
            table.add_row(words(key, True), cell(change), verdict(key, change), used)
        _show(console, table)
        report["splits"][split] = changes
    return report


class Differences(NamedTuple):
    """What separates two runs on the rows that both have.

    Attributes:
        common: Rows.
        only_here: Rows of the first only.
        only_there: Rows of the other only.
        splits: By split, the difference of each metric with its interval, pedestrians, and rows.
    """

    common: int
    only_here: int
    only_there: int
    splits: dict[str, tuple[dict[str, dict[str, Any]], int, int]]


def differences(
    one: Predictions, other: Predictions, boot: tuple[int, int], allow_missing: bool = False
) -> Differences:
    """Paired differences, `one` minus `other`.

    Args:
        one: Forecasts.
        other: Forecasts of the same rows.
        boot: Resamples, and their seed.
        allow_missing: Compares the rows that both have.

    Raises:
        DataError: Their rows or labels differ.
    """
    left, right = match(one.table, other.table)
    missing, extra = len(one.table) - len(left), len(other.table) - len(left)
    if not len(left) or ((missing or extra) and not allow_missing):
        problem = f"{len(left)} forecasts in common, {missing} only in {one.source}, "
        problem += f"{extra} only in the other"
        mend = "compare runs on one split" if not len(left) else "or pass --allow-missing"
        raise DataError(other.source, problem, mend)
    if (one["label"][left] != other["label"][right]).any():
        mend = "compare runs on one dataset and protocol"
        raise DataError(other.source, f"has other labels than {one.source}", mend)
    splits = {}
    for split, mask in masks_of(one).items():
        kept = mask[left]
        rows = {key: one[key][left][kept] for key in ("label", "horizon")}
        rows["cluster"] = one.cluster[left][kept]
        mine, theirs = (
            score(rows | {"probability": p[kept]}, found.meta["threshold"], *boot)
            for found, p in (
                (one, one["probability"][left]),
                (other, other["probability"][right]),
            )
        )
        changes = {key: mine.mean(key, theirs) for key in mine.value}
        splits[split] = changes, mine.people, int(mine.rows.sum())
    return Differences(len(left), missing, extra, splits)


def verdict(key: str, change: dict[str, Any]) -> str:
    """What the interval of a difference says: better, worse or undecided."""
    sign = 1 if METRICS[key.partition("@")[0]].higher_is_better else -1
    if change["low"] is None or change["low"] * change["high"] <= 0:
        return "undecided"
    return "better" if change["low"] * sign > 0 else "worse"


def _print_seeds(console: Console, judged: dict[str, Judged]) -> list[dict[str, Any]]:
    """Prints and returns mean and spread over runs that differ by seed only."""
    groups: dict[str, list[str]] = {}
    for name, (found, *_) in judged.items():
        if {"seed", "config"} <= found.meta.keys():
            rest = {k: v for k, v in found.meta.items() if k not in _VARIES}
            groups.setdefault(json.dumps(rest, sort_keys=True), []).append(name)
    report = []
    for names in groups.values():
        seeds = sorted({judged[name].found.meta["seed"] for name in names})
        if len(seeds) < 2 or len(seeds) < len(names):
            continue
        for split in judged[names[0]].scores:
            scores = [judged[name].scores[split][name] for name in names]
            table = Table("metric", "mean ± sd", "n", title=f"{len(names)} seeds: {split}")
            table.caption = f"{', '.join(names)}; sd of the runs, not of the mean"
            entry: dict[str, Any] = {"runs": names, "seeds": seeds, "split": split, "metrics": {}}
            for key in scores[0].value:
                values = np.array([s.value[key].mean() for s in scores])
                mean, sd = values.mean(), values.std(ddof=1)
                entry["metrics"][key] = numbers(mean, sd=sd)
                used = _of(
                    min(s.rows.sum() for s in scores), _expected(judged[names[0]].found, split)
                )
                table.add_row(words(key, True), f"{mean:.3f} ± {sd:.3f}", used)
            _show(console, table)
            report.append(entry)
    return report


class Drawn(NamedTuple):
    """A figure, and the numbers in it.

    Attributes:
        path: Of the figure.
        kind: `roc`, `pr`, `calibration` or `horizons`.
        title: Heading, with the number of forecasts.
        curves: By name, probabilities and labels (n,); of `horizons` none.
        lines: By name, value, low and high (3, H); of the other kinds none.
        frames: (H,) frames ahead.
    """

    path: Path
    kind: str
    title: str
    curves: plots.Curves
    lines: Mapping[str, np.ndarray]
    frames: np.ndarray


def draw(out: Path, judged: Mapping[str, Judged], suffix: str = ".png") -> list[Drawn]:
    """Draws the runs of one task together, beside the baselines of the first.

    Args:
        out: Folder for the figures.
        judged: Runs by name.
        suffix: Format of the figures: `.png` or `.svg`.
    """
    drawn: list[Drawn] = []
    tasks: dict[tuple[str, str], dict[str, Judged]] = {}
    for name, entry in judged.items():
        for split in entry.scores:
            tasks.setdefault((task_of(entry.found, split), split), {})[name] = entry
    for (task, split), entries in tasks.items():
        first = next(iter(entries.values()))
        frames = next(iter(first.scores[split].values())).horizon
        forecasts = {name: (e.found, e.found["probability"]) for name, e in entries.items()}
        forecasts |= {k: (first.found, p) for k, (p, _) in first.rivals.items() if k == TREES}
        curves = {}
        for name, (found, prob) in forecasts.items():
            at = masks_of(found)[split] & (found["horizon"] == frames[-1])
            if 0 < found["label"][at].mean() < 1:
                curves[name] = prob[at], found["label"][at]
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
        beside = [k for k in first.rivals if k in (TREES, COUNTS, "majority") or "persist" in k]
        for key in ("accuracy@0.5", "roc_auc"):
            lines = {name: e.scores[split][name].curve(key) for name, e in entries.items()}
            lines |= {k: first.scores[split][k].curve(key) for k in beside}
            path = Path(f"{stem}-{words(key).replace(' ', '-').lower()}-by-time{suffix}")
            plots.horizons(path, lines, frames, task, words(key, True))
            title = f"{task}: {words(key, True)}"
            drawn.append(Drawn(path, "horizons", title, {}, lines, frames))
    return drawn


def task_of(found: Predictions, split: str) -> str:
    meta = found.meta
    steps = f" {found['horizon'].max()}" if meta["protocol"] == "stip" else ""
    part = f"{meta['dataset']} {meta['protocol']}{steps} {meta['subset']} {meta['split']}"
    return f"{part}, {split}"


def words(metric: str, threshold: bool = False) -> str:
    name, at, cut = metric.partition("@")
    known = {"f1": "F1", "roc_auc": "ROC AUC", "brier": "Brier score"}
    return known.get(name, name.replace("_", " ")) + f" at {cut}" * bool(at and threshold)


def _of(n: int, expected: int | None) -> str:
    return f"{n}/{expected or '?'}" + " INCOMPLETE" * bool(expected is None or n < expected)


def cell(numbers: dict[str, Any], short: bool = False) -> str:
    if numbers["value"] is None:
        return "undefined"
    if short or numbers["low"] is None:
        return f"{numbers['value']:.3f}"
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**numbers)


def _show(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    console.print()
