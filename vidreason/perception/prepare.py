"""`vidreason prepare`: raw video to tracked instances, one file of the store per video.

Every video is a job of its own: its file appears when it is whole, and a second run skips it. Jobs
run in processes of this machine or on a Ray cluster, and the result depends on neither.
"""

import fcntl
import hashlib
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
_ENDS = 1 << 20  # bytes at both ends of a video by which it is known again


class Segment(Protocol):
    """What finds instances in frames; `vidreason.perception.segmenter.Segmenter` is one."""

    features: int
    """C, width of the features."""

    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        """Instances in a frame (H, W, 3) uint8 RGB."""
        ...


class Job(NamedTuple):
    """A video to be prepared.

    Attributes:
        name: Of the video in the store.
        path: Of its file.
        store: Folder that gets `NAME.arrow`.
        segmenter: What the segmenter is called.
        make: Makes it, once in a process; can be pickled.
        every: Looks at each nth frame.
    """

    name: str
    path: Path
    store: Path
    segmenter: str
    make: Callable[[], Segment]
    every: int = 1


def prepare_video(job: Job, wait: bool = True) -> str:
    """Prepares one video, unless that was done already.

    Args:
        job: Which, and how.
        wait: For another process that has the video in hand; otherwise leave it to that one.

    Returns:
        `prepared`, `kept` or `busy`.

    Raises:
        DataError: A video that cannot be used, or whose file in the store was made in another way.
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
                problem = f"was made of, or with, another {', '.join(differ)}"
                raise DataError(out, problem, "delete it, or give another --out")
            return "kept"
        sweep(out.parent, out.name)
        segment = _segmenter(job.make)
        frames = video.frames(job.every)
        with write_atomic(out) as path, Writer(path, facts, segment.features) as writer:
            for seen in follow(frames, segment, video.fps / job.every):
                writer.add(seen.number, seen.found, seen.track, seen.mask, seen.look)
                _advance()
    return "prepared"


class Seen(NamedTuple):
    """A frame with the N instances in it.

    Attributes:
        number: Of the frame.
        frame: (H, W, 3) uint8 RGB.
        found: What the segmenter says.
        track: (N,) int32, number of the track of each.
        mask: Their masks.
        look: (N, C) features of each.
    """

    number: int
    frame: np.ndarray
    found: Instances
    track: np.ndarray
    mask: masks.Masks
    look: np.ndarray


def follow(
    frames: Iterable[tuple[int, np.ndarray]], segment: Segment, fps: float
) -> Iterator[Seen]:
    """Segments frames as they come, and follows what is in them.

    Args:
        frames: Number and picture (H, W, 3) uint8 RGB of each, from a file or a camera.
        segment: Finds instances.
        fps: Frames per second that come.
    """
    tracker = Tracker(fps, segment.features)
    for number, frame in frames:
        found = segment(frame, number)
        mask = masks.encode(found.image, len(found.kind))
        look = masks.pool(found.features, found.image, len(found.kind))
        track = tracker(found.image, found.kind, masks.boxes(mask), look)
        yield Seen(number, frame, found, track, mask, look)


@cache
def _segmenter(make: Callable[[], Segment]) -> Segment:
    return make()


@contextmanager
def _lock(store: Path, name: str, wait: bool) -> Iterator[bool]:
    """Whether this process alone has the video in hand; a killed process lets go of it."""
    store.mkdir(parents=True, exist_ok=True)
    # One byte of one file for each name: nothing to be cleared away afterwards.
    byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    with (store / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except BlockingIOError:
            yield False
        else:
            yield True


def _fingerprint(path: Path) -> str:
    """Digest of a video's size and of both its ends: to read hours of video takes too long."""
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
    # The first process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_first, daemon=True).start()


def _end_with_first() -> None:
    """Or processes whose first one was killed would wait for its next job for ever."""
    first = parent_process()
    assert first is not None
    first.join()
    os._exit(1)


def _advance() -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def run_jobs(jobs: Sequence[Job], workers: int, engine: str = "local") -> dict[str, str]:
    """Runs jobs side by side; one that fails, or kills its process, costs only itself.

    Args:
        jobs: With names that differ.
        workers: Processes.
        engine: `local`, processes of this machine, or `ray`, a cluster whose machines all see the
            videos and the store.

    Returns:
        By name, what became of each: `prepared`, `kept`, or what went wrong in one line.
    """
    run = {"local": _run_local, "ray": _run_ray}[engine]
    done = run(jobs, workers, False)
    # What another process had in hand is done by now, or was given up.
    return done | run([job for job in jobs if done[job.name] == "busy"], workers, True)


def _outcome(job: Job, wait: bool) -> str:
    try:
        return prepare_video(job, wait)
    except DataError as error:
        return str(error)
    except Exception as error:  # a network may fail in any way; the other videos go on
        if isinstance(error, OSError) and error.strerror:
            return str(DataError(job.store, error.strerror, "mend that and run it again"))
        return str(DataError(job.path, repr(error), "tell the segmenter's authors"))


def _run_local(jobs: Sequence[Job], workers: int, wait: bool) -> dict[str, str]:
    context = get_context("spawn")
    counter = context.Value("q")
    free: list[ProcessPoolExecutor] = []

    def one(job: Job) -> str:
        # A pool for each process: of a pool of many nobody could say which video broke it.
        pool = free.pop() if free else ProcessPoolExecutor(1, context, _start, (counter,))
        try:
            outcome = pool.submit(_outcome, job, wait).result()
        except BrokenProcessPool:
            pool.shutdown()
            out = job.store / f"{job.name}{SUFFIX}"
            sweep(out.parent, out.name)
            problem = "killed the process that was preparing it"
            return str(DataError(job.path, problem, "check the file, and the memory"))
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
        return 0  # the job itself will say what is wrong


def _run_ray(jobs: Sequence[Job], workers: int, wait: bool) -> dict[str, str]:
    try:
        import ray
    except ImportError as error:
        mend = "pip install 'vidreason[ray]', or leave --engine out"
        raise DataError("--engine", f"needs ray ({error})", mend) from None
    if not ray.is_initialized():
        # A cluster that RAY_ADDRESS names, or else one on this machine.
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **here)
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
                    problem = f"killed the process that was preparing it ({type(error).__name__})"
                    mend = "check the file, and the memory"
                    done[job.name] = str(DataError(job.path, problem, mend))
                bar.advance(shown)
    return done


def find_videos(inputs: Sequence[Path]) -> dict[str, Path]:
    """Names and paths of videos: files by their stem, those in folders by the path from there.

    Raises:
        DataError: Nothing there, a folder without videos, or two videos of one name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        paths = [given]
        if given.is_dir():
            paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not paths:
                problem = f"holds no file that ends in {', '.join(SUFFIXES)}"
                raise DataError(given, problem, "give a folder of videos, or a video")
        for path in paths:
            base = given if given.is_dir() else path.parent
            name = path.relative_to(base).with_suffix("").as_posix()
            if name in found:
                problem = f"has the name {name!r}, as has {found[name]}"
                raise DataError(path, problem, "rename one, or give each a store of its own")
            found[name] = path
    return found


def report(done: Mapping[str, str], store: Path) -> int:
    """Prints what became of the videos, failures to the error stream.

    Returns:
        Exit code: 1 if any failed.
    """
    failed = {name: text for name, text in done.items() if text not in ("prepared", "kept")}
    for text in dict.fromkeys(failed.values()):  # of a bad segmenter all say the same
        print(f"error: {text}", file=sys.stderr)
    counts = [
        f"{sum(text == word for text in done.values())} {word}" for word in ("prepared", "kept")
    ]
    print(f"{store}: {', '.join([*counts, f'{len(failed)} failed'])}")
    return 1 if failed else 0
