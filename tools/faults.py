"""Faults on purpose: what a disk, a signal or a power cut can do, and whether all is well after.

    python tools/faults.py resume --kills 20      # kill -9 at random times; same weights and table
    python tools/faults.py prepare                # each write and rename fails once, or is the last
    python tools/faults.py train                  # the same of a short training
    python tools/faults.py results                # and of all that is made of a run

Faults are put into a process of its own: an error of the system or a signal at its nth step on
files, or files that can't grow beyond some size, as on a full disk. Then the same command is given
again, without faults, and must end as if nothing had happened. Prints a table; exits with 1 if
anything differs.
"""

import argparse
import contextlib
import csv
import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILL = "SIGKILL"
SIGNALS = (KILL, "SIGTERM", "SIGINT")
_LEAST = 4096  # bytes that what the process says must have room in


class Fault(NamedTuple):
    """What goes wrong: at the nth step on files, or when a file becomes too large.

    Attributes:
        kind: `ENOSPC` or another error, or a signal; `EFBIG` is a limit on the size of files.
        at: Step from 1, or bytes.
    """

    kind: str
    at: int

    def ends(self, ended: "Ended", harmless: bool) -> bool:
        """Whether a process ended as it must: killed, stopped, or with an error that it said.

        Or without any, if the fault was `harmless`: to make a folder that is there already may
        fail, and nobody need hear of it.
        """
        if harmless and ended.code == 0:
            return True
        if self.kind == KILL:
            return ended.code == -signal.SIGKILL
        code, words = 1, "error: "
        if self.kind in SIGNALS:
            code, words = 128 + getattr(signal, self.kind), f"stopped by {self.kind}"
        return ended.code == code and any(x.startswith(words) for x in ended.said.splitlines())


class Ended(NamedTuple):
    """How a process ended: its exit code, or minus the signal; what it said; its steps on files."""

    code: int
    said: str
    steps: int


def run(work: Callable[[], int], root: Path, fault: Fault | None) -> Ended:
    """Does something in a process of its own, with a fault in its steps on files under `root`."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as steps:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = 70
            try:
                with _steps(root, fault, steps.fileno()):
                    code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        counted = os.fstat(steps.fileno()).st_size
        return Ended(os.waitstatus_to_exitcode(status), said.read(), counted)


@contextlib.contextmanager
def _steps(root: Path, fault: Fault | None, counter: int) -> Iterator[None]:
    """Counts steps on files under `root`, a byte each, and makes one of them fail."""
    done = 0

    def step(path: Any) -> None:
        nonlocal done
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(str(root)):
            return
        done += 1
        os.write(counter, b".")
        if fault is not None and fault.kind != "EFBIG" and done == fault.at:
            if fault.kind in SIGNALS:
                os.kill(os.getpid(), getattr(signal, fault.kind))
                return
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), str(path))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and not (event == "open" and not (args[2] or 0) & WRITES):
            step(args[0])

    real = os.fsync

    def fsync(file: int) -> None:
        step(os.readlink(f"/proc/self/fd/{file}"))
        real(file)

    if fault is not None and fault.kind == "EFBIG":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
    sys.addaudithook(hook)
    os.fsync = fsync
    yield
    os.fsync = real


def plans(steps: int, largest: int, sizes: int, kinds: Sequence[str], each: int) -> list[Fault]:
    """Faults at every step, so many of the kinds by turns, and limits on the size of files."""
    limits = np.random.default_rng(0).integers(_LEAST, largest, sizes).tolist()
    count = len(kinds)
    found = [Fault(kinds[(at + k) % count], at) for at in range(1, steps + 1) for k in range(each)]
    return found + [Fault("EFBIG", size) for size in limits]


def content(folder: Path) -> dict[str, str]:
    """Digests of the files in a folder, by their paths."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- prepare


def check_prepare(base: Path, every: int = 1) -> list[tuple[Fault, str]]:
    """Prepares small clips under each fault, or each Nth.

    Returns:
        What went wrong with each; empty text if nothing.
    """
    videos = base / "clips"
    _write_clips(videos, 6)
    whole = base / "whole"
    counted = run(lambda: _prepare(videos, whole), whole, None)
    assert counted.code == 0, counted.said
    want = content(whole)
    largest = max(path.stat().st_size for path in whole.rglob("*.arrow"))
    kinds = ("ENOSPC", KILL, "EIO")
    found = []
    for number, fault in enumerate(plans(counted.steps, largest, 24, kinds, 3)[::every]):
        store = base / f"store{number}"
        ended = run(lambda store=store: _prepare(videos, store), store, fault)
        wrong = []
        if "Traceback" in ended.said:
            wrong.append("traceback")
        seen = {n: d for n, d in content(store).items() if not Path(n).name.startswith(".")}
        shown = [name for name in want if not Path(name).name.startswith(".")]
        if not fault.ends(ended, harmless=all(name in seen for name in shown)):
            wrong.append(f"ended with {ended.code}")
        if any(want.get(name) != digest for name, digest in seen.items()):
            wrong.append("a half file")
        again = run(lambda store=store: _prepare(videos, store), store, None)
        if again.code or content(store) != want:
            wrong.append(f"another store: {again.said.strip()[-200:]}")
        found.append((fault, ", ".join(wrong)))
    return found


def _write_clips(folder: Path, count: int) -> None:
    from vidreason.perception.video import write_video

    folder.mkdir()
    for n in range(count):
        pictures = np.zeros((8, 48, 64, 3), np.uint8)
        for t in range(8):
            pictures[t, 8:20, 4 + n + t : 20 + n + t] = 255
        write_video(folder / f"clip{n}.mp4", iter(pictures), 10, quality=5)


class Bright:
    """A segmenter that finds what is bright."""

    features = 3

    def __call__(self, frame: np.ndarray, number: int) -> Any:
        from vidreason.perception.store import Instances

        image = (frame[..., 1] > 128).astype(np.uint8)
        look = np.moveaxis(frame[::4, ::4], 2, 0).astype(np.float32)
        return Instances(image, ["thing"], np.zeros(1, np.int8), np.ones(1, np.float32), look)


def _prepare(videos: Path, store: Path) -> int:
    from vidreason.perception.prepare import Job, _outcome, find_videos, report

    done = {
        name: _outcome(Job(name, path, store, "bright", Bright), True)
        for name, path in find_videos([videos]).items()
    }
    return report(done, store)


# --- train


CONFIGS = {
    "intent": """
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 8, members: 2}}}
data:
  class_path: IntentData
  init_args: {root: ROOT, features: [box, neighbours], batch_size: 4, folds: 2}
trainer: {max_epochs: 3, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
""",
    "decomposition": """
model:
  class_path: DecomposeTask
  init_args:
    net: {class_path: EquivariantDDPAE, init_args: {window: 16, width: 4, content: 2, sweeps: 1}}
    input_frames: 3
    forecast_steps: 2
data:
  class_path: MovingMNISTData
  init_args: {source: drawn, size: 32, length: 5, batch_size: 4, epoch_clips: 16, val_clips: 4}
trainer: {max_epochs: 3, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
""",
}


def _config(base: Path, system: str) -> Path:
    from vidreason.simulation.street import write_street

    root = base / "street"
    if not root.exists():
        write_street(root, videos=3, seed=30, frames=(110, 130), split=(1, 1, 1))
    path = base / f"{system}.yaml"
    path.write_text(CONFIGS[system].replace("ROOT", str(root)))
    return path


def _resumable(folder: Path) -> bool:
    kept = folder / "checkpoints"
    return (kept / "last.ckpt").exists() or (kept / "previous.ckpt").exists()


def _line(config: Path, folder: Path, *more: str) -> list[str]:
    if _resumable(folder):
        return ["fit", "--run", str(folder), "--resume", *more]
    return ["fit", "-c", str(config), f"--trainer.default_root_dir={folder}", *more]


def _weights(folder: Path, name: str) -> dict[str, bytes]:
    import torch

    kept = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    return {name: value.numpy().tobytes() for name, value in kept["state_dict"].items()}


def _table(folder: Path) -> list[dict[str, str]]:
    """The metrics of each epoch; how long it took is another thing each time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*-*")]


def differences(folder: Path, whole: Path) -> list[str]:
    """What is other in a run than in the undisturbed one: weights, the table, files left over."""
    wrong = []
    for name in ("last", "best", "previous"):
        if _weights(folder, name) != _weights(whole, name):
            wrong.append(f"other weights in {name}.ckpt")
    if _table(folder) != _table(whole):
        wrong.append("another table")
    if left := _leftovers(folder):
        wrong.append(f"left {left[0]}")
    return wrong


def check_train(base: Path, system: str, every: int = 1) -> list[tuple[Fault, str]]:
    """Trains for three epochs under each fault, or each Nth, and goes on."""
    from vidreason import cli
    from vidreason.runs import train as _  # noqa: F401  heavy imports are the parent's

    config, whole = _config(base, system), base / f"{system}-whole"
    counted = run(lambda: cli.main(_line(config, whole)), whole, None)
    assert counted.code == 0, counted.said
    largest = (whole / "checkpoints/last.ckpt").stat().st_size
    kinds = ("ENOSPC", KILL, "SIGTERM", "EIO")
    found = []
    for number, fault in enumerate(plans(counted.steps, largest, 6, kinds, 1)[::every]):
        folder = base / f"{system}{number}"
        ended = run(lambda folder=folder: cli.main(_line(config, folder)), folder, fault)
        wrong = []
        if "Traceback" in ended.said:
            wrong.append("traceback: " + ended.said.strip()[-200:])
        harmless = ended.code == 0 and not differences(folder, whole)
        if not fault.ends(ended, harmless):
            wrong.append(f"ended with {ended.code}: {ended.said.strip()[-200:]}")
        if fault.kind != KILL and (left := _leftovers(folder)):
            wrong.append(f"left {left[0]}")
        again = run(lambda folder=folder: cli.main(_line(config, folder)), folder, None)
        if again.code:
            wrong.append(again.said.strip()[-300:])
        else:
            wrong += differences(folder, whole)
        found.append((fault, ", ".join(wrong)))
    return found


# --- what is made of a run


def check_results(base: Path, every: int = 1) -> list[tuple[Fault, str]]:
    """Makes everything that is made of a run under each fault, or each Nth, over an older file."""
    from vidreason import cli
    from vidreason.results import report  # noqa: F401  heavy imports are the parent's

    config, folder = _config(base, "intent"), base / "run"
    small = ("--trainer.max_epochs", "1")
    ended = run(lambda: cli.main(_line(config, folder, *small)), folder, None)
    assert ended.code == 0, ended.said
    found = []
    for line, out in (
        (["predict", "--run", str(folder)], folder / "predictions.parquet"),
        (
            ["evaluate", str(folder), "--root", str(base / "street"), "--bootstrap", "20"],
            folder / "evaluation",
        ),
        (
            ["report", str(folder), "--root", str(base / "street"), "--bootstrap", "20"],
            base / "report.html",
        ),
        (["render", str(folder), "--clip", "video_0003", "--seconds", "0.3"], base / "clip.mp4"),
        (["export", str(folder)], base / "weights"),
    ):
        if out.parent == base:
            line = [*line, "--out", str(out)]
        counted = run(lambda line=line: cli.main(line), base, None)
        assert counted.code == 0, counted.said
        whole = content(base)
        for fault in plans(counted.steps, 40_000, 2, ("ENOSPC", KILL, "SIGTERM"), 2)[::every]:
            ended = run(lambda line=line, f=fault: cli.main(line), base, fault)
            wrong = []
            if "Traceback" in ended.said:
                wrong.append("traceback: " + ended.said.strip()[-300:])
            seen = content(base)
            if not fault.ends(ended, harmless=seen == whole):
                wrong.append(f"{line[0]} ended with {ended.code}: {ended.said.strip()[-200:]}")
            left = set(seen) - set(whole)
            if any(seen.get(name) != digest for name, digest in whole.items()):
                wrong.append(f"{line[0]} damaged the file that was there")
            if left and fault.kind != KILL:
                wrong.append(f"{line[0]} left {left}")
            again = run(lambda line=line: cli.main(line), base, None)
            seen = content(base)
            if again.code or any(seen.get(name) != digest for name, digest in whole.items()):
                wrong.append(f"{line[0]} again: {again.said.strip()[-200:]}")
            for name in set(seen) - set(whole):
                (base / name).unlink()
            found.append((fault, ", ".join(wrong)))
    return found


# --- resume


def check_resume(base: Path, system: str, kills: int, seed: int = 0) -> list[tuple[Fault, str]]:
    """Kills trainings at random times until they have been killed so often.

    Each is killed and gone on with, by turns with 0 and 2 workers, until it ends, and must then be
    as the undisturbed one.
    """
    config, whole = _config(base, system), base / f"{system}-whole"
    command = [sys.executable, "-m", "vidreason.cli"]
    options = ("--trainer.max_epochs", "6")
    subprocess.run([*command, *_line(config, whole, *options)], check=True, capture_output=True)
    draw = random.Random(seed)
    found: list[tuple[Fault, str]] = []
    number = 0
    while len(found) < kills:
        folder, mine = base / f"{system}-cut{number}", []
        number += 1
        while True:
            workers = f"--data.workers={2 * (len(mine) % 2)}"
            line = _line(config, folder, *options, workers)
            # A group of its own, so that loading processes are killed too.
            process = subprocess.Popen(
                [*command, *line],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            begun = folder / "config.yaml"
            while process.poll() is None and not begun.exists():
                time.sleep(0.02)
            wait = draw.uniform(0, 2.5)
            try:
                said, _ = process.communicate(timeout=wait if len(mine) < 6 else None)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                mine.append(Fault(KILL, round(1000 * wait)))
        wrong = [said.strip()[-300:]] if process.returncode else differences(folder, whole)
        found += [(fault, ", ".join(wrong)) for fault in mine]
    return found


def main() -> int:
    """Runs one of the checks and prints its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", choices=("resume", "prepare", "train", "results"))
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each system (20)")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only each Nth fault, to be quick (1)"
    )
    args = parser.parse_args()
    # Forked processes must not inherit threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table("what", "faults", "went wrong", title=f"faults: {args.check}")
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        results = {}
        if args.check == "prepare":
            results["prepare"] = check_prepare(base, args.every)
        elif args.check == "results":
            results["results"] = check_results(base, args.every)
        else:
            for system in CONFIGS:
                results[system] = (
                    check_resume(base, system, args.kills)
                    if args.check == "resume"
                    else check_train(base, system, args.every)
                )
    for name, found in results.items():
        for kind in dict.fromkeys(fault.kind for fault, _ in found):
            some = [wrong for fault, wrong in found if fault.kind == kind]
            bad = [wrong for wrong in some if wrong]
            worst += len(bad)
            table.add_row(f"{name}, {kind}", str(len(some)), str(len(bad)))
            for fault, wrong in [one for one in found if one[0].kind == kind and one[1]][:5]:
                print(f"{name}: {fault.kind} at {fault.at}: {wrong}")
    Console(width=100).print(table)
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
