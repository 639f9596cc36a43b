"""Segmentation and tracking of raw video: one file of the store per video.

Each video is a separate job: its file appears when it is complete, and later runs skip it. Jobs run
in local processes or on a Ray cluster; the result is the same.
"""

import fcntl
import hashlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vidreason.core.errors import DataError
from vidreason.core.files import progress, sweep, write_atomic
from vidreason.perception import masks
from vidreason.perception.store import SUFFIX, Instances, Writer, about
from vidreason.perception.tracking import Tracker
from vidreason.perception.video import SUFFIXES, Video

DEFAULT = "facebook/mask2former-swin-tiny-cityscapes-panoptic"
_CRASH = "check the file and the available memory"
_ENDS = 1 << 20  # bytes at each end of a video that its fingerprint covers


class Segment(Protocol):
    """Interface of a segmenter, such as `vidreason.perception.segmenter.Segmenter`."""

    features: int
    """C, number of channels of the feature map."""

    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        """Returns the instances of frame `number`, (H, W, 3) uint8 RGB."""
        ...


class Job(NamedTuple):
    """A video to prepare.

    Attributes:
        name: Name of the video in the store.
        path: Video file.
        store: Output folder, for `NAME.arrow`.
        segmenter: Name of the segmenter.
        make: Creates the segmenter, once per process; must be picklable.
        every: Step n; every nth frame is segmented.
    """

    name: str
    path: Path
    store: Path
    segmenter: str
    make: Callable[[], Segment]
    every: int = 1


def prepare_video(job: Job, wait: bool = True) -> str:
    """Prepares one video, unless the store has it already.

    Args:
        job: Video and settings.
        wait: Whether to wait if another process is preparing the video.

    Returns:
        `prepared`, `kept` if the store had it, or `busy` if another process is preparing it.

    Raises:
        DataError: The video cannot be used, or its file in the store was made with other settings.
    """
    out = job.store / f"{job.name}{SUFFIX}"
    with _lock(job.store, job.name, wait) as held:
        if not held:
            return "busy"
        video = Video(job.path)
        facts = {
            "video": job.name,
            "source": _fingerprint(job.path),
            "segmenter": job.segmenter,
            "every": job.every,
            "fps": video.fps,
            "width": video.width,
            "height": video.height,
            "length": video.length,
        }
        if out.exists():
            old = about(out)
            if differ := [name for name, value in facts.items() if old.get(name) != value]:
                problem = f"was prepared with a different {', '.join(differ)}"
                raise DataError(out, problem, "delete it, or choose another --out")
            return "kept"
        sweep(out.parent, out.name)
        segment = _segmenter(job.make)
        frames = video.frames(job.every)
        with write_atomic(out) as path, Writer(path, facts, segment.features) as writer:
            for seen in track_instances(frames, segment, video.fps / job.every):
                writer.add(seen.number, seen.found, seen.track, seen.mask, seen.appearance)
                _advance()
    return "prepared"


class Tracked(NamedTuple):
    """A frame with its N tracked instances.

    Attributes:
        number: Frame number.
        frame: (H, W, 3) uint8 RGB.
        found: Output of the segmenter.
        track: (N,) int32 track numbers.
        mask: N masks.
        appearance: (N, C) float32 appearance features.
    """

    number: int
    frame: np.ndarray
    found: Instances
    track: np.ndarray
    mask: masks.Masks
    appearance: np.ndarray


def track_instances(
    frames: Iterable[tuple[int, np.ndarray]], segment: Segment, fps: float
) -> Iterator[Tracked]:
    """Segments frames and tracks their instances, online.

    Args:
        frames: Frame numbers and images (H, W, 3) uint8 RGB, from a file or a camera.
        segment: Segmenter.
        fps: Frame rate of `frames`.

    Yields:
        Each frame with its instances.
    """
    tracker = Tracker(fps, segment.features)
    for number, frame in frames:
        found = segment(frame, number)
        mask = masks.encode(found.image, len(found.kind))
        appearance = masks.pool(found.features, found.image, len(found.kind))
        track = tracker(found.image, found.kind, masks.boxes(mask), appearance)
        yield Tracked(number, frame, found, track, mask, appearance)


@cache
def _segmenter(make: Callable[[], Segment]) -> Segment:
    return make()


@contextmanager
def _lock(store: Path, name: str, wait: bool) -> Iterator[bool]:
    """Yields whether this process has the lock of a video; a killed process releases it."""
    store.mkdir(parents=True, exist_ok=True)
    # Each name locks one byte of a single file, so that no lock files are left to delete.
    byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    with (store / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except BlockingIOError:
            yield False
        else:
            yield True


def _fingerprint(path: Path) -> str:
    """Returns a digest of the size and both ends of a video; reading all of it takes too long."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for start in (0, max(0, size - _ENDS)):
            file.seek(start)
            digest.update(file.read(_ENDS))
    return digest.hexdigest()


_counter: Any = None


def _start(counter: Any) -> None:
    global _counter
    _counter = counter
    # On Ctrl-C the main process terminates its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_main, daemon=True).start()


def _exit_with_main() -> None:
    """Exits with the main process; if that is killed, a worker would wait for jobs forever."""
    main = parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def _advance() -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def run_jobs(jobs: Sequence[Job], workers: int, engine: str = "local") -> dict[str, str]:
    """Runs jobs in parallel; one that fails or kills its process does not affect the others.

    Args:
        jobs: Jobs with distinct names.
        workers: Number of processes.
        engine: `local` for processes of this machine, or `ray` for a cluster whose machines all
            have access to the videos and the store.

    Returns:
        Outcome of each job by name: `prepared`, `kept`, or an error line.
    """
    run = {"local": _run_local, "ray": _run_ray}[engine]
    done = run(jobs, workers, False)
    # Videos that were locked by another process are finished by now, or were abandoned.
    return done | run([job for job in jobs if done[job.name] == "busy"], workers, True)


def _outcome(job: Job, wait: bool) -> str:
    try:
        return prepare_video(job, wait)
    except DataError as error:
        return str(error)
    except Exception as error:  # a network can fail in any way; the other videos continue
        if isinstance(error, OSError) and error.strerror:
            return str(DataError(job.store, error.strerror, "fix it and run the command again"))
        return str(DataError(job.path, repr(error), "report it to the authors of the segmenter"))


def _run_local(jobs: Sequence[Job], workers: int, wait: bool) -> dict[str, str]:
    context = get_context("spawn")
    counter = context.Value("q")
    free: list[ProcessPoolExecutor] = []

    def one(job: Job) -> str:
        # One pool per process: a broken pool of several does not say which video broke it.
        pool = free.pop() if free else ProcessPoolExecutor(1, context, _start, (counter,))
        try:
            outcome = pool.submit(_outcome, job, wait).result()
        except BrokenProcessPool:
            pool.shutdown()
            out = job.store / f"{job.name}{SUFFIX}"
            sweep(out.parent, out.name)
            return str(DataError(job.path, "crashed the worker process", _CRASH))
        free.append(pool)
        return outcome

    total = sum(_frames(job) for job in jobs)
    with progress() as bar, ThreadPoolExecutor(workers) as threads:
        task = bar.add_task("preparing", total=total or None)
        futures = {threads.submit(one, job): job.name for job in jobs}
        try:
            waiting = set(futures)
            while waiting:
                waiting = wait_for(waiting, 0.5).not_done
                bar.update(task, completed=counter.value)
            return {name: future.result() for future, name in futures.items()}
        except KeyboardInterrupt:
            threads.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise
        finally:
            threads.shutdown(cancel_futures=True)
            for pool in free:
                pool.shutdown()


def _frames(job: Job) -> int:
    try:
        return -(-Video(job.path).length // job.every)
    except DataError:
        return 0  # the job itself reports the error


def _run_ray(jobs: Sequence[Job], workers: int, wait: bool) -> dict[str, str]:
    try:
        import ray
    except ImportError as error:
        fix = "pip install 'vidreason[ray]', or omit --engine"
        raise DataError("--engine", f"needs ray ({error})", fix) from None
    if not ray.is_initialized():
        # The cluster at RAY_ADDRESS, or a local one.
        here: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **here)
    task = ray.remote(num_cpus=1, max_retries=0)(_outcome)
    names = {task.remote(job, wait): job for job in jobs}
    done, waiting = {}, list(names)
    with progress() as bar:
        shown = bar.add_task("preparing", total=len(jobs))
        while waiting:
            ready, waiting = ray.wait(waiting)
            for one in ready:
                job = names[one]
                try:
                    done[job.name] = ray.get(one)
                except ray.exceptions.RayError as error:
                    problem = f"crashed the worker process ({type(error).__name__})"
                    done[job.name] = str(DataError(job.path, problem, _CRASH))
                bar.advance(shown)
    return done


def find_videos(inputs: Sequence[Path]) -> dict[str, Path]:
    """Finds videos among files and folders.

    Args:
        inputs: Video files, and folders to search recursively.

    Returns:
        Paths by name: the stem of a file, or its path relative to the folder.

    Raises:
        DataError: A folder contains no video, or two videos have the same name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        paths = [given]
        if given.is_dir():
            paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not paths:
                problem = f"contains no {', '.join(SUFFIXES)} file"
                raise DataError(given, problem, "give a video or a folder of videos")
        for path in paths:
            base = given if given.is_dir() else path.parent
            name = path.relative_to(base).with_suffix("").as_posix()
            if name in found:
                problem = f"has the same name {name!r} as {found[name]}"
                raise DataError(path, problem, "rename one, or use a separate store for each")
            found[name] = path
    return found


def report(done: Mapping[str, str], store: Path) -> int:
    """Prints a summary to stdout and error lines to stderr.

    Args:
        done: Outcomes as returned by `run_jobs`.
        store: Output folder.

    Returns:
        Exit code, 1 if a video failed.
    """
    failed = {name: text for name, text in done.items() if text not in ("prepared", "kept")}
    for text in dict.fromkeys(failed.values()):  # a bad segmenter fails alike for all videos
        print(f"error: {text}", file=sys.stderr)
    counts = [
        f"{sum(text == word for text in done.values())} {word}" for word in ("prepared", "kept")
    ]
    print(f"{store}: {', '.join([*counts, f'{len(failed)} failed'])}")
    return 1 if failed else 0
