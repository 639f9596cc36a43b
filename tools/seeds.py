"""Trains a decomposition with several seeds, tests each run, and prints a table.

    python tools/seeds.py configs/decomposition/moving_mnist.yaml --seeds 0 1 2 --jobs 2
    python tools/seeds.py configs/decomposition/moving_mnist.yaml --minutes 9 --pass \
        --trainer.accelerator gpu

With `--minutes` it stops after that time with exit status 75; the same command resumes from the
last completed epoch. Finished runs are not repeated.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

UNFINISHED = 75  # EX_TEMPFAIL: try again
SHOWN = ("mse", "bce", "mae", "ssim", "psnr", "reconstruction_mse", "position_error")
SHOWN += ("position_error_input", "separated", "ambiguous", "empty")


def train(
    config: Path, folder: Path, seed: int, options: list[str], threads: int, end: float
) -> int:
    """Trains or resumes a run and tests it; returns the exit status, or `UNFINISHED`."""
    if (folder / "test.json").exists():
        return 0
    fit = ["fit", "-c", str(config), "--trainer.default_root_dir", str(folder)]
    fit += ["--seed_everything", str(seed), *options]
    fit += ["--resume"] * (folder / "checkpoints" / "last.ckpt").exists()
    for verb in (fit, ["test", "--run", str(folder)]):
        quiet = ["--trainer.enable_progress_bar=false"]
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "vidreason.cli", *verb, *quiet],
                stdout=log,
                stderr=log,
                env={"OMP_NUM_THREADS": str(threads)} | os.environ,
            )
            try:
                if status := process.wait(timeout=max(0.0, end - time.monotonic())):
                    return status
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait()
                return UNFINISHED
    return 0


def scores(folder: Path) -> dict[str, float]:
    """Returns the test scores of a run, and its cost until half of the clips are separated."""
    found = json.loads((folder / "test.json").read_text("utf-8"))["model"]
    row = {name: found[name] for name in SHOWN if name in found}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    separated = [e for e in epochs if float(e["val/separation"]) < 2]
    row["clips to separation"] = float(separated[0]["clips"]) if separated else float("nan")
    row["seconds to separation"] = float(separated[0]["seconds"]) if separated else float("nan")
    row["clips"], row["training minutes"] = (
        float(epochs[-1]["clips"]),
        float(epochs[-1]["seconds"]) / 60,
    )
    return row


def main() -> int:
    """Runs all seeds."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs (1)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time limit (none)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the runs (runs)")
    parser.add_argument(
        "--pass",
        dest="options",
        nargs=argparse.REMAINDER,
        default=[],
        help="options of fit; must be last",
    )
    args = parser.parse_args()
    if not args.config.is_file():
        parser.error(f"{args.config}: no such file; choose from configs/decomposition")
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    folders = [args.out / f"{args.config.stem}_s{seed}" for seed in args.seeds]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(train, args.config, folder, seed, args.options, threads, end)
            for folder, seed in zip(folders, args.seeds, strict=True)
        ]
        states = [job.result() for job in jobs]
    done = [folder for folder, state in zip(folders, states, strict=True) if not state]
    for folder, state in zip(folders, states, strict=True):
        if state == UNFINISHED and (folder / "checkpoints" / "last.ckpt").exists():
            print(f"{folder}: stopped by --minutes; the same command resumes")
        elif state == UNFINISHED:
            print(f"{folder}: stopped in the first epoch; increase --minutes")
        elif state:
            print(f"{folder}: exit status {state}, see {folder}.log")
    if done:
        rows = [scores(folder) for folder in done]
        table = Table(title=f"{args.config.stem}: test clips, {len(done)} seeds")
        for column in ("score", "mean ± sd", *(folder.name for folder in done)):
            table.add_column(column, justify="left" if column == "score" else "right")
        for name in rows[0]:
            values = [row[name] for row in rows]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            mean = f"{np.mean(values):.3f}{spread}"
            table.add_row(name, mean, *(f"{value:.3f}" for value in values))
        Console().print(table)
    return max(states, key=lambda state: (state not in (0, UNFINISHED), state))


if __name__ == "__main__":
    sys.exit(main())
