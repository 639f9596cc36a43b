"""Rendering: predictions, tracks and graphs drawn on video; decomposed clips as filmstrips."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidreason.core.errors import DataError
from vidreason.core.files import progress, write_atomic
from vidreason.decomposition.clip import Clip
from vidreason.decomposition.filmstrips import draw_animation, draw_filmstrip
from vidreason.decomposition.task import DecomposeTask
from vidreason.intent.data import IntentData
from vidreason.intent.datasets import DATASETS, clips_folder, dataset_root, read_split
from vidreason.intent.predictions import read_predictions
from vidreason.intent.task import IntentTask
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video, video_writer
from vidreason.results.forecasts import are_forecasts, forecast_scene
from vidreason.results.layers import (
    Layers,
    of_everywhere,
    of_forecasts,
    of_predictions,
    of_scene,
    of_store,
    target_words,
)
from vidreason.results.overlay import TRACKS, Overlay
from vidreason.results.recording import write_recording
from vidreason.runs.train import load_with_data
from vidreason.scenes.scene import Scene

_SPLITS = ("train", "val", "test")
_GIF_COLOURS = 96


def render(
    source: str,
    out: Path,
    clip: str | None = None,
    video: Path | None = None,
    root: Path | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    height: int = 720,
    clips: int = 4,
) -> None:
    """Renders a run, weights, predictions, forecasts, a store file, or a dataset's annotation.

    Args:
        source: Path of a run or file, name of weights, or name of a dataset.
        out: Output file; for a decomposition a file or a folder. The suffix selects the format.
        clip: Video of the dataset.
        video: Video file to draw on; the dataset's own video if not given.
        root: Dataset folder; `$VIDREASON_DATA/DATASET` if not given.
        start: Start time, seconds.
        seconds: Duration, seconds; to the end if not given.
        height: Height of the output video, px.
        clips: Number of test clips of a decomposition, if `out` is a folder.

    Raises:
        DataError: The source, the video or the format cannot be used.
    """
    path, dataset = Path(source), None
    if path.is_file() or source in DATASETS:
        _check_format(out)
    if path.is_file():
        if path.suffix == ".arrow":
            layers = of_store(Prepared(path))
        elif are_forecasts(path):
            layers = of_forecasts(path)
        else:
            predictions = read_predictions(path)
            dataset = predictions.meta["dataset"]
            layers = of_predictions(predictions, _scene(clip, predictions.meta, root))
    elif source in DATASETS:
        dataset = source
        layers = of_scene(_scene(clip, {"dataset": dataset}, root))
    else:
        task, data = load_with_data(source, root)
        if isinstance(task, DecomposeTask):
            _render_clips(task, data, out, clips)
            return
        assert isinstance(task, IntentTask) and isinstance(data, IntentData)
        _check_format(out)
        dataset, folder = data.dataset, data.root or None
        meta = {"dataset": dataset, "protocol": data.protocol, "subset": data.subset}
        scene = _scene(clip, meta, folder)
        words = target_words(meta, data.horizon, scene)
        layers = of_everywhere(scene, forecast_scene(task, data, scene), task, words)
        root = Path(folder) if folder else None
    if video is None and dataset:
        video = _own_video(layers, clips_folder(dataset, root))
    _render_video(out, layers, video, start, seconds, height)


def _scene(clip: str | None, meta: dict[str, Any], root: Path | str | None) -> Scene:
    """The scene of a dataset's video, from any split."""
    if clip is None:
        raise DataError("--clip", "is not given", "name a video of the dataset")
    dataset = meta["dataset"]
    protocol = meta.get("protocol", "stip" if dataset.startswith("stip") else "benchmark")
    names = []
    splits = [meta["split"]] if "split" in meta else _SPLITS
    for split in splits:
        folder = dataset_root(dataset, root)
        scenes = read_split(dataset, folder, protocol, split, meta.get("subset", "all"))
        for scene in scenes:
            if scene.id == clip:
                return scene
        names += [scene.id for scene in scenes]
    near = difflib.get_close_matches(clip, names, 1)
    fix = f"did you mean {near[0]!r}?" if near else f"give one such as {names[0]!r}"
    raise DataError("--clip", f"{clip!r} is not one of the {len(names)} videos of {dataset}", fix)


def _check_format(out: Path) -> None:
    if out.suffix not in (".mp4", ".gif", ".rrd"):
        problem = f"must end in .mp4, .gif or .rrd, got {out}"
        raise DataError("--out", problem, "choose one of these")


def _own_video(layers: Layers, clips: Path | None) -> Path | None:
    """The dataset's own video, if it is available."""
    path = clips / f"{layers.name}.mp4" if clips else None
    return path if path and path.is_file() else None


# --- Video


def _render_video(
    out: Path,
    layers: Layers,
    path: Path | None,
    start_time: float,
    seconds: float | None,
    height: int,
) -> None:
    start = round(start_time * layers.fps)
    stop = layers.length
    if seconds is not None:
        stop = min(stop, start + max(1, round(seconds * layers.fps)))
    if start >= layers.length:
        problem = f"{start_time} s is after the end at {layers.length / layers.fps:.1f} s"
        raise DataError("--start", problem, "give an earlier time")
    overlay = Overlay(*layers.size, layers.fps, layers.threshold, layers.words, height)
    frames = _frames(layers, overlay.size, _open(path, layers), start, stop)
    if out.suffix == ".rrd":
        write_recording(out, layers, frames)
        return

    def drawn() -> Iterator[np.ndarray]:
        for number, picture in frames:
            yield overlay(number, picture, layers.at(number))

    if out.suffix == ".gif":
        _write_gif(out, drawn(), layers.fps, stop - start)
    else:
        with video_writer(out, layers.fps) as write:
            for picture in drawn():
                write(picture)


def _open(path: Path | None, layers: Layers) -> Video | None:
    """The video to draw on, if there is one."""
    if path is None:
        print("no video to draw on; give one with --video")
        return None
    video = Video(path)
    if ((video.width, video.height), video.length) != (layers.size, layers.length):
        size = "{} x {} px and {} frames".format
        problem = f"has {size(video.width, video.height, video.length)}, "
        problem += f"expected {size(*layers.size, layers.length)}"
        raise DataError(path, problem, "give the right video")
    return video


def _frames(
    layers: Layers, size: tuple[int, int], video: Video | None, start: int, stop: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Number and image of each frame, scaled and tinted by masks; with a progress bar."""
    pictures = video.frames(size=size) if video else ((n, None) for n in range(stop))
    with progress() as bar:
        shown = bar.add_task("rendering", total=stop - start)
        for number, picture in pictures:
            if number >= stop:
                return
            if number < start:
                continue
            rows = layers.rows(number)
            if layers.masks is not None and rows.start < rows.stop:
                if picture is None:
                    picture = np.zeros((size[1], size[0], 3), np.uint8)
                _tint(picture, layers.masks(rows), layers.track[rows])
            yield number, picture
            bar.advance(shown)


def _tint(picture: np.ndarray, instance: np.ndarray, track: np.ndarray) -> None:
    """Colours instances in place, by track.

    Args:
        picture: (h, w, 3) uint8 RGB.
        instance: (H, W) instance of each pixel, 1 to N; 0 background.
        track: (N,) track number of each instance.
    """
    tall, wide = picture.shape[:2]
    y = np.arange(tall) * instance.shape[0] // tall
    x = np.arange(wide) * instance.shape[1] // wide
    small = instance[y[:, None], x]
    shades = np.array(TRACKS, np.uint8)[track % len(TRACKS)]
    inside = small > 0
    picture[inside] = picture[inside] // 2 + shades[small[inside] - 1] // 2


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float, count: int) -> None:
    # Browsers slow down GIFs of more than 20 frames a second.
    step = max(1, round(fps / 15))
    images = (
        Image.fromarray(frame).quantize(_GIF_COLOURS)
        for number, frame in enumerate(frames)
        if number % step == 0
    )
    first = next(images)
    # Durations are in hundredths of a second; rounding the ends keeps errors from adding up.
    ends = np.rint(np.append(np.arange(0, count, step), count) / fps * 100)
    options: dict[str, Any] = {"duration": (10 * np.diff(ends)).astype(int).tolist(), "loop": 0}
    with write_atomic(path) as temporary:
        first.save(temporary, "gif", save_all=True, append_images=images, **options)


# --- Decomposition


def _render_clips(task: DecomposeTask, data: Any, out: Path, count: int) -> None:
    """Draws filmstrips and animations of the first test clips."""
    single = bool(out.suffix)
    draw = {".png": draw_filmstrip, ".gif": draw_animation, ".mp4": draw_animation}
    if single and out.suffix not in draw:
        problem = f"must be a folder or end in .png, .gif or .mp4, got {out}"
        raise DataError("--out", problem, "choose one of these")
    data.setup("test")
    left = 1 if single else count
    with progress() as bar:
        shown = bar.add_task("drawing", total=left)
        for clip in data.test_dataloader():
            parts: list[Any] = [None if part is None else part[:left] for part in clip]
            clip = Clip(*parts)
            frames = clip.frames.float() / 255
            t_in = task.input_frames
            found = task.decompose(frames[:, :t_in], frames.shape[1] - t_in)
            for i, index in enumerate(clip.index.tolist()):
                paths = (
                    [out] if single else [out / f"clip_{index:05d}{s}" for s in (".png", ".gif")]
                )
                for path in paths:
                    draw[path.suffix](path, frames, found, t_in, i)
                bar.advance(shown)
            left -= len(frames)
            if left <= 0:
                break
