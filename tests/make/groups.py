"""Commands in process groups of their own; Linux only."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def start(words: Sequence[object]) -> subprocess.Popen:
    """Starts Python in a new process group; it can import the modules of the tests."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def children(process: subprocess.Popen) -> list[int]:
    """Returns the running child processes of a process."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        return []
    return list(map(int, text.split()))


def gone(process: subprocess.Popen, seconds: float = 5) -> bool:
    """Waits for all processes of a group to end; returns whether they did in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False
