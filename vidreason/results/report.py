"""`vidreason report`: results as one page to be looked at, which needs no network.

Every figure has its numbers beside it as a table. What comes from files (names of pedestrians and
videos) is shown as text, whatever it holds.
"""

import argparse
import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context
from sklearn.metrics import precision_recall_curve, roc_curve

from vidreason import __version__
from vidreason.core.colours import COLOURS
from vidreason.core.errors import DataError
from vidreason.core.files import progress, write_atomic
from vidreason.intent.baselines import TREES, beside
from vidreason.intent.datasets import clips_folder, dataset_root
from vidreason.intent.intervals import Scores, score
from vidreason.intent.metrics import METRICS
from vidreason.intent.predictions import Predictions
from vidreason.intent.task import IntentTask
from vidreason.results import breakdown, cases, evaluate, plots, strips
from vidreason.results.evaluate import Drawn, Judged
from vidreason.results.forecasts import Forecasts, are_forecasts, read_forecasts
from vidreason.runs import train
from vidreason.runs.weights import CARD, CONFIG, find_weights, shipped

_POINTS = 21  # of a curve, in its table
_SHOWN = ("roc_auc", "average_precision", "f1", "balanced_accuracy", "accuracy", "brier")


class Cell(NamedTuple):
    """Of a table: what is read, and what is sorted by."""

    text: str
    value: float | str


class Sheet(NamedTuple):
    """A table whose columns can be sorted."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    search: bool = False


class Plot(NamedTuple):
    """A figure and its numbers."""

    title: str
    image: str
    sheet: Sheet


class Section(NamedTuple):
    """Part of a page; `groups` are cases, or strips, by what they stand for."""

    title: str
    text: str = ""
    sheets: Sequence[Sheet] = ()
    plots: Sequence[Plot] = ()
    groups: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    kind: str = ""


class Part(NamedTuple):
    """All about one question, or one model of clips."""

    title: str
    sections: Sequence[Section]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Writes one page about runs: how good, by what, beside what; curves and their numbers; whom they
fail; and the best and worst cases to be looked at. Of intent: runs, weights, predictions files,
forecasts of a video. Of decomposition: runs or weights. The page holds everything it shows."""
    parser.epilog = """examples:
  vidreason report runs/graph --root data/jaad --out report.html
  vidreason report runs/graph runs/stip runs/trees.parquet       side by side, and in pairs
  vidreason report runs/moving_mnist --clips 500
  vidreason report jaad_all                                      weights that come with vidreason
  vidreason report drive/forecasts.parquet --video drive.mp4

Where videos lie in ROOT/JAAD_clips or ROOT/videos, cases have pictures behind them."""
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="RUN", help="run, weights or predictions file"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="(report.html)")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="dataset ($VIDREASON_DATA/DATASET)"
    )
    parser.add_argument(
        "--cases", type=int, default=6, metavar="N", help="to show of each group, at most (6)"
    )
    parser.add_argument(
        "--clips", type=int, default=200, metavar="N", help="test clips to decompose (200)"
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="that forecasts were made of")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (0)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    for option, low in (("cases", 1), ("clips", 1), ("bootstrap", 1), ("seed", 0)):
        if (value := getattr(args, option)) < low:
            raise DataError(f"--{option}", f"{value} is too small", f"give {low} or more")
    write_report(
        args.inputs,
        args.out,
        args.root,
        args.video,
        args.cases,
        args.clips,
        (args.bootstrap, args.seed),
    )
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def write_report(
    inputs: Sequence[Path],
    out: Path,
    root: Path | None = None,
    video: Path | None = None,
    each: int = 6,
    clips: int = 200,
    boot: tuple[int, int] = (1000, 0),
) -> None:
    """Writes the page.

    Args:
        inputs: Runs, weights, files of predictions or of forecasts.
        out: HTML file; appears when it is whole.
        root: Of the dataset.
        video: That forecasts were made of, for pictures.
        each: Cases to show of each group.
        clips: Test clips to decompose.
        boot: Resamples, and their seed.

    Raises:
        DataError: Something that is none of these, or data that do not fit.
    """
    if out.suffix != ".html":
        raise DataError("--out", f"{out} does not end in .html", "give such a name")
    intent, parts = [], []
    for path in inputs:
        if path.is_file() and are_forecasts(path):
            parts.append(_video_part(read_forecasts(path), each, video))
        elif _is_decomposition(path):
            parts.append(_clips_part(path, root, clips, each))
        else:
            intent.append(path)
    parts = [*(_intent_parts(intent, root, each, boot) if intent else ()), *parts]
    made = Environment(
        loader=PackageLoader("vidreason"), undefined=StrictUndefined, autoescape=True
    )
    page = made.get_template("report.html").render(
        title=f"vidreason: {', '.join(path.name for path in inputs)}",
        parts=parts,
        version=__version__,
        colours=COLOURS,
    )
    with write_atomic(out) as temporary:
        temporary.write_text(page, "utf-8")


def _weights(path: Path) -> Path | None:
    """The folder of weights that `path` is or names; none of a run or a file."""
    if (path / CARD).is_file() or (not path.exists() and str(path) in shipped()):
        return find_weights(str(path))
    return None


def _is_decomposition(path: Path) -> bool:
    """Whether a run or weights are of a model of clips."""
    config = (_weights(path) or path) / CONFIG
    return config.is_file() and "DecomposeTask" in config.read_text("utf-8")


def _cell(value: float | None, digits: int = 3) -> Cell:
    if value is None or not np.isfinite(value):
        return Cell("–", -1e30)
    return Cell(f"{value:.{digits}f}", float(value))


def _count(value: float) -> Cell:
    return Cell(f"{value:,.0f}", float(value))


def _word(text: object) -> Cell:
    return Cell(str(text), str(text))


def _interval(numbers: Mapping[str, Any]) -> Cell:
    value = numbers["value"]
    return Cell(evaluate.cell(dict(numbers)), -1e30 if value is None else value)


def _svg(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


# --- Intent


def _intent_parts(
    paths: list[Path], root: Path | None, each: int, boot: tuple[int, int]
) -> list[Part]:
    """A part for each question that the runs answer, with all the runs that answer it."""
    runs = evaluate.read_all([_predicted(path, root) for path in paths], root)
    sources = dict(zip(runs, paths, strict=True))
    tasks: dict[str, dict[str, Predictions]] = {}
    for name, found in runs.items():
        tasks.setdefault(evaluate.task_of(found, "all"), {})[name] = found
    parts = []
    with progress() as bar:
        shown = bar.add_task("reporting", total=4 * len(runs))
        for task, group in tasks.items():
            judged = {}
            for name, found in group.items():
                rivals = beside(found, root)
                scores = evaluate.judge(name, found, rivals, boot)
                judged[name] = Judged(found, rivals, scores)
                bar.advance(shown)
            sections = [_summary(judged), *_paired(judged, boot), _curves(judged)]
            bar.advance(shown, len(group))
            asked = _windows(next(iter(group.values())), root)
            sections.append(_breakdown(judged, asked, boot))
            bar.advance(shown, len(group))
            first = next(iter(group))
            sections.append(_cases(judged, asked, sources[first], root, each))
            sections.append(_everybody(judged))
            bar.advance(shown, len(group))
            parts.append(Part(task.removesuffix(", all"), sections))
    return parts


def _predicted(path: Path, root: Path | None) -> Path:
    """The path itself, or the folder with the predictions of weights, made if need be."""
    if (folder := _weights(path)) is None:
        return path
    out = Path("runs") / f"{folder.name}-shipped"
    if not (out / "predictions.parquet").is_file():
        data = ["--data.root", str(root)] if root else []
        train.main(["predict", "--weights", str(path), "--out", str(out), *data])
    return out


def _windows(found: Predictions, root: Path | None) -> breakdown.Asked | None:
    """The windows, unless the dataset is not there."""
    try:
        folder = dataset_root(found.meta["dataset"], root)
    except DataError:
        return None
    return breakdown.find_windows(found, folder) if folder.is_dir() else None


def _summary(judged: Mapping[str, Judged]) -> Section:
    sheets = []
    splits = next(iter(judged.values())).scores
    for split in splits:
        rows, first = [], next(iter(judged.values()))
        everyone: dict[str, tuple[Scores, float]] = {}
        for name, entry in judged.items():
            everyone[name] = entry.scores[split][name], entry.found.meta["threshold"]
        for name, (_, cut) in first.rivals.items():
            everyone[name] = first.scores[split][name], cut
        for name, (scores, cut) in everyone.items():
            keys = [f"{m}@validation" if METRICS[m].needs_threshold else m for m in _SHOWN]
            cells = [_interval(scores.mean(key)) for key in keys]
            rows.append([_word(name), *cells, _cell(cut), _count(scores.rows.sum())])
        head = ["forecaster", *map(evaluate.words, _SHOWN), "threshold", "n"]
        people = first.scores[split][next(iter(judged))].people
        caption = f"{split}: 95 % intervals from {people:,} pedestrians, resampled"
        sheets.append(Sheet(caption, head, rows))
    text = "Decided at the threshold that was chosen on validation data. An oracle reads what no "
    text += "model may see, and shows what that would be worth."
    return Section("Summary", text, sheets)


def _paired(judged: Mapping[str, Judged], boot: tuple[int, int]) -> list[Section]:
    """Every further run less the first."""
    (base, one), *others = judged.items()
    sheets = []
    for name, entry in others:
        found = evaluate.differences(entry.found, one.found, boot, allow_missing=True)
        for split, (changes, people, n) in found.splits.items():
            rows = [
                [
                    _word(evaluate.words(key, True)),
                    _interval(change),
                    _word(evaluate.verdict(key, change)),
                ]
                for key, change in changes.items()
            ]
            counts = f"{n:,} forecasts of {people:,} pedestrians that both have"
            left = found.only_here + found.only_there
            counts += f"; {left:,} that only one has are left out" * bool(left)
            caption = f"{name} less {base}, {split}: {counts}"
            sheets.append(Sheet(caption, ["metric", "difference", ""], rows))
    text = "The same pedestrians are resampled for both, so that intervals are of the difference."
    return [Section("Paired differences", text, sheets)] if sheets else []


def _curves(judged: Mapping[str, Judged]) -> Section:
    with tempfile.TemporaryDirectory() as folder, rc_context(_SVG):
        drawn = evaluate.draw(Path(folder), judged, ".svg")
        figures = [
            Plot(f"{_KINDS.get(one.kind, '')}{one.title}", _svg(one.path), _numbers(one))
            for one in drawn
        ]
    return Section("Curves", plots=figures)


_KINDS = {
    "roc": "ROC, ",
    "pr": "precision and recall, ",
    "calibration": "calibration, ",
}
_SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "vidreason"}


def _numbers(drawn: Drawn) -> Sheet:
    """What a figure shows, as a table."""
    grid = np.linspace(0, 1, _POINTS)
    if drawn.kind == "horizons":
        rows = [
            [
                _count(frame),
                *(
                    _interval(
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
                means = [_cell(v[at].mean()) for v in (probability, label)]
                rows.append([_word(name), _word(span), *means, _count(at.sum())])
        head = ["forecaster", "forecast", "mean forecast", "share that crosses", "n"]
        return Sheet(drawn.title, head, rows)
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
    rows = [[_cell(x, 2), *(_cell(c[i]) for c in columns)] for i, x in enumerate(grid)]
    return Sheet(drawn.title, [first, *(f"{name}: {second}" for name in drawn.curves)], rows)


def _breakdown(
    judged: Mapping[str, Judged], asked: breakdown.Asked | None, boot: tuple[int, int]
) -> Section:
    """Every run and the trees, for each level of what the first run's windows differ in."""
    if asked is None:
        return Section("Breakdown", "Needs the dataset: give --root.")
    first = next(iter(judged.values()))
    key = {tuple(row): i for i, row in enumerate(_keys(first.found))}
    forecasts = {}
    for name, entry in judged.items():
        at = np.array([key.get(tuple(row), -1) for row in _keys(entry.found)])
        probability = np.full(len(first.found.table), np.nan)
        probability[at[at >= 0]] = entry.found["probability"][at >= 0]
        forecasts[name] = probability, entry.found.meta["threshold"]
    forecasts |= {name: rival for name, rival in first.rivals.items() if name == TREES}
    found = first.found
    last = found["horizon"] == found["horizon"].max()
    figures = []
    with tempfile.TemporaryDirectory() as folder, rc_context(_SVG):
        for number, factor in enumerate(breakdown.factors(asked)):
            rows, levels = [], [k for k in range(len(factor.levels)) if (factor.code == k).any()]
            drawn = {name: np.full((3, len(levels)), np.nan) for name in forecasts}
            for place, level in enumerate(levels):
                for name, (probability, cut) in forecasts.items():
                    at = last & (factor.code == level) & np.isfinite(probability)
                    if not at.any():
                        continue
                    columns = {c: found[c][at] for c in ("label", "horizon")}
                    columns |= {"probability": probability[at], "cluster": found.cluster[at]}
                    scores = score(columns, cut, *boot)
                    auc = scores.mean("roc_auc")
                    drawn[name][:, place] = [
                        np.nan if auc[end] is None else auc[end] for end in ("value", "low", "high")
                    ]
                    rows.append(
                        [
                            Cell(factor.levels[level], float(level)),
                            _word(name),
                            _interval(auc),
                            _interval(scores.mean("f1@validation")),
                            _interval(scores.mean("accuracy@validation")),
                            _cell(float(columns["label"].mean())),
                            _count(scores.people),
                            _count(at.sum()),
                        ]
                    )
            words = [factor.levels[k] for k in levels]
            path = Path(folder, f"{number}.svg")
            plots.levels(path, drawn, words, factor.name)
            head = [factor.name, "forecaster", "ROC AUC", "F1", "accuracy", "share crossing"]
            sheet = Sheet(factor.name, [*head, "pedestrians", "n"], rows)
            figures.append(Plot(factor.name, _svg(path), sheet))
    text = "As of the last observed frame. Levels with few pedestrians say little: mind intervals."
    return Section("Breakdown", text, plots=figures)


def _keys(found: Predictions) -> list[tuple]:
    columns = ("video", "pedestrian", "last_frame", "horizon")
    return list(zip(*(found.table[name].to_pylist() for name in columns), strict=True))


def _cases(
    judged: Mapping[str, Judged],
    asked: breakdown.Asked | None,
    source: Path,
    root: Path | None,
    each: int,
) -> Section:
    first, entry = next(iter(judged.items()))
    found = entry.found
    key = {row: i for i, row in enumerate(_keys(found))}
    others: dict[str, np.ndarray] = {}
    for name, other in judged.items():
        if name != first:
            others[name] = np.full(len(key), np.nan)
            for row, p in zip(_keys(other.found), other.found["probability"], strict=True):
                if row in key:
                    others[name][key[row]] = p
    others |= {name: p for name, (p, _) in entry.rivals.items() if name == TREES}
    groups = cases.choose(found, each)
    model = clips = None
    if asked is not None:
        model = _model(source)
        clips = clips_folder(found.meta["dataset"], root)
    rows = [row for group in groups.values() for row in group]
    described = iter(cases.describe(found, rows, others, asked, model, clips))
    named = {name: [next(described) for _ in group] for name, group in groups.items()}
    text = f"Of {first}, each pedestrian once in a group. "
    if asked is None:
        text += "Scenes need the dataset: give --root."
    else:
        text += "The slider goes through the frames observed. "
        text += "Lines go to the others in the graph"
        if model is None:
            text += "; what each does to the forecast is known of a run, not of a file."
        else:
            text += ", as wide as the forecast changes when that neighbour is left out."
    return Section("Cases", text, groups=named, kind="case")


def _model(source: Path) -> Any:
    """The model of a run or of weights, and nothing of a file."""
    if not (source / "checkpoints").is_dir() and _weights(source) is None:
        return None
    task, data = train.load_with_data(source)
    return (task, data) if isinstance(task, IntentTask) else None


def _everybody(judged: Mapping[str, Judged]) -> Section:
    """A row for each pedestrian, worst first."""
    name, entry = next(iter(judged.items()))
    found = entry.found
    _, first, code = np.unique(found.cluster, return_index=True, return_inverse=True)
    count = np.bincount(code)
    mean, share = (
        np.bincount(code, values) / count for values in (found["probability"], found["label"] * 1.0)
    )
    error = np.bincount(code, np.abs(found["probability"] - found["label"])) / count
    video, who = (found.table[c].to_pylist() for c in ("video", "pedestrian"))
    rows = [
        [
            _word(video[first[k]]),
            _word(who[first[k]]),
            _cell(share[k], 2),
            _cell(mean[k]),
            _cell(error[k]),
            _count(count[k]),
        ]
        for k in np.argsort(-error, kind="stable")
    ]
    head = ["video", "pedestrian", "crosses", f"{name}: mean forecast", "mean error", "forecasts"]
    sheet = Sheet(f"{len(rows):,} pedestrians, the worst first", head, rows, search=True)
    return Section("Every pedestrian", sheets=[sheet])


# --- A video without annotation


def _video_part(found: Forecasts, each: int, video: Path | None) -> Part:
    meta = found.meta
    last = found["horizon"] == found["horizon"].max() if len(found.table) else np.empty(0, bool)
    name, frame = found["pedestrian"][last], found["frame"][last]
    probability = found["probability"][last]
    who, code = np.unique(name, return_inverse=True)
    rows = []
    for k, one in enumerate(who):
        at = code == k
        most = probability[at].argmax()
        rows.append(
            [
                _word(one),
                _cell(frame[at].min() / meta["fps"], 1),
                _cell(frame[at].max() / meta["fps"], 1),
                _cell(probability[at].mean()),
                _cell(probability[at].max()),
                _cell(frame[at][most] / meta["fps"], 1),
                _cell((probability[at] >= meta["threshold"]).mean(), 2),
                _count(at.sum()),
            ]
        )
    rows.sort(key=lambda row: -float(row[4].value))
    head = ["pedestrian", "first, s", "last, s", "mean forecast", "highest", "when, s"]
    head += [f"share from {meta['threshold']:.2f}", "frames"]
    seconds = meta["length"] / meta["fps"]
    text = f"{meta['model']} on {meta['video']}: {meta['width']} × {meta['height']}, "
    text += f"{seconds:.1f} s at {meta['fps']:.4g} frames a second. Forecast: {meta['words']}. "
    text += "Nothing is annotated here, so nothing says how right this is."
    sheet = Sheet(f"{len(rows):,} pedestrians", head, rows, search=True)
    shown = cases.describe_forecasts(found, 2 * each, video)
    return Part(
        f"video {meta['video']}",
        [
            Section("Summary", text, [sheet]),
            Section(
                "Cases",
                "Who was forecast to cross most surely, at that moment and in the second before.",
                groups={"likeliest to cross": shown},
                kind="case",
            ),
        ],
    )


# --- Decomposition


def _clips_part(path: Path, root: Path | None, clips: int, each: int) -> Part:
    task, data = train.load_with_data(path, root)
    data.setup("test")
    seen = strips.watch(task, data, clips, each)  # type: ignore[arg-type]
    scalars = [key for key, value in seen.scores["model"].items() if value.dim() == 0]
    rows = [
        [
            _word(key.replace("_", " ")),
            *(_cell(float(s[key]) if key in s else None) for s in seen.scores.values()),
        ]
        for key in scalars
    ]
    text = f"{path.name} on the first {seen.clips} test clips: {task.input_frames} frames seen, "
    text += f"{data.length - task.input_frames} predicted. "  # type: ignore[attr-defined]
    text += "MSE, MAE and BCE are sums over a frame's pixels; position errors are in pixels."
    sheet = Sheet("mean over clips and predicted frames", ["score", *seen.scores], rows)
    squares = {name: s["mse_by_frame"].numpy() for name, s in seen.scores.items()}
    first = int(task.input_frames) + 1  # type: ignore[arg-type]
    drawn = [("squared error of a frame", squares, first)]
    if seen.errors:
        drawn.append(("position error, px", seen.errors, 1))
    figures = []
    with tempfile.TemporaryDirectory() as folder, rc_context(_SVG):
        for number, (title, lines, start) in enumerate(drawn):
            file = Path(folder, f"{number}.svg")
            plots.by_frame(file, lines, start, title, title)
            length = len(next(iter(lines.values())))
            cells = [
                [_count(start + t), *(_cell(float(line[t])) for line in lines.values())]
                for t in range(length)
            ]
            figures.append(Plot(title, _svg(file), Sheet(title, ["frame", *lines], cells)))
    about = "Components can be switched off and on; the slider goes through seen and predicted "
    about += "frames. Squares are the components' windows."
    return Part(
        path.name,
        [
            Section("Summary", text, [sheet]),
            Section("Curves", plots=figures),
            Section("Clips", about, groups=seen.cards, kind="strip"),
        ],
    )
