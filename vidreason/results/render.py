"""`vidreason render`: forecasts, tracks and graphs as video, and clips taken apart as pictures."""

import argparse
import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vidreason.core.errors import DataError
from vidreason.core.files import progress, write_atomic
from vidreason.decomposition.clip import Clip
from vidreason.decomposition.filmstrips import draw_animation, draw_filmstrip
from vidreason.decomposition.task import DecomposeTask
from vidreason.intent.data import IntentData
from vidreason.intent.datasets import DATASETS, RATES, clips_folder, dataset_root, read_split
from vidreason.intent.predictions import Predictions, read_predictions
from vidreason.intent.task import IntentTask
from vidreason.perception.masks import Masks, numbers
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video, video_writer
from vidreason.results.forecasts import (
    Everywhere,
    are_forecasts,
    forecast_scene,
    horizon_words,
    read_forecasts,
)
from vidreason.results.overlay import TRACKS, Overlay, Shown, edge_colour
from vidreason.runs.train import load_with_data
from vidreason.scenes.scene import KINDS, Scene

_HOLD = 0.5  # seconds that a forecast is shown for, until the next
_SPLITS = ("train", "val", "test")
_GIF_COLOURS = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Draws over a video: boxes and their trails, forecasts with a bar for each, the edges of the graph,
as wide as the forecast changes without that neighbour. Of an intent model with --clip it forecasts
in every frame of that video of its dataset; a predictions file is shown as it is. Of a
decomposition it draws filmstrips and animations of test clips. The name of --out chooses: .mp4
(H.264, which browsers play), .gif, or .rrd for the Rerun viewer (vidreason[rerun])."""
    parser.epilog = """examples:
  vidreason render runs/graph --clip video_0001 --out clip.mp4
  vidreason render jaad_all --clip video_0271 --start 2 --seconds 5 --out clip.gif
  vidreason render runs/graph/predictions.parquet --clip video_0271 --out clip.mp4
  vidreason render drive/forecasts.parquet --video drive.mp4 --out drive.rrd
  vidreason render store/drive.arrow --video drive.mp4 --out tracks.mp4
  vidreason render jaad --clip video_0001 --out annotation.mp4
  vidreason render runs/moving_mnist --clips 8 --out strips
  vidreason render moving_mnist --out first.gif

Frames behind are those of --video, or the dataset's own in ROOT/JAAD_clips or ROOT/videos."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="run, weights, predictions or forecasts file, store file, or dataset",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="or folder of clips"
    )
    parser.add_argument("--clip", metavar="NAME", help="video of the dataset")
    parser.add_argument("--video", type=Path, metavar="FILE", help="frames to draw over")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="dataset ($VIDREASON_DATA/DATASET)"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds to skip (0)")
    parser.add_argument("--seconds", type=float, metavar="S", help="to draw (to the end)")
    parser.add_argument("--height", type=int, default=720, metavar="PX", help="of the video (720)")
    parser.add_argument(
        "--clips", type=int, default=4, metavar="N", help="of a decomposition, into a folder (4)"
    )


class Layers(NamedTuple):
    """What is drawn over a video: L boxes sorted by frame, E edges between them.

    Attributes:
        name: Of the video.
        fps: Frames per second.
        size: Width and height, px.
        length: F, frames.
        threshold: Of the forecasts.
        words: What is forecast; empty if nothing is.
        frame: (L,).
        track: L names.
        kind: (L,) index into `KINDS`.
        box: (L, 4) px.
        probability: (L,), NaN where nothing is forecast.
        label: (L,) 1 crosses now, 0 does not, -1 unknown.
        edge: (E, 2) rows: who sends, and whose forecast it is; sorted by the latter.
        weight: (E,), NaN unknown.
        masks: Gives, for the rows of a frame, the image (H, W) of whose each pixel is, from 1.
    """

    name: str
    fps: float
    size: tuple[int, int]
    length: int
    threshold: float
    words: str
    frame: np.ndarray
    track: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    edge: np.ndarray = np.empty((0, 2), np.int64)
    weight: np.ndarray = np.empty(0)
    masks: Callable[[slice], np.ndarray] | None = None

    def rows(self, frame: int) -> slice:
        """The boxes of a frame."""
        return slice(*np.searchsorted(self.frame, [frame, frame + 1]).tolist())

    def at(self, frame: int) -> Shown:
        """What is drawn over a frame."""
        rows = self.rows(frame)
        first, last = np.searchsorted(self.edge[:, 1], [rows.start, rows.stop])
        return Shown(
            self.box[rows],
            [str(name) for name in self.track[rows]],
            self.kind[rows],
            self.probability[rows],
            self.label[rows],
            self.edge[first:last] - rows.start,
            self.weight[first:last],
        )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    for option, low, high in (("height", 64, 4320), ("clips", 1, 10_000), ("start", 0, 1e6)):
        if not low <= (value := getattr(args, option)) <= high:
            raise DataError(f"--{option}", f"{value} is not within {low} and {high}", "correct it")
    if args.seconds is not None and args.seconds <= 0:
        raise DataError("--seconds", f"{args.seconds} is too little", "give more than 0")
    source, root, dataset = Path(args.source), args.root, None
    if source.is_file():
        if source.suffix == ".arrow":
            layers = of_store(Prepared(source))
        elif are_forecasts(source):
            layers = of_forecasts(source)
        else:
            found = read_predictions(source)
            dataset = found.meta["dataset"]
            layers = of_predictions(found, _scene(_named(args.clip), found.meta, root))
    elif args.source in DATASETS:
        dataset = args.source
        layers = of_scene(_scene(_named(args.clip), {"dataset": dataset}, root))
    else:
        task, data = load_with_data(args.source, root)
        if isinstance(task, DecomposeTask):
            return _clips(task, data, args.out, args.clips)
        assert isinstance(task, IntentTask) and isinstance(data, IntentData)
        dataset, root = data.dataset, data.root or None
        meta = {"dataset": dataset, "protocol": data.protocol, "subset": data.subset}
        scene = _scene(_named(args.clip), meta, root)
        words = _asked(meta, data.horizon, scene)
        layers = of_everywhere(scene, forecast_scene(task, data, scene), task, words)
    _render(args, layers, clips_folder(dataset, root) if dataset else None)
    print(args.out)
    return 0


def _named(clip: str | None) -> str:
    if clip is None:
        raise DataError("--clip", "is not given", "name a video of the dataset")
    return clip


def _scene(clip: str, meta: dict[str, Any], root: Path | str | None) -> Scene:
    """The video of a dataset, from whatever split it is in."""
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
    mend = f"did you mean {near[0]!r}?" if near else f"give one such as {names[0]!r}"
    raise DataError("--clip", f"no {clip!r} among {len(names)} videos of {dataset}", mend)


def _asked(meta: dict[str, Any], horizon: int, scene: Scene) -> str:
    """What is forecast of a scene, in words."""
    return horizon_words(meta["protocol"], horizon, RATES.get(meta["dataset"], scene.fps))


# --- What to draw


def of_scene(scene: Scene) -> Layers:
    """The annotation alone: who is where, and who is crossing."""
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    order = np.lexsort((track, scene.frame))
    kind = scene.kind[track[order]]
    person = kind == KINDS.index("person")
    return Layers(
        scene.id,
        scene.fps,
        (scene.width, scene.height),
        scene.length,
        0.5,
        "",
        scene.frame[order],
        np.array(scene.track_ids, object)[track[order]],
        kind,
        scene.box[order],
        np.full(len(order), np.nan),
        np.where(person, scene.labels["cross"][order], -1),
    )


def of_everywhere(scene: Scene, found: Everywhere, task: IntentTask, words: str) -> Layers:
    """A model's forecasts for everybody in every frame, with the edges of their graphs."""
    layers = of_scene(scene)
    tracks = len(scene.kind)
    key = _keys(scene)

    def place(window: np.ndarray | slice, track: np.ndarray) -> np.ndarray:
        return _find(key, found.frame[window].astype(np.int64) * tracks + track)

    target = place(slice(None), found.track)
    layers.probability[target] = found.probability[:, -1]
    edge = np.stack([place(found.window, found.sender), target[found.window]], 1)
    kept = np.flatnonzero(edge[:, 0] >= 0)
    kept = kept[np.argsort(edge[kept, 1], kind="stable")]
    return layers._replace(
        threshold=float(task.threshold),
        words=words,
        edge=edge[kept],
        weight=found.change[kept, -1],
    )


def of_predictions(found: Predictions, scene: Scene) -> Layers:
    """Predictions of a file, each from its last observed frame on, for half a second at most."""
    layers, meta, key = of_scene(scene), found.meta, _keys(scene)
    names = {name: k for k, name in enumerate(scene.track_ids)}
    rows = (found["horizon"] == found["horizon"].max()) & np.array(
        [video == scene.id for video in found.table["video"].to_pylist()], bool
    )
    who = [names.get(n, -1) for n in found.table.filter(rows)["pedestrian"].to_pylist()]
    number, last = np.array(who, np.int64), found["last_frame"][rows].astype(np.int64)
    place = _find(key, last * len(scene.kind) + number)
    if (number < 0).any() or (place < 0).any():
        mend = "give the dataset that the predictions were made from"
        raise DataError(found.source, f"has forecasts of nobody in {scene.id}", mend)
    layers.probability[place] = found["probability"][rows]
    # On to the next rows of the same track.
    track = key % max(len(scene.kind), 1)
    order = np.lexsort((layers.frame, track))
    known = np.where(np.isnan(layers.probability[order]), -1, np.arange(len(order)))
    last_known = np.maximum.accumulate(known) if len(known) else known
    source = order[np.maximum(last_known, 0)]
    age = layers.frame[order] - layers.frame[source]
    fresh = (last_known >= 0) & (track[order] == track[source]) & (age <= _HOLD * scene.fps)
    layers.probability[order] = np.where(fresh, layers.probability[source], np.nan)
    words = _asked(meta, int(found["horizon"].max()), scene)
    return layers._replace(threshold=float(meta["threshold"]), words=words)


def of_forecasts(path: Path) -> Layers:
    """What `predict --video` has written."""
    found = read_forecasts(path)
    meta = found.meta
    table = found.table.filter(found["horizon"] == found["horizon"].max(initial=0))
    count = len(table)
    return Layers(
        meta["video"],
        meta["fps"],
        (meta["width"], meta["height"]),
        meta["length"],
        meta["threshold"],
        meta["words"],
        table["frame"].to_numpy(),
        table["pedestrian"].to_numpy(zero_copy_only=False),
        np.full(count, KINDS.index("person"), np.int8),
        np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], 1),
        table["probability"].to_numpy(),
        np.full(count, -1, np.int8),
    )


def of_store(prepared: Prepared) -> Layers:
    """What a segmenter saw, with its masks."""
    about = prepared.about
    counts = prepared.table["mask"].combine_chunks()
    offsets, flat = counts.offsets.to_numpy(), counts.flatten().to_numpy()
    size = int(about["width"]), int(about["height"])

    def masks(rows: slice) -> np.ndarray:
        part = offsets[rows.start : rows.stop + 1]
        inside = flat[part[0] - offsets[0] : part[-1] - offsets[0]]
        return numbers(Masks(inside, part - part[0], size[1], size[0]))

    count = len(prepared.frame)
    return Layers(
        str(about["video"]),
        float(about["fps"]),
        size,
        prepared.length,
        0.5,
        "",
        prepared.frame,
        prepared.table["track"].to_numpy(),
        prepared.kinds(),
        prepared.boxes(),
        np.full(count, np.nan),
        np.full(count, -1, np.int8),
        masks=masks,
    )


def _keys(scene: Scene) -> np.ndarray:
    """(L,) frame and track of the rows of `of_scene` as one number, rising."""
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    return np.sort(scene.frame.astype(np.int64) * len(scene.kind) + track)


def _find(key: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of `wanted` in `key`, which rises; -1 where there is none."""
    if not len(key):
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[place] == wanted, place, -1)


# --- Drawing


def _render(args: argparse.Namespace, layers: Layers, clips: Path | None) -> None:
    start = round(args.start * layers.fps)
    stop = layers.length
    if args.seconds is not None:
        stop = min(stop, start + max(1, round(args.seconds * layers.fps)))
    if start >= layers.length:
        problem = f"{args.start} is after the end at {layers.length / layers.fps:.1f} s"
        raise DataError("--start", problem, "give less")
    overlay = Overlay(*layers.size, layers.fps, layers.threshold, layers.words, args.height)
    video = _video(args.video, layers, clips)
    frames = _frames(layers, overlay.size, video, start, stop)
    if args.out.suffix == ".rrd":
        _rerun(args.out, layers, frames)
        return
    if args.out.suffix not in (".mp4", ".gif"):
        raise DataError("--out", f"{args.out} is no .mp4, .gif or .rrd", "choose one of these")

    def drawn() -> Iterator[np.ndarray]:
        for number, picture in frames:
            yield overlay(number, picture, layers.at(number))

    if args.out.suffix == ".gif":
        _write_gif(args.out, drawn(), layers.fps, stop - start)
    else:
        with video_writer(args.out, layers.fps) as write:
            for picture in drawn():
                write(picture)


def _video(path: Path | None, layers: Layers, clips: Path | None) -> Video | None:
    """The frames to draw over, if there are any: those given, or the dataset's own."""
    if path is None and clips and (own := clips / f"{layers.name}.mp4").is_file():
        path = own
    if path is None:
        print("no frames to draw over; give them with --video")
        return None
    video = Video(path)
    if ((video.width, video.height), video.length) != (layers.size, layers.length):
        size = "{} x {} of {} frames".format
        problem = f"is {size(video.width, video.height, video.length)}, but to be drawn are "
        raise DataError(path, problem + size(*layers.size, layers.length), "give the right video")
    return video


def _frames(
    layers: Layers, size: tuple[int, int], video: Video | None, start: int, stop: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Number and picture of each frame, scaled, with masks on it; with a progress bar."""
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


def _tint(picture: np.ndarray, number: np.ndarray, track: np.ndarray) -> None:
    """Colours instances on a picture (h, w, 3), by their track.

    Args:
        picture: To be drawn on.
        number: (H, W) of the source's size: 1 to N; 0 is nobody.
        track: (N,).
    """
    tall, wide = picture.shape[:2]
    y = np.arange(tall) * number.shape[0] // tall
    x = np.arange(wide) * number.shape[1] // wide
    small = number[y[:, None], x]
    shades = np.array(TRACKS, np.uint8)[track % len(TRACKS)]
    inside = small > 0
    picture[inside] = picture[inside] // 2 + shades[small[inside] - 1] // 2


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float, count: int) -> None:
    # Browsers play more than 20 frames a second slower than asked.
    step = max(1, round(fps / 15))
    sheets = (
        Image.fromarray(frame).quantize(_GIF_COLOURS)
        for number, frame in enumerate(frames)
        if number % step == 0
    )
    first = next(sheets)
    # GIFs know hundredths of a second; rounding is not to add up.
    ends = np.rint(np.append(np.arange(0, count, step), count) / fps * 100)
    options: dict[str, Any] = {"duration": (10 * np.diff(ends)).astype(int).tolist(), "loop": 0}
    with write_atomic(path) as temporary:
        first.save(temporary, "gif", save_all=True, append_images=sheets, **options)


def _rerun(path: Path, layers: Layers, frames: Iterator[tuple[int, np.ndarray | None]]) -> None:
    """A recording for the Rerun viewer: pictures, boxes, edges, and probabilities over time."""
    overlay = Overlay(*layers.size, layers.fps, layers.threshold, layers.words)
    with _recording(path) as (rr, record):
        for number, picture in frames:
            shown = layers.at(number)
            record.set_time("frame", sequence=number)
            record.set_time("video", duration=number / layers.fps)
            scale = 1.0
            if picture is not None:
                scale = picture.shape[1] / layers.size[0]
                record.log("camera/image", rr.Image(picture).compress(jpeg_quality=80))
            box = shown.box * scale
            names = [
                name if np.isnan(p) else f"{name}: {p:.0%}"
                for name, p in zip(shown.name, shown.probability, strict=True)
            ]
            colours = [overlay.colour(p) for p in shown.probability]
            record.log(
                "camera/people",
                rr.Boxes2D(
                    array=box, array_format=rr.Box2DFormat.XYXY, labels=names, colors=colours
                ),
            )
            middle = (box[:, :2] + box[:, 2:]) / 2
            record.log(
                "camera/edges",
                rr.LineStrips2D(
                    middle[shown.edge],
                    radii=0.5 + 10 * np.nan_to_num(np.abs(shown.weight)),
                    colors=[edge_colour(weight) for weight in shown.weight],
                ),
            )
            for name, p in zip(shown.name, shown.probability, strict=True):
                if not np.isnan(p):
                    record.log(f"probability/{name}", rr.Scalars(float(p)))


@contextmanager
def _recording(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        import rerun
    except ImportError as error:
        mend = "pip install 'vidreason[rerun]'"
        raise DataError("--out", f"{path} needs rerun-sdk ({error})", mend) from None
    with write_atomic(path) as temporary:
        record = rerun.RecordingStream("vidreason")
        record.save(str(temporary))
        yield rerun, record
        record.flush()
        record.disconnect()


# --- Decomposition


def _clips(task: DecomposeTask, data: Any, out: Path, count: int) -> int:
    """Filmstrips and animations of the first test clips."""
    single = bool(out.suffix)
    draw = {".png": draw_filmstrip, ".gif": draw_animation, ".mp4": draw_animation}
    if single and out.suffix not in draw:
        raise DataError("--out", f"{out} is no folder, .png, .gif or .mp4", "choose one of these")
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
    print(out)
    return 0
