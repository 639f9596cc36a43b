"""Injects faults into commands, and checks that the same command afterwards succeeds.

    python tools/faults.py resume --kills 20      # kill -9 at random times during training
    python tools/faults.py prepare                # each write and rename fails once, or is the last
    python tools/faults.py train                  # the same during a short training
    python tools/faults.py results                # the same for everything made from a run

A fault is an error of the operating system or a signal at the nth file operation of a forked
process, or a limit on the size of files, as on a full disk. The command is then repeated without a
fault and must give the result of an undisturbed run. Prints a table; exits with 1 if anything
differs.
"""

import argparse
import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_injection import KILL, Fault, plans, run
from rich.console import Console
from rich.table import Table

from vidreason import cli
from vidreason.perception.prepare import Job, _outcome, find_videos, report
from vidreason.perception.store import Instances
from vidreason.perception.video import write_video
from vidreason.simulation.street import write_street


def content(folder: Path) -> dict[str, str]:
    """Returns the digests of the files in a folder, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- prepare


def check_prepare(base: Path, every: int = 1) -> list[tuple[Fault, str]]:
    """Prepares small clips under every Nth fault.

    Returns:
        Each fault and what went wrong, an empty string if nothing did.
    """
    videos = base / "clips"
    _write_clips(videos, 6)
    whole = base / "whole"
    counted = run(lambda: _prepare(videos, whole), whole, None)
    assert counted.code == 0, counted.output
    want = content(whole)
    largest = max(path.stat().st_size for path in whole.rglob("*.arrow"))
    kinds = ("ENOSPC", KILL, "EIO")
    found = []
    for number, fault in enumerate(plans(counted.steps, largest, 24, kinds, 3)[::every]):
        store = base / f"store{number}"
        ended = run(lambda store=store: _prepare(videos, store), store, fault)
        wrong = []
        if "Traceback" in ended.output:
            wrong.append("traceback")
        seen = {n: d for n, d in content(store).items() if not Path(n).name.startswith(".")}
        shown = [name for name in want if not Path(name).name.startswith(".")]
        if not fault.ends(ended, harmless=all(name in seen for name in shown)):
            wrong.append(f"ended with {ended.code}")
        if any(want.get(name) != digest for name, digest in seen.items()):
            wrong.append("a partial file")
        again = run(lambda store=store: _prepare(videos, store), store, None)
        if again.code or content(store) != want:
            wrong.append(f"a different store: {again.output.strip()[-200:]}")
        found.append((fault, ", ".join(wrong)))
    return found


def _write_clips(folder: Path, count: int) -> None:
    folder.mkdir()
    for n in range(count):
        pictures = np.zeros((8, 48, 64, 3), np.uint8)
        for t in range(8):
            pictures[t, 8:20, 4 + n + t : 20 + n + t] = 255
        write_video(folder / f"clip{n}.mp4", iter(pictures), 10, quality=5)


class Bright:
    """A segmenter of bright pixels."""

    features = 3

    def __call__(self, frame: np.ndarray, number: int) -> Any:
        image = (frame[..., 1] > 128).astype(np.uint8)
        features = np.moveaxis(frame[::4, ::4], 2, 0).astype(np.float32)
        return Instances(image, ["thing"], np.zeros(1, np.int8), np.ones(1, np.float32), features)


def _prepare(videos: Path, store: Path) -> int:
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
    kept = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    return {name: value.numpy().tobytes() for name, value in kept["state_dict"].items()}


def _table(folder: Path) -> list[dict[str, str]]:
    """Returns the metrics of each epoch, without its duration, which varies."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*-*")]


def differences(folder: Path, whole: Path) -> list[str]:
    """Returns the differences from an undisturbed run: weights, metrics, temporary files."""
    wrong = []
    for name in ("last", "best", "previous"):
        if _weights(folder, name) != _weights(whole, name):
            wrong.append(f"different weights in {name}.ckpt")
    if _table(folder) != _table(whole):
        wrong.append("different metrics")
    if left := _leftovers(folder):
        wrong.append(f"left {left[0]}")
    return wrong


def check_train(base: Path, system: str, every: int = 1) -> list[tuple[Fault, str]]:
    """Trains for three epochs under every Nth fault, and resumes."""
    import_module("vidreason.runs.train")  # once, rather than in every forked process
    config, whole = _config(base, system), base / f"{system}-whole"
    counted = run(lambda: cli.main(_line(config, whole)), whole, None)
    assert counted.code == 0, counted.output
    largest = (whole / "checkpoints/last.ckpt").stat().st_size
    kinds = ("ENOSPC", KILL, "SIGTERM", "EIO")
    found = []
    for number, fault in enumerate(plans(counted.steps, largest, 6, kinds, 1)[::every]):
        folder = base / f"{system}{number}"
        ended = run(lambda folder=folder: cli.main(_line(config, folder)), folder, fault)
        wrong = []
        if "Traceback" in ended.output:
            wrong.append("traceback: " + ended.output.strip()[-200:])
        harmless = ended.code == 0 and not differences(folder, whole)
        if not fault.ends(ended, harmless):
            wrong.append(f"ended with {ended.code}: {ended.output.strip()[-200:]}")
        if fault.kind != KILL and (left := _leftovers(folder)):
            wrong.append(f"left {left[0]}")
        again = run(lambda folder=folder: cli.main(_line(config, folder)), folder, None)
        if again.code:
            wrong.append(again.output.strip()[-300:])
        else:
            wrong += differences(folder, whole)
        found.append((fault, ", ".join(wrong)))
    return found


# --- results


def check_results(base: Path, every: int = 1) -> list[tuple[Fault, str]]:
    """Runs every command that writes results under every Nth fault, over existing results."""
    for name in ("evaluate", "render", "report"):
        import_module(f"vidreason.results.{name}")  # once, rather than in every forked process
    config, folder = _config(base, "intent"), base / "run"
    small = ("--trainer.max_epochs", "1")
    ended = run(lambda: cli.main(_line(config, folder, *small)), folder, None)
    assert ended.code == 0, ended.output
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
        assert counted.code == 0, counted.output
        whole = content(base)
        for fault in plans(counted.steps, 40_000, 2, ("ENOSPC", KILL, "SIGTERM"), 2)[::every]:
            ended = run(lambda line=line, f=fault: cli.main(line), base, fault)
            wrong = []
            if "Traceback" in ended.output:
                wrong.append("traceback: " + ended.output.strip()[-300:])
            seen = content(base)
            if not fault.ends(ended, harmless=seen == whole):
                wrong.append(f"{line[0]} ended with {ended.code}: {ended.output.strip()[-200:]}")
            left = set(seen) - set(whole)
            if any(seen.get(name) != digest for name, digest in whole.items()):
                wrong.append(f"{line[0]} damaged the existing file")
            if left and fault.kind != KILL:
                wrong.append(f"{line[0]} left {left}")
            again = run(lambda line=line: cli.main(line), base, None)
            seen = content(base)
            if again.code or any(seen.get(name) != digest for name, digest in whole.items()):
                wrong.append(f"{line[0]} again: {again.output.strip()[-200:]}")
            for name in set(seen) - set(whole):
                (base / name).unlink()
            found.append((fault, ", ".join(wrong)))
    return found


# --- resume


def check_resume(base: Path, system: str, kills: int, seed: int = 0) -> list[tuple[Fault, str]]:
    """Kills trainings at random times, `kills` times in all.

    Each is killed and resumed, alternating between 0 and 2 data loading workers, until it
    completes, and must then equal the undisturbed run.
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
        most = min(6, kills - len(found))
        while True:
            workers = f"--data.workers={2 * (len(mine) % 2)}"
            line = _line(config, folder, *options, workers)
            # A process group, so that data loading workers are killed too.
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
                output, _ = process.communicate(timeout=wait if len(mine) < most else None)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                mine.append(Fault(KILL, round(1000 * wait)))
        wrong = [output.strip()[-300:]] if process.returncode else differences(folder, whole)
        found += [(fault, ", ".join(wrong)) for fault in mine]
    return found


def main() -> int:
    """Runs one of the checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", choices=("resume", "prepare", "train", "results"))
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="number per system (20)")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="inject only every Nth fault (1)"
    )
    args = parser.parse_args()
    # Forked processes must not inherit thread pools.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table("check", "faults", "failures", title=f"faults: {args.check}")
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
