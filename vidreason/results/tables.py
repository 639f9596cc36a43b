"""Tables of an evaluation, printed in the terminal.

Every number is printed with the actual and expected number of predictions.
"""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from vidreason.intent.intervals import numbers
from vidreason.intent.metrics import METRICS
from vidreason.results.evaluate import Evaluation, expected_rows, seed_means
from vidreason.results.scoring import ScoredRun, format_interval, metric_name, task_name, verdict

_SHORT = ("accuracy@0.5", "balanced_accuracy@0.5", "f1@0.5", "roc_auc", "average_precision")


def print_tables(evaluation: Evaluation) -> None:
    """Prints the metrics of each run, its baselines, its differences, and means over seeds."""
    # A pipe does not tell its width; the tables need more than 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False)
    for name, run in evaluation.runs.items():
        for split in run.scores:
            _print_run(console, run, split)
        if not run.baselines:
            console.print("No baselines: they need the dataset; give `--root DIR`.\n")
        if evaluation.reference:
            _print_differences(console, evaluation, name)
    for entry in seed_means(evaluation.runs):
        _print_seeds(console, evaluation, entry)


def _print_run(console: Console, run: ScoredRun, split: str) -> None:
    predictions, scores = run.predictions, run.scores[split]
    expected = expected_rows(predictions, split)
    name, ours = next(iter(scores.items()))
    steps = len(ours.horizon)
    used = _of(ours.rows.sum(), expected)
    title = f"{name}: {task_name(predictions, split)}" + f", mean over {steps} frames" * (steps > 1)
    excluded = ours.mean("roc_auc")["left_out"]
    caption = f"95 % confidence intervals, bootstrap over {ours.people} pedestrians"
    caption += f"; {excluded} resamples with one class excluded" * bool(excluded)
    if steps == 1:
        caption += '\nthe WACV 2021 benchmark reports balanced accuracy at 0.5 as "AUC"'
    cut = predictions.meta["threshold"]
    table = Table("metric", "at 0.5", f"at {cut:.3f} (validation)", "n", title=title)
    table.caption = caption
    for key, metric in METRICS.items():
        cells = [key + "@0.5", key + "@validation"] if metric.needs_threshold else [key]
        texts = [format_interval(ours.mean(name)) for name in cells]
        table.add_row(metric_name(key), *texts, *[""] * (2 - len(texts)), used)
    _show(console, table)
    if steps > 1:
        heads = map(metric_name, _SHORT[:4])
        title = f"{name}, by prediction horizon (threshold 0.5)"
        table = Table("frames ahead", *heads, "n", title=title)
        for i in sorted({0, steps // 2 - 1, steps - 1}):
            points = (numbers(*ours.curve(key)[:, i]) for key in _SHORT[:4])
            part = expected // steps if expected else None
            cells = [*map(format_interval, points), _of(ours.rows[i], part)]
            table.add_row(str(ours.horizon[i]), *cells)
        _show(console, table)
    if len(scores) > 1:
        title = f"compared with baselines, {split} (threshold 0.5)"
        table = Table("model", *map(metric_name, _SHORT), "n", title=title)
        for model, theirs in scores.items():
            cells = [format_interval(theirs.mean(key), short=True) for key in _SHORT]
            table.add_row(model, *cells, _of(theirs.rows.sum(), expected))
        _show(console, table)


def _print_differences(console: Console, evaluation: Evaluation, name: str) -> None:
    """The run minus the reference, on the rows that both have."""
    assert evaluation.reference
    found = evaluation.differences[name]
    counts = f"{found.common} predictions in common, {found.only_here} only in {name}, "
    counts += f"{found.only_there} only in the other"
    for split, (changes, people, n) in found.splits.items():
        title = f"{name} - {evaluation.reference[0]}: {split}"
        table = Table("metric", "difference", "", "n", title=title)
        table.caption = f"{counts}; paired bootstrap over {people} pedestrians"
        used = _of(n, expected_rows(evaluation.runs[name].predictions, split))
        for key, change in changes.items():
            cells = metric_name(key, True), format_interval(change), verdict(key, change)
            table.add_row(*cells, used)
        _show(console, table)


def _print_seeds(console: Console, evaluation: Evaluation, entry: dict[str, Any]) -> None:
    names, split = entry["runs"], entry["split"]
    runs = [evaluation.runs[name] for name in names]
    table = Table("metric", "mean ± SD", "n", title=f"{len(names)} seeds: {split}")
    table.caption = f"{', '.join(names)}; SD over runs, not standard error"
    rows = min(run.scores[split][name].rows.sum() for name, run in zip(names, runs, strict=True))
    used = _of(rows, expected_rows(runs[0].predictions, split))
    for key, mean in entry["metrics"].items():
        text = "undefined" if mean["value"] is None else "{value:.3f} ± {sd:.3f}".format(**mean)
        table.add_row(metric_name(key, True), text, used)
    _show(console, table)


def _of(n: int, expected: int | None) -> str:
    return f"{n}/{expected or '?'}" + " INCOMPLETE" * bool(expected is None or n < expected)


def _show(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    console.print()
