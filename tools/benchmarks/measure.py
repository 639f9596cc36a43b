"""Timing of calls, and tables of the results."""

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Returns CPU and wall seconds of one call; CPU time is that of this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turns(
    calls: Mapping[str, Callable[[], object]], runs: int
) -> dict[str, list[tuple[float, float]]]:
    """Times each call `runs` times, alternating so that a change of load affects all alike."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(timed(call))
    return times


def median_and_min(seconds: Iterable[float], digits: int = 2) -> str:
    """Formats times as `median (min)`."""
    values = list(seconds)
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f})"


def peak_memory() -> float:
    """Returns the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table whose first column is text and whose others are numbers."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=110).print(table)
