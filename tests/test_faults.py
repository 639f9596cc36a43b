"""A few of the faults of tools/faults.py; by hand it goes through all of them."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "faults.py"


@pytest.mark.parametrize(("check", "every"), [("prepare", 7), ("train", 17), ("results", 13)])
def test_whatever_fails_the_same_command_again_ends_as_if_nothing_had(check, every):
    line = [sys.executable, str(TOOL), check, "--every", str(every)]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "faults" in ended.stdout
