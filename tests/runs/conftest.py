"""Runs of a tiny network that several tests read."""

import shutil
from pathlib import Path

import pytest
import yaml
from make.command import run
from make.tiny_run import CONFIG


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """The configuration of the tiny network."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture(scope="session")
def finished(config, tmp_path_factory):
    """A run of three epochs; read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    options = ("--trainer.default_root_dir", folder, "--trainer.logger", "null")
    assert run("fit", "-c", config, *options)[0] == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of that run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module `trap` that leaves a file when it is imported."""
    trace = tmp_path / "trace"
    (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return trace
