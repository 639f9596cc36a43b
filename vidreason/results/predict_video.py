"""Predictions for a video without annotation: a forecasts file, an overlay video and a report."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from vidreason.core.errors import DataError
from vidreason.core.files import progress, sweep
from vidreason.intent.data import IntentData
from vidreason.intent.task import IntentTask
from vidreason.perception import masks
from vidreason.perception.prepare import DEFAULT, track_instances
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video, video_writer
from vidreason.results.forecasts import horizon_words, write_forecasts
from vidreason.results.live import Live
from vidreason.results.overlay import Overlay, Shown
from vidreason.results.report import write_report
from vidreason.runs.train import load_with_data
from vidreason.runs.weights import DEFAULT_VIDEO

OUTPUTS = "forecasts.parquet", "overlay.mp4", "report.html"


class TrackedFrame(NamedTuple):
    """A frame with its N tracked instances.

    Attributes:
        number: Frame number.
        picture: (H, W, 3) uint8 RGB.
        track: (N,) track number.
        kind: (N,) index into `vidreason.scenes.scene.KINDS`.
        box: (N, 4) corners x1, y1, x2, y2, px.
        appearance: (N, C) features.
    """

    number: int
    picture: np.ndarray
    track: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    appearance: np.ndarray


def predict_video(
    path: Path,
    out: Path,
    weights: str = DEFAULT_VIDEO,
    store: Path | None = None,
    segmenter: str = DEFAULT,
    device: str = "cpu",
    confidence: float = 0.5,
    every: int = 1,
    rate: float | None = None,
    height: int = 720,
) -> dict[str, list[float]]:
    """Segments and tracks a video, predicts for every person in it, and writes the `OUTPUTS`.

    Args:
        path: Video file.
        out: Output folder.
        weights: Name of weights, a weights folder or a run folder.
        store: Store that contains the video; it is then not segmented again.
        segmenter: Segmentation model, of the Hugging Face hub or a folder.
        device: Torch device of the segmenter.
        confidence: Lowest confidence of a segment, in [0, 1].
        every: Step between processed frames; of a store, its own.
        rate: Frame rate the model was trained at; that of its dataset if not given.
        height: Height of the overlay video, px.

    Returns:
        Seconds spent on each frame, by step.

    Raises:
        DataError: The video, the store or the weights cannot be used.
    """
    video = Video(path)
    prepared = Prepared(store / f"{path.stem}.arrow") if store else None
    every = int(prepared.about["every"]) if prepared else every
    task, data = load_with_data(weights)
    if not isinstance(task, IntentTask) or not isinstance(data, IntentData):
        problem = "are of a decomposition model, which does not predict crossing"
        raise DataError("--weights", problem, f"use other weights, such as {DEFAULT_VIDEO}")
    live = Live(task, data, video.fps, (video.width, video.height), every, rate)
    if prepared:
        frames = frames_of_store(video, prepared)
    else:
        from vidreason.perception.segmenter import Segmenter

        segment = Segmenter(segmenter, device, confidence)
        frames = segmented_frames(video.frames(every), segment, video.fps / every)
    seconds = predict_frames(live, video, frames, every, out, weights, height)
    write_report([out / OUTPUTS[0]], out / OUTPUTS[2], video=path)
    return seconds


def segmented_frames(
    frames: Iterable[tuple[int, np.ndarray]], segment: Any, fps: float
) -> Iterator[TrackedFrame]:
    """Yields frames with their instances as they come; for the arguments see `track_instances`."""
    for seen in track_instances(frames, segment, fps):
        kind, box = seen.found.kind, masks.boxes(seen.mask)
        yield TrackedFrame(seen.number, seen.frame, seen.track, kind, box, seen.appearance)


def frames_of_store(video: Video, prepared: Prepared) -> Iterator[TrackedFrame]:
    """Yields the frames of a prepared video with their instances.

    Raises:
        DataError: The store is of another video.
    """
    about = prepared.about
    size = (int(about["width"]), int(about["height"]), prepared.length)
    if size != (video.width, video.height, video.length):
        problem = f"was made from a video of another size or length than {video.path}"
        raise DataError(prepared.path, problem, "run `vidreason prepare` on this video")
    track, kind = prepared.table["track"].to_numpy(), prepared.kinds()
    box, appearance = prepared.boxes(), prepared.features()
    for number, picture in video.frames(int(about["every"])):
        rows = slice(*np.searchsorted(prepared.frame, [number, number + 1]))
        yield TrackedFrame(number, picture, track[rows], kind[rows], box[rows], appearance[rows])


def predict_frames(
    live: Live,
    video: Video,
    frames: Iterable[TrackedFrame],
    every: int,
    out: Path,
    model: str,
    height: int = 720,
) -> dict[str, list[float]]:
    """Writes forecasts and overlay of a video frame by frame; both appear atomically.

    Args:
        live: Model.
        video: Video file.
        frames: Processed frames of the video.
        every: Step between processed frames.
        out: Output folder.
        model: Name of the model.
        height: Height of the overlay video, px.

    Returns:
        Seconds spent on each frame, by step.
    """
    task, data = live.task, live.data
    words = horizon_words(data.protocol, task.horizon, live.rate)
    threshold = float(task.threshold)
    ahead = np.arange(task.horizon) + (data.protocol == "stip")
    meta = {"video": video.path.name, "fps": video.fps, "every": every, "length": video.length}
    meta |= {"width": video.width, "height": video.height, "threshold": threshold}
    meta |= {"words": words, "model": model}
    overlay = Overlay(video.width, video.height, video.fps / every, threshold, words, height)
    spent: dict[str, list[float]] = {"segment and track": [], "predict": [], "draw and write": []}
    with ExitStack() as stack:
        for name in OUTPUTS:
            sweep(out, name)
        table = stack.enter_context(write_forecasts(out / OUTPUTS[0], meta, ahead))
        write = stack.enter_context(video_writer(out / OUTPUTS[1], video.fps / every))
        bar = stack.enter_context(progress())
        shown = bar.add_task("predicting", total=-(-video.length // every))
        before = time.perf_counter()
        for one in frames:
            seen = time.perf_counter()
            now = live(one.number, one.track, one.kind, one.box, one.appearance)
            known = np.isfinite(now.probability[:, -1])
            predicted = time.perf_counter()
            names = [str(track) for track in one.track]
            people = [name for name, some in zip(names, known, strict=True) if some]
            table.add(one.number, people, one.box[known], now.probability[known])
            chance, unknown = now.probability[:, -1], np.full(len(names), -1, np.int8)
            drawn = Shown(one.box, names, one.kind, chance, unknown, now.edge, now.change[:, -1])
            write(overlay(one.number, one.picture, drawn))
            bar.advance(shown)
            after = time.perf_counter()
            for name, start, stop in zip(
                spent, (before, seen, predicted), (seen, predicted, after), strict=True
            ):
                spent[name].append(stop - start)
            before = after
    return spent


def latency_table(seconds: dict[str, list[float]]) -> Table:
    """Returns a table of median and 95th percentile of the time per frame.

    Args:
        seconds: Seconds spent on each frame, by step.
    """
    table = Table("ms per frame", title="latency")
    for column in ("median", "95th percentile"):
        table.add_column(column, justify="right")
    total = np.sum(list(seconds.values()), 0).tolist()
    for name, values in {**seconds, "total": total}.items():
        ends = np.percentile(values, [50, 95]) * 1e3
        table.add_row(name, *(f"{value:.1f}" for value in ends))
    table.caption = f"{len(total)} frames"
    return table
