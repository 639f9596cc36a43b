"""Forecasts for a video as it comes, frame by frame, in memory that does not grow.

`Live` takes what a tracker says of each frame, from a file or a camera, and answers at once.
`vidreason predict --video` is a loop around it.
"""

import argparse
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from vidreason.core.errors import DataError
from vidreason.core.files import progress, sweep
from vidreason.intent.data import IntentData
from vidreason.intent.datasets import RATES
from vidreason.intent.task import IntentTask
from vidreason.intent.windows import open_windows
from vidreason.perception import masks
from vidreason.perception.prepare import DEFAULT, follow
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video, video_writer
from vidreason.results.forecasts import horizon_words, write_forecasts
from vidreason.results.overlay import Overlay, Shown
from vidreason.results.report import write_report
from vidreason.runs.train import load_with_data
from vidreason.runs.weights import DEFAULT_VIDEO
from vidreason.scenes.scene import bare_scene

OUTPUTS = "forecasts.parquet", "overlay.mp4", "report.html"
_VISIBLE = ("box", "neighbours", "objects")
_GAP = 0.5  # seconds out of sight that are bridged
_SAME = 0.05  # share by which a video's frames may come faster or slower than those learned from


class Now(NamedTuple):
    """Forecasts for the N instances of a frame, in the order they were given in.

    Attributes:
        probability: (N, K); NaN for what is no person, or was not seen for long enough.
        edge: (E, 2) who sends to whom, of the N.
        change: (E, K) by how much the sender raises that probability.
    """

    probability: np.ndarray
    edge: np.ndarray
    change: np.ndarray


class Live:
    """Forecasts for everybody in the frames of a video or camera, one frame after another.

    A model knows boxes at the rate of its dataset. Where frames come at another rate, or only each
    nth is looked at, boxes between are interpolated, as they are where somebody is out of sight
    for up to half a second. What has not been seen over the whole time observed gets no forecast.

    Args:
        task: In `eval` mode.
        data: That it was trained with; need not have been read.
        fps: Frames per second, of those that are numbered.
        size: Width and height, pixels.
        every: Frames from one that is looked at to the next.
        rate: Frames per second that the model learned from; the dataset's own if not given.

    Raises:
        DataError: The model sees what no video shows, or its rate is not known.
    """

    def __init__(
        self,
        task: IntentTask,
        data: IntentData,
        fps: float,
        size: tuple[int, int],
        every: int = 1,
        rate: float | None = None,
    ) -> None:
        if hidden := [name for name in data.features if name not in _VISIBLE]:
            problem = f"see {', '.join(hidden)}, which a video alone does not show"
            raise DataError("--weights", problem, f"take others, such as {DEFAULT_VIDEO}")
        rate = rate or RATES.get(data.dataset)
        if rate is None:
            problem = f"is not known of {data.dataset!r}"
            raise DataError("--rate", problem, "give the frames per second that were trained with")
        self.task, self.data, self.size, self.rate = task, data, size, rate
        step = fps / rate
        self.step = 1.0 if abs(step - 1) < _SAME and every == 1 else step
        self.gap = max(_GAP * fps, 1.5 * every)
        span = (data.observed - 1) * self.step + self.gap
        self.seen: deque[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]]
        self.seen = deque(maxlen=int(np.ceil(span / every)) + 2)

    def __call__(
        self,
        number: int,
        track: np.ndarray,
        kind: np.ndarray,
        box: np.ndarray,
        look: np.ndarray | None = None,
    ) -> Now:
        """What is forecast when a frame has been looked at.

        Args:
            number: Of the frame, greater than the last one.
            track: (N,) numbers that tell who is who.
            kind: (N,) index into `vidreason.scenes.scene.KINDS`.
            box: (N, 4) px.
            look: (N, C) features, where the model sees any.

        Raises:
            DataError: Features that the model needs are missing, or of another width.
        """
        wanted = self.data.image_features
        if wanted and (look is None or look.shape[1] != wanted):
            width = 0 if look is None else look.shape[1]
            mend = "take the segmenter that the model was trained with"
            raise DataError("--segmenter", f"gives {width} features, the model sees {wanted}", mend)
        self.seen.append((number, track, kind, box, look if wanted else None))
        steps = self.task.horizon
        now = Now(
            np.full((len(track), steps), np.nan, np.float32),
            np.empty((0, 2), np.int64),
            np.empty((0, steps), np.float32),
        )
        if not len(track):
            return now
        scene, ids = self._scene(number)
        windows = open_windows([scene], self.data.protocol, self.data.observed, steps)
        graphs = self.data.graphs([scene], windows)
        # Of those who are out of sight nobody would see the forecast.
        order = np.argsort(track)
        place = np.minimum(np.searchsorted(track, ids, sorter=order), len(track) - 1)
        here = np.where(track[order[place]] == ids, order[place], -1)
        asked = np.flatnonzero(here[windows.track] >= 0)
        if not len(asked):
            return now
        probability = self.task.forecast(graphs, asked)
        target = here[windows.track[asked]]
        now.probability[target] = probability
        window, sender, change = self.task.influence(graphs, asked, probability)
        edge = np.stack([here[sender], target[window]], 1)
        shown = edge[:, 0] >= 0
        return now._replace(edge=edge[shown], change=change[shown])

    def _scene(self, now: int) -> tuple[Any, np.ndarray]:
        """The last T steps as a scene at the model's rate, and the number of each of its tracks."""
        numbers, tracks, kinds, boxes, looks = zip(*self.seen, strict=True)
        at, frames = np.array(numbers, float), len(numbers)
        row_frame = np.repeat(np.arange(frames), [len(t) for t in tracks])
        ids, row_track = np.unique(np.concatenate(tracks), return_inverse=True)
        kind = np.zeros(len(ids), np.int8)
        kind[row_track] = np.concatenate(kinds)
        box = np.concatenate(boxes)
        row = np.full((len(ids), frames), -1)
        row[row_track, row_frame] = np.arange(len(row_track))

        # The last frame each was seen in before, and the first after; `frames` and -1 are never.
        there, index = row >= 0, np.arange(frames)
        last = np.maximum.accumulate(np.where(there, index, -1), 1)
        first = np.minimum.accumulate(np.where(there, index, frames)[:, ::-1], 1)[:, ::-1]
        wanted = now - self.step * np.arange(self.data.observed)[::-1]  # (T,)
        slot = np.searchsorted(at, wanted + 1e-6, "right") - 1
        after = np.minimum(slot + (at[slot] < wanted - 1e-6), frames - 1)
        before, after = last[:, np.maximum(slot, 0)], first[:, after]
        valid = (slot >= 0) & (before >= 0) & (after < frames)
        before, after = np.where(valid, before, 0), np.where(valid, after, 0)
        way = at[after] - at[before]
        valid &= way <= self.gap
        share = (np.clip((wanted - at[before]) / np.maximum(way, 1e-9), 0, 1))[..., None]
        track = np.arange(len(ids))[:, None]
        early, late = row[track, before], row[track, after]
        between = (1 - share) * box[early] + share * box[late]

        which, step = np.nonzero(valid)
        kept = np.flatnonzero(valid.any(1))
        image = None
        if self.data.image_features:
            image = np.concatenate(looks)[early[valid]].astype(np.float16)
        scene = bare_scene(
            "live",
            self.rate,
            self.size,
            self.data.observed,
            tuple(str(i) for i in ids[kept]),
            kind[kept],
            np.concatenate([[0], np.cumsum(valid.sum(1)[kept])]).astype(np.int64),
            step,
            between[which, step],
            image,
        )
        return scene, ids[kept]


class Looked(NamedTuple):
    """A frame with the N instances in it, and how long it took to see them.

    Attributes:
        number: Of the frame.
        picture: (H, W, 3) uint8 RGB.
        track: (N,).
        kind: (N,).
        box: (N, 4) px.
        look: (N, C).
    """

    number: int
    picture: np.ndarray
    track: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    look: np.ndarray


def from_segmenter(
    frames: Iterable[tuple[int, np.ndarray]], segment: Any, fps: float
) -> Iterator[Looked]:
    """Segments and follows frames as they come; arguments as of `follow`."""
    for seen in follow(frames, segment, fps):
        box = masks.boxes(seen.mask)
        yield Looked(seen.number, seen.frame, seen.track, seen.found.kind, box, seen.look)


def from_store(video: Video, prepared: Prepared) -> Iterator[Looked]:
    """What a prepared video holds, beside its frames.

    Raises:
        DataError: The store is of another video.
    """
    about = prepared.about
    size = (int(about["width"]), int(about["height"]), prepared.length)
    if size != (video.width, video.height, video.length):
        problem = "is of a video of another size or length"
        raise DataError(prepared.path, problem, f"prepare {video.path}")
    track, kind = prepared.table["track"].to_numpy(), prepared.kinds()
    box, look = prepared.boxes(), prepared.features()
    for number, picture in video.frames(int(about["every"])):
        rows = slice(*np.searchsorted(prepared.frame, [number, number + 1]))
        yield Looked(number, picture, track[rows], kind[rows], box[rows], look[rows])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `predict --video`."""
    parser.description = """\
Forecasts for a video of your own: segments it frame by frame, follows who is in it, asks the model
about everybody in every frame, and writes probabilities (Parquet), the video with what was found
drawn over it (H.264) and a page to look at. Works on one frame at a time, as a live camera would:
see `vidreason.Live`. What has been prepared already is not segmented again (--store)."""
    parser.epilog = """examples:
  vidreason predict --video drive.mp4 --out drive
  vidreason predict --video drive.mp4 --every 3 --device cuda
  vidreason predict --video drive.mp4 --store store --weights runs/mine

A segmenter takes seconds a frame without a GPU; with --every 6 each sixth frame is looked at, and
boxes between are interpolated. It comes from the Hugging Face hub, or from a folder that
`save_pretrained` wrote; vidreason[segment] must be installed."""
    parser.add_argument(
        "--video", nargs="?", type=Path, metavar="FILE", help="mp4, mov, avi, mkv, webm"
    )
    parser.add_argument(
        "--weights",
        default=DEFAULT_VIDEO,
        metavar="NAME-OR-RUN",
        help=f"weights that come with the package, a folder of weights or a run ({DEFAULT_VIDEO})",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for results (runs/NAME of the video)"
    )
    parser.add_argument(
        "--store", type=Path, metavar="STORE", help="of `vidreason prepare`, with this video"
    )
    parser.add_argument("--segmenter", default=DEFAULT, metavar="NAME-OR-PATH", help=f"({DEFAULT})")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="look at each Nth frame (1)"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.5, metavar="P", help="of a segment, at least (0.5)"
    )
    parser.add_argument(
        "--device", default="cpu", help="of torch, for the segmenter: cpu, cuda (cpu)"
    )
    parser.add_argument(
        "--rate", type=float, metavar="FPS", help="frames per second the model learned from"
    )
    parser.add_argument(
        "--height", type=int, default=720, metavar="PX", help="of the overlay video (720)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.video is None:
        raise DataError("--video", "is given without a file", "give a video file")
    for option, low, high in (("every", 1, 10**6), ("height", 64, 4320)):
        if not low <= (value := getattr(args, option)) <= high:
            raise DataError(f"--{option}", f"{value} is not within {low} and {high}", "correct it")
    if not 0 <= args.confidence <= 1:
        raise DataError("--confidence", f"{args.confidence} is not within 0 and 1", "correct it")
    video = Video(args.video)
    prepared = Prepared(args.store / f"{args.video.stem}.arrow") if args.store else None
    every = int(prepared.about["every"]) if prepared else args.every
    task, data = load_with_data(args.weights)
    if not isinstance(task, IntentTask) or not isinstance(data, IntentData):
        problem = "take clips apart; they know nothing of streets"
        raise DataError("--weights", problem, f"take others, such as {DEFAULT_VIDEO}")
    live = Live(task, data, video.fps, (video.width, video.height), every, args.rate)
    if prepared:
        looked = from_store(video, prepared)
    else:
        from vidreason.perception.segmenter import Segmenter

        segment = Segmenter(args.segmenter, args.device, args.confidence)
        looked = from_segmenter(video.frames(every), segment, video.fps / every)
    out = args.out or Path("runs") / args.video.stem
    spent = predict(live, video, looked, every, out, args.weights, args.height)
    write_report([out / OUTPUTS[0]], out / OUTPUTS[2], video=args.video)
    _print(spent, out)
    return 0


def predict(
    live: Live,
    video: Video,
    looked: Iterable[Looked],
    every: int,
    out: Path,
    model: str,
    height: int = 720,
) -> dict[str, list[float]]:
    """Writes forecasts and overlay of a video, frame by frame; both appear when they are whole.

    Args:
        live: The forecaster.
        video: The file.
        looked: Its frames that were looked at.
        every: Frames from one to the next.
        out: Folder.
        model: What the forecaster is called.
        height: Of the overlay, px.

    Returns:
        Seconds for each frame, by what they were spent on.
    """
    task, data = live.task, live.data
    words = horizon_words(data.protocol, task.horizon, live.rate)
    threshold = float(task.threshold)
    ahead = np.arange(task.horizon) + (data.protocol == "stip")
    meta = {"video": video.path.name, "fps": video.fps, "every": every, "length": video.length}
    meta |= {"width": video.width, "height": video.height, "threshold": threshold}
    meta |= {"words": words, "model": model}
    overlay = Overlay(video.width, video.height, video.fps / every, threshold, words, height)
    spent: dict[str, list[float]] = {"see": [], "forecast": [], "draw and write": []}
    with ExitStack() as stack:
        for name in OUTPUTS:
            sweep(out, name)
        table = stack.enter_context(write_forecasts(out / OUTPUTS[0], meta, ahead))
        write = stack.enter_context(video_writer(out / OUTPUTS[1], video.fps / every))
        bar = stack.enter_context(progress())
        shown = bar.add_task("forecasting", total=-(-video.length // every))
        before = time.perf_counter()
        for one in looked:
            seen = time.perf_counter()
            now = live(one.number, one.track, one.kind, one.box, one.look)
            known = np.isfinite(now.probability[:, -1])
            forecast = time.perf_counter()
            names = [str(track) for track in one.track]
            people = [name for name, some in zip(names, known, strict=True) if some]
            table.add(one.number, people, one.box[known], now.probability[known])
            chance, unknown = now.probability[:, -1], np.full(len(names), -1, np.int8)
            drawn = Shown(one.box, names, one.kind, chance, unknown, now.edge, now.change[:, -1])
            write(overlay(one.number, one.picture, drawn))
            bar.advance(shown)
            after = time.perf_counter()
            for name, start, stop in zip(
                spent, (before, seen, forecast), (seen, forecast, after), strict=True
            ):
                spent[name].append(stop - start)
            before = after
    return spent


def _print(spent: dict[str, list[float]], out: Path) -> None:
    """Latency and what was written."""
    table = Table("a frame, ms", title="latency")
    for column in ("median", "95 %"):
        table.add_column(column, justify="right")
    spent = {**spent, "all": np.sum(list(spent.values()), 0).tolist()}
    for name, seconds in spent.items():
        ends = np.percentile(seconds, [50, 95]) * 1e3
        table.add_row(name, *(f"{value:.1f}" for value in ends))
    # In KiB, but on a Mac in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (
        20 if sys.platform == "darwin" else 10
    )
    table.caption = f"{len(spent['all'])} frames; peak memory {peak:,} MiB"
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for name in OUTPUTS:
        print(out / name)
