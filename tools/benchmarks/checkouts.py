"""Time of commands in new processes, compared with another checkout."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.measure import median_and_min, show
from vidreason import cli
from vidreason.core.errors import DataError

HERE = Path(__file__).parents[2]
_READ_AND_FIT = """
import statistics, sys, tempfile, time
from pathlib import Path
from vidreason.scenes.jaad import read_jaad
def reading():
    start = time.process_time()
    read_jaad(Path(sys.argv[1]), cache=False)
    return time.process_time() - start
print(statistics.median(reading() for _ in range(4)))
from vidreason import cli
from vidreason.runs import folder as runs
starts, begin = [], runs.RunFolder.on_train_batch_start
def clocked(self, *args):
    starts.append(time.process_time())
    return begin(self, *args)
runs.RunFolder.on_train_batch_start = clocked
with tempfile.TemporaryDirectory() as folder:
    options = ["--trainer.default_root_dir", folder, "--trainer.max_epochs", "1"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    options += ["--data.root", sys.argv[1], "--trainer.accelerator", "cpu"]
    assert cli.main(["fit", "-c", sys.argv[2], *options]) == 0
steps = [after - before for before, after in zip(starts, starts[1:])]
print(1e3 * statistics.median(steps))
"""


def _trees(other: Path | None) -> dict[str, Path]:
    if other and not (other / "vidreason").is_dir():
        raise DataError("--other", f"{other} holds no vidreason folder", "name a checkout")
    return {"here": HERE} | ({other.name: other.resolve()} if other else {})


def _python(tree: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs Python with the package of a checkout and one thread."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, env=environment, cwd=tree, capture_output=True, text=True)


def against(other: Path, root: Path, config: Path, runs: int) -> None:
    """Measures reading JAAD without a cache and a step of `fit`, in both checkouts in turns."""
    trees = _trees(other)
    found: dict[str, list[list[float]]] = {name: [] for name in trees}
    for number in range(runs):
        for name, tree in list(trees.items())[:: 1 - 2 * (number % 2)]:
            done = _python(tree, "-c", _READ_AND_FIT, root.resolve(), config.resolve())
            if done.returncode:
                sys.exit(done.stderr)
            numbers = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
            found[name].append([float(number) for number in numbers])
    show(
        f"CPU time, median (min) of {runs} alternating runs",
        ("checkout", "reading JAAD, s", "step of fit, ms"),
        ((name, *map(median_and_min, zip(*rows, strict=True))) for name, rows in found.items()),
    )


def helps(runs: int, other: Path | None) -> None:
    """Measures `import vidreason` and `vidreason COMMAND --help` in new processes.

    With another checkout, both alternate. A command that one of them lacks has empty cells there.
    """
    lines = {"import vidreason": ["-c", "import vidreason"]}
    for command in ("", *cli.COMMANDS):
        words = [*command.split(), "--help"]
        lines[" ".join(words)] = ["-m", "vidreason.cli", *words]
    trees = _trees(other)
    jobs = [(*job, tree) for _ in range(runs) for job in lines.items() for tree in trees]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name, line, tree in track(jobs, "processes", console=Console(stderr=True)):
        if (taken := _process_time(trees[tree], line)) is not None:
            times.setdefault((name, tree), []).append(taken)

    def cells(name: str, tree: str) -> list[str]:
        found = times.get((name, tree))
        return [median_and_min(t) for t in zip(*found, strict=True)] if found else ["", ""]

    show(
        f"seconds of {runs} new processes each, median (min)",
        ("command", *(f"{tree}: {time}" for tree in trees for time in ("CPU", "wall"))),
        ((name, *(cell for tree in trees for cell in cells(name, tree))) for name in lines),
    )


def _process_time(tree: Path, line: Sequence[str]) -> tuple[float, float] | None:
    """Returns CPU and wall seconds of a process, or None if it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = _python(tree, *line)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return None if done.returncode else (cpu, wall)
