"""Report: an HTML page about runs, weights, predictions and videos; needs no network."""

from collections.abc import Sequence
from pathlib import Path

from vidreason.core.errors import DataError
from vidreason.results.forecasts import are_forecasts, read_forecasts
from vidreason.results.page import write_page
from vidreason.results.report_decomposition import decomposition_part
from vidreason.results.report_intent import intent_parts, weights_folder
from vidreason.results.report_video import video_part
from vidreason.runs.weights import CONFIG


def write_report(
    inputs: Sequence[Path],
    out: Path,
    root: Path | None = None,
    video: Path | None = None,
    each: int = 6,
    clips: int = 200,
    boot: tuple[int, int] = (1000, 0),
) -> None:
    """Writes the report.

    Args:
        inputs: Run folders, weights, predictions files or forecasts files.
        out: HTML file; written atomically.
        root: Dataset folder; `$VIDREASON_DATA/DATASET` if not given.
        video: Video that a forecasts file was made from, for its frames.
        each: Number of cases in each group, at most.
        clips: Number of test clips that a decomposition is scored on.
        boot: Number of bootstrap resamples, and their random seed.

    Raises:
        DataError: An input is of another kind, damaged, or does not fit the dataset.
    """
    if out.suffix != ".html":
        raise DataError("--out", f"{out} does not end in .html", "choose such a name")
    intent, parts = [], []
    for path in inputs:
        if path.is_file() and are_forecasts(path):
            parts.append(video_part(read_forecasts(path), each, video))
        elif _is_decomposition(path):
            parts.append(decomposition_part(path, root, clips, each))
        else:
            intent.append(path)
    parts = [*(intent_parts(intent, root, each, boot) if intent else ()), *parts]
    write_page(out, f"vidreason: {', '.join(path.name for path in inputs)}", parts)


def _is_decomposition(path: Path) -> bool:
    config = (weights_folder(path) or path) / CONFIG
    return config.is_file() and "DecomposeTask" in config.read_text("utf-8")
