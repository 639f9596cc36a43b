"""Injects some of the faults of tools/faults.py, which covers all of them when run by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "faults.py"


@pytest.mark.parametrize(
    "options",
    [
        ["prepare", "--every", "40"],
        pytest.param(["prepare", "--every", "13"], marks=pytest.mark.slow),
        pytest.param(["train", "--every", "31"], marks=pytest.mark.slow),
        pytest.param(["results", "--every", "13"], marks=pytest.mark.slow),
        pytest.param(["resume", "--kills", "1"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_repeated_command_succeeds_after_a_fault(options):
    done = subprocess.run([sys.executable, TOOL, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    injected = [line.split("│")[2] for line in done.stdout.splitlines() if line.startswith("│")]
    assert injected and all(map(int, injected))
