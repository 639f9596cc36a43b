"""Report sections about a video without annotation: a forecasts file."""

from pathlib import Path

import numpy as np

from vidreason.results import cases, page
from vidreason.results.forecasts import Forecasts
from vidreason.results.page import Part, Section, Sheet


def video_part(forecasts: Forecasts, each: int, video: Path | None) -> Part:
    """Builds the part about a video.

    Args:
        forecasts: Forecasts of the video.
        each: Half the number of cases, at most.
        video: Video file, for its frames.
    """
    meta = forecasts.meta
    last = np.empty(0, bool)
    if len(forecasts.table):
        last = forecasts["horizon"] == forecasts["horizon"].max()
    name, seconds = forecasts["pedestrian"][last], forecasts["frame"][last] / meta["fps"]
    probability = forecasts["probability"][last]
    names, code = np.unique(name, return_inverse=True)
    rows = []
    for k, one in enumerate(names):
        at = code == k
        most = probability[at].argmax()
        rows.append(
            [
                page.word(one),
                page.number(seconds[at].min(), 1),
                page.number(seconds[at].max(), 1),
                page.number(probability[at].mean()),
                page.number(probability[at].max()),
                page.number(seconds[at][most], 1),
                page.number((probability[at] >= meta["threshold"]).mean(), 2),
                page.count(at.sum()),
            ]
        )
    rows.sort(key=lambda row: -float(row[4].value))
    head = ["pedestrian", "first seen, s", "last seen, s", "mean probability"]
    head += ["maximum", "time of maximum, s"]
    head += [f"fraction of frames at {meta['threshold']:.2f} or more", "frames"]
    duration = meta["length"] / meta["fps"]
    text = f"{meta['model']} on {meta['video']}: {meta['width']} × {meta['height']}, "
    text += f"{duration:.1f} s at {meta['fps']:.4g} fps. Predicted: {meta['words']}. "
    text += "The video has no annotation, so there are no metrics."
    sheet = Sheet(f"{len(rows):,} pedestrians", head, rows, search=True)
    shown = cases.describe_forecasts(forecasts, 2 * each, video)
    about = "Pedestrians with the highest probability, at that moment and in the second before it."
    return Part(
        f"video {meta['video']}",
        [
            Section("Summary", text, [sheet]),
            Section("Cases", about, groups={"highest probability": shown}, kind="case"),
        ],
    )
