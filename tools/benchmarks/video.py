"""Preparing a video and drawing over it, without the segmenter and the model."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measure import peak_memory, show, timed
from vidreason.perception.prepare import Job, prepare_video
from vidreason.perception.store import Instances, Prepared
from vidreason.perception.video import Video, video_writer, write_video
from vidreason.results.layers import Layers, of_store
from vidreason.results.overlay import Overlay
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import Film, TrueMasks, write_film, write_truth
from vidreason.simulation.world import FPS, simulate


class _Known:
    """A segmenter that takes no time: it repeats the true masks of the first frames of a film."""

    features = 256

    def __init__(self, film: Film, frames: int) -> None:
        truth = TrueMasks(film)
        features = np.random.default_rng(0).standard_normal((256, 270, 480), dtype=np.float32)
        self.found = [truth(film(t)[0], t)._replace(features=features) for t in range(frames)]

    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        return self.found[number % len(self.found)]


def prepare(frames: int, runs: int) -> None:
    """Measures `vidreason prepare` at 1080p without its network, and reading of its store.

    The video has once and four times as many frames.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_prepare(Path(folder), frames, runs))
    show("1080p, 256 features at a quarter of the size, one process", ("quantity", "value"), rows)


def _prepare(folder: Path, frames: int, runs: int) -> Iterator[tuple[str, str]]:
    film = Film(simulate(0, 2, (frames, frames)))
    known = _Known(film, frames)
    for times in (1, 4):
        path, length = folder / f"{times}.mp4", times * frames
        write_video(path, (film(t)[0] for _ in range(times) for t in range(frames)), FPS)
        job = Job(f"{times}", path, folder, "known", lambda: known)
        taken = []
        for _ in range(runs):
            path.with_suffix(".arrow").unlink(missing_ok=True)
            taken.append(timed(partial(prepare_video, job)))
        cpu, wall = (statistics.median(t) / length for t in zip(*taken, strict=True))
        yield f"{length} frames: frames/s", f"{1 / wall:.0f}"
        yield "  CPU ms per frame", f"{1e3 * cpu:.1f}"
        yield "  peak memory so far, MiB", f"{peak_memory():.0f}"
    path = folder / "4.arrow"
    prepared = Prepared(path)
    raw = sum(_raw_bytes(column) for column in prepared.table.columns)
    yield "size of the store / size of its arrays", f"{path.stat().st_size / raw:.3f}"
    starts = np.random.default_rng(0).integers(0, prepared.length - 16, 2000)
    begin = time.perf_counter()
    for start in starts.tolist():
        rows = prepared.window(start, start + 16)
        np.stack([rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")])
        rows["feature"].combine_chunks().flatten().to_numpy()
    each = (time.perf_counter() - begin) / len(starts)
    yield "random windows of 16 frames/s, boxes and features", f"{1 / each:.0f}"


def _raw_bytes(column: pa.ChunkedArray) -> int:
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return 4 * len(values) + sum(len(word.as_py()) for word in values)
    if pa.types.is_list(values.type):
        return 4 * len(values) + values.flatten().to_numpy().nbytes
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy().nbytes
    return values.to_numpy().nbytes


def overlay(frames: int, runs: int) -> None:
    """Measures a 1080p video: read, drawn over with predictions and edges, written as 720p."""
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "film.mp4"), Path(folder, "out.mp4")
        film = Film(simulate(0, 2, (frames, frames)))
        write_film(path, film)
        write_truth(path.with_suffix(".arrow"), "film", film)
        layers = _with_predictions(of_store(Prepared(path.with_suffix(".arrow"))))

        def once(draw: Overlay) -> None:
            with video_writer(output, layers.fps) as write:
                for number, picture in Video(path).frames(size=draw.size):
                    write(draw(number, picture, layers.at(number)))

        taken = []
        for _ in range(runs):
            draw = Overlay(*layers.size, layers.fps, 0.5, layers.words)
            taken.append(timed(partial(once, draw)))
    cpu, wall = (statistics.median(t) / layers.length for t in zip(*taken, strict=True))
    people = np.isfinite(layers.probability).sum() / layers.length
    show(
        "1080p to 720p H.264, without segmenter and model",
        ("quantity", "value"),
        (
            ("frames", layers.length),
            ("pedestrians per frame", f"{people:.1f}"),
            ("edges per frame", f"{len(layers.edge) / layers.length:.1f}"),
            ("frames/s", f"{1 / wall:.0f}"),
            ("CPU ms per frame", f"{1e3 * cpu:.1f}"),
        ),
    )


def _with_predictions(layers: Layers) -> Layers:
    """Adds a random prediction for each pedestrian, and edges between all of a frame."""
    rng = np.random.default_rng(0)
    people = np.flatnonzero(layers.kind == KINDS.index("person"))
    probability = np.full(len(layers.frame), np.nan)
    probability[people] = rng.random(len(people))
    edge = np.concatenate(
        [
            np.stack(np.meshgrid(rows, rows), -1).reshape(-1, 2)
            for rows in np.split(people, np.flatnonzero(np.diff(layers.frame[people])) + 1)
        ]
    )
    edge = edge[edge[:, 0] != edge[:, 1]]
    return layers._replace(
        probability=probability,
        words="crosses in 1 to 2 s",
        edge=edge,
        weight=rng.normal(0, 0.1, len(edge)),
        masks=None,
    )
