"""Report sections about intent: runs, weights and predictions files."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from sklearn.metrics import precision_recall_curve, roc_curve

from vidreason.core.errors import DataError
from vidreason.core.files import progress
from vidreason.intent.baselines import TREES
from vidreason.intent.datasets import clips_folder, dataset_root
from vidreason.intent.intervals import Scores, score
from vidreason.intent.metrics import METRICS
from vidreason.intent.predictions import Predictions, match
from vidreason.intent.task import IntentTask
from vidreason.results import breakdown, cases, page, plots
from vidreason.results.breakdown import MatchedWindows
from vidreason.results.figures import Drawn, draw
from vidreason.results.page import SVG, Cell, Part, Plot, Section, Sheet
from vidreason.results.scoring import (
    ScoredRun,
    differences,
    metric_name,
    read_runs,
    score_run,
    task_name,
    verdict,
)
from vidreason.runs import train
from vidreason.runs.weights import CARD, find_weights, shipped

_POINTS = 21  # of a curve, in its table
_SHOWN = ("roc_auc", "average_precision", "f1", "balanced_accuracy", "accuracy", "brier")


def intent_parts(
    paths: list[Path], root: Path | None, each: int, boot: tuple[int, int]
) -> list[Part]:
    """Builds one part for each task (dataset, protocol, subset, split) with all runs of it.

    Args:
        paths: Run folders, weights or predictions files.
        root: Dataset folder; without a dataset there are no baselines, subgroups and scenes.
        each: Number of cases in each group, at most.
        boot: Number of bootstrap resamples, and their random seed.
    """
    runs = read_runs([_predict(path, root) for path in paths], root)
    sources = dict(zip(runs, paths, strict=True))
    tasks: dict[str, dict[str, Predictions]] = {}
    for name, predictions in runs.items():
        tasks.setdefault(task_name(predictions, "all"), {})[name] = predictions
    parts = []
    with progress() as bar:
        shown = bar.add_task("reporting", total=4 * len(runs))
        for task, group in tasks.items():
            scored = {}
            for name, predictions in group.items():
                scored[name] = score_run(name, predictions, root, boot)
                bar.advance(shown)
            sections = [_summary(scored), *_paired(scored, boot), _curves(scored)]
            bar.advance(shown, len(group))
            matched = _windows(next(iter(group.values())), root)
            sections.append(_subgroups(scored, matched, boot))
            bar.advance(shown, len(group))
            first = next(iter(group))
            sections.append(_cases(scored, matched, sources[first], root, each))
            sections.append(_pedestrians(scored))
            bar.advance(shown, len(group))
            parts.append(Part(task.removesuffix(", all"), sections))
    return parts


def weights_folder(path: Path) -> Path | None:
    """Returns the folder of weights that `path` is or names; None for runs and files."""
    if (path / CARD).is_file() or (not path.exists() and str(path) in shipped()):
        return find_weights(str(path))
    return None


def _predict(path: Path, root: Path | None) -> Path:
    """The path itself; of weights, the folder with their predictions, made if missing."""
    if (folder := weights_folder(path)) is None:
        return path
    out = Path("runs") / f"{folder.name}-shipped"
    if not (out / "predictions.parquet").is_file():
        data = ["--data.root", str(root)] if root else []
        train.main(["predict", "--weights", str(path), "--out", str(out), *data])
    return out


def _windows(predictions: Predictions, root: Path | None) -> MatchedWindows | None:
    """The windows of the predictions, if the dataset is available."""
    try:
        folder = dataset_root(predictions.meta["dataset"], root)
    except DataError:
        return None
    return breakdown.find_windows(predictions, folder) if folder.is_dir() else None


def _summary(scored: Mapping[str, ScoredRun]) -> Section:
    sheets = []
    first_name, first = next(iter(scored.items()))
    for split in first.scores:
        models: dict[str, tuple[Scores, float]] = {}
        for name, run in scored.items():
            models[name] = run.scores[split][name], run.predictions.meta["threshold"]
        for name, (_, cut) in first.baselines.items():
            models[name] = first.scores[split][name], cut
        rows = []
        for name, (scores, cut) in models.items():
            keys = [f"{m}@validation" if METRICS[m].needs_threshold else m for m in _SHOWN]
            cells = [page.interval(scores.mean(key)) for key in keys]
            n = page.count(scores.rows.sum())
            rows.append([page.word(name), *cells, page.number(cut), n])
        head = ["model", *map(metric_name, _SHOWN), "threshold", "n"]
        people = first.scores[split][first_name].people
        caption = f"{split}: 95 % confidence intervals, bootstrap over {people:,} pedestrians"
        sheets.append(Sheet(caption, head, rows))
    text = "F1, balanced accuracy and accuracy are at the threshold chosen on the validation "
    text += "split. Oracles read the label or attributes that leak it; they show the size of the "
    text += "leak."
    return Section("Summary", text, sheets)


def _paired(scored: Mapping[str, ScoredRun], boot: tuple[int, int]) -> list[Section]:
    """Every further run minus the first."""
    (base, one), *others = scored.items()
    sheets = []
    for name, run in others:
        found = differences(run.predictions, one.predictions, boot, allow_missing=True)
        for split, (changes, people, n) in found.splits.items():
            rows = [
                [
                    page.word(metric_name(key, True)),
                    page.interval(change),
                    page.word(verdict(key, change)),
                ]
                for key, change in changes.items()
            ]
            counts = f"{n:,} predictions of {people:,} pedestrians in both"
            excluded = found.only_here + found.only_there
            counts += f"; {excluded:,} in one of them only are excluded" * bool(excluded)
            caption = f"{name} minus {base}, {split}: {counts}"
            sheets.append(Sheet(caption, ["metric", "difference", "verdict"], rows))
    text = (
        "95 % confidence intervals of the difference: both runs are scored on the same bootstrap "
    )
    text += "resamples of pedestrians."
    return [Section("Paired differences", text, sheets)] if sheets else []


# --- Curves


def _curves(scored: Mapping[str, ScoredRun]) -> Section:
    with tempfile.TemporaryDirectory() as folder, rc_context(SVG):
        drawn = draw(Path(folder), scored, ".svg")
        figures = [
            Plot(f"{_KINDS.get(one.kind, '')}{one.title}", page.svg(one.path), _numbers(one))
            for one in drawn
        ]
    return Section("Curves", plots=figures)


_KINDS = {
    "roc": "ROC, ",
    "pr": "precision and recall, ",
    "calibration": "calibration, ",
}


def _numbers(drawn: Drawn) -> Sheet:
    """The numbers of a figure as a table."""
    if drawn.kind == "horizons":
        rows = [
            [
                page.count(frame),
                *(
                    page.interval(
                        dict(zip(("value", "low", "high"), map(float, line[:, i]), strict=True))
                    )
                    for line in drawn.lines.values()
                ),
            ]
            for i, frame in enumerate(drawn.frames)
        ]
        return Sheet(drawn.title, ["frames ahead", *drawn.lines], rows)
    if drawn.kind == "calibration":
        rows = []
        for name, (probability, label) in drawn.curves.items():
            bins = np.minimum((probability * plots.BINS).astype(int), plots.BINS - 1)
            for b in np.unique(bins):
                at = bins == b
                span = f"{b / plots.BINS:.1f} to {(b + 1) / plots.BINS:.1f}"
                means = [page.number(v[at].mean()) for v in (probability, label)]
                rows.append([page.word(name), page.word(span), *means, page.count(at.sum())])
        head = ["model", "probability", "mean probability", "fraction crossing", "n"]
        return Sheet(drawn.title, head, rows)
    grid = np.linspace(0, 1, _POINTS)
    columns = []
    for probability, label in drawn.curves.values():
        if drawn.kind == "roc":
            x, y, _ = roc_curve(label, probability)
        else:
            y, x, _ = precision_recall_curve(label, probability)
            x, y = x[::-1], y[::-1]
        columns.append(np.interp(grid, x, y))
    heads = {"roc": ("false positive rate", "true positive rate"), "pr": ("recall", "precision")}
    first, second = heads[drawn.kind]
    rows = [
        [page.number(x, 2), *(page.number(column[i]) for column in columns)]
        for i, x in enumerate(grid)
    ]
    return Sheet(drawn.title, [first, *(f"{name}: {second}" for name in drawn.curves)], rows)


# --- Subgroups


def _subgroups(
    scored: Mapping[str, ScoredRun], matched: MatchedWindows | None, boot: tuple[int, int]
) -> Section:
    """Metrics of every run and of the trees by subgroup of the first run's windows."""
    title = "Metrics by subgroup"
    if matched is None:
        return Section(title, "Needs the dataset: give --root.")
    first = next(iter(scored.values()))
    predictions = first.predictions
    models = {}
    for name, run in scored.items():
        probability = _aligned(run.predictions, predictions)
        models[name] = probability, run.predictions.meta["threshold"]
    models |= {name: known for name, known in first.baselines.items() if name == TREES}
    figures = []
    with tempfile.TemporaryDirectory() as folder, rc_context(SVG):
        for number, factor in enumerate(breakdown.factors(matched)):
            rows, drawn = _levels(factor, predictions, models, boot)
            words = [factor.levels[k] for k in np.unique(factor.code[factor.code >= 0])]
            path = Path(folder, f"{number}.svg")
            plots.levels(path, drawn, words, factor.name)
            head = [factor.name, "model", "ROC AUC", "F1", "accuracy", "fraction crossing"]
            sheet = Sheet(factor.name, [*head, "pedestrians", "n"], rows)
            figures.append(Plot(factor.name, page.svg(path), sheet))
    text = "Subgroups by the annotation of the last observed frame. Small subgroups have wide "
    text += "confidence intervals."
    return Section(title, text, plots=figures)


def _levels(
    factor: breakdown.Factor,
    predictions: Predictions,
    models: Mapping[str, tuple[np.ndarray, float]],
    boot: tuple[int, int],
) -> tuple[list[list[Cell]], dict[str, np.ndarray]]:
    """Table rows, and ROC AUC with its interval (3, L) by model, for L levels of a factor."""
    last = predictions["horizon"] == predictions["horizon"].max()
    levels = np.unique(factor.code[factor.code >= 0])
    rows = []
    drawn = {name: np.full((3, len(levels)), np.nan) for name in models}
    for place, level in enumerate(levels):
        for name, (probability, cut) in models.items():
            at = last & (factor.code == level) & np.isfinite(probability)
            if not at.any():
                continue
            columns = {c: predictions[c][at] for c in ("label", "horizon")}
            columns |= {"probability": probability[at], "cluster": predictions.cluster[at]}
            scores = score(columns, cut, *boot)
            auc = scores.mean("roc_auc")
            drawn[name][:, place] = [
                np.nan if auc[end] is None else auc[end] for end in ("value", "low", "high")
            ]
            rows.append(
                [
                    Cell(factor.levels[level], float(level)),
                    page.word(name),
                    page.interval(auc),
                    page.interval(scores.mean("f1@validation")),
                    page.interval(scores.mean("accuracy@validation")),
                    page.number(float(columns["label"].mean())),
                    page.count(scores.people),
                    page.count(at.sum()),
                ]
            )
    return rows, drawn


def _aligned(other: Predictions, predictions: Predictions) -> np.ndarray:
    """(n,) probabilities of another run for the rows of `predictions`, NaN where it has none."""
    probability = np.full(len(predictions.table), np.nan)
    ours, theirs = match(predictions.table, other.table)
    probability[ours] = other["probability"][theirs]
    return probability


# --- Single pedestrians


def _cases(
    scored: Mapping[str, ScoredRun],
    matched: MatchedWindows | None,
    source: Path,
    root: Path | None,
    each: int,
) -> Section:
    (first, run), *rest = scored.items()
    predictions = run.predictions
    others = {name: _aligned(other.predictions, predictions) for name, other in rest}
    others |= {name: p for name, (p, _) in run.baselines.items() if name == TREES}
    groups = cases.choose(predictions, each)
    model = clips = None
    if matched is not None:
        model = _model(source)
        clips = clips_folder(predictions.meta["dataset"], root)
    rows = [row for group in groups.values() for row in group]
    described = iter(cases.describe(predictions, rows, others, matched, model, clips))
    named = {name: [next(described) for _ in group] for name, group in groups.items()}
    text = f"Predictions of {first}; each pedestrian appears once in a group. "
    if matched is None:
        text += "Scenes need the dataset: give --root."
    else:
        text += "The slider moves through the observed frames. "
        text += "Lines are edges of the scene graph"
        if model is None:
            text += "; the influence of each neighbour needs the run instead of its predictions."
        else:
            text += "; their width is the change of the probability when that neighbour is removed."
    return Section("Cases", text, groups=named, kind="case")


def _model(source: Path) -> tuple[IntentTask, Any] | None:
    """The model and data module of a run or of weights; None of a file."""
    if not (source / "checkpoints").is_dir() and weights_folder(source) is None:
        return None
    task, data = train.load_with_data(source)
    return (task, data) if isinstance(task, IntentTask) else None


def _pedestrians(scored: Mapping[str, ScoredRun]) -> Section:
    """A row for each pedestrian, largest error first."""
    name, run = next(iter(scored.items()))
    predictions = run.predictions
    _, first, code = np.unique(predictions.cluster, return_index=True, return_inverse=True)
    count = np.bincount(code)
    probability, label = predictions["probability"], predictions["label"]
    mean, share = (np.bincount(code, values) / count for values in (probability, label * 1.0))
    error = np.bincount(code, np.abs(probability - label)) / count
    video, pedestrian = (predictions.table[c].to_pylist() for c in ("video", "pedestrian"))
    rows = [
        [
            page.word(video[first[k]]),
            page.word(pedestrian[first[k]]),
            page.number(share[k], 2),
            page.number(mean[k]),
            page.number(error[k]),
            page.count(count[k]),
        ]
        for k in np.argsort(-error, kind="stable")
    ]
    head = ["video", "pedestrian", "fraction crossing", f"{name}: mean probability"]
    head += ["mean absolute error", "predictions"]
    sheet = Sheet(f"{len(rows):,} pedestrians, largest error first", head, rows, search=True)
    return Section("All pedestrians", sheets=[sheet])
