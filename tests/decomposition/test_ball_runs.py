"""A complete run of bouncing balls, and the report of `tools/balls.py` on it."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from vidreason import cli
from vidreason.decomposition.ball_data import BallsData
from vidreason.runs.train import load_run

TOOLS = Path(__file__).parents[2] / "tools"
NET = {"components": 2, "window": 12, "width": 4, "content": 1, "forecast": 8}
NET |= {"forecaster": "relational"}
DATA = {"balls": 2, "size": 32, "length": 8, "batch_size": 4, "epoch_clips": 8}
DATA |= {"val_clips": 4, "test_clips": 6, "frames": 8, "trajectories": 100, "radius": 0.12}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained, tested and used for prediction; read-only."""
    base = tmp_path_factory.mktemp("balls")
    folder, config = base / "run", base / "balls.yaml"
    net = {"class_path": "EquivariantDDPAE", "init_args": NET}
    task = {"net": net, "input_frames": 5, "forecast_steps": 2}
    content = {
        "model": {"class_path": "DecomposeTask", "init_args": task},
        "data": {"class_path": "BallsData", "init_args": DATA},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    }
    config.write_text(yaml.safe_dump(content))
    assert cli.main(["fit", "-c", str(config), f"--trainer.default_root_dir={folder}"]) == 0
    assert cli.main(["test", "--run", str(folder)]) == 0
    assert cli.main(["predict", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def clips():
    data = BallsData(**DATA)
    data.setup("test")
    return list(data.test_dataloader())


@pytest.fixture(scope="module")
def line_error(clips):
    """Position error (T_out,) px of extrapolating the last two input frames."""
    past, future = torch.cat([clip.positions for clip in clips]).split([5, 3], 1)
    line = past[:, -1:] + torch.arange(1, 4)[:, None, None] * (past[:, -1:] - past[:, -2:-1])
    return (line - future).norm(dim=-1).mean((0, 2)).tolist()


def test_motion_is_evaluated(run, line_error):
    with (run / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert -1 <= float(row["val/velocity_cosine"]) <= 1

    def reject(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads((run / "test.json").read_text(), parse_constant=reject)
    assert found["true positions"]["position_error"] == 0
    assert found["true positions"]["velocity_cosine"] == 1
    straight = found["constant velocity"]["position_error_by_horizon"]
    assert straight == pytest.approx(line_error, abs=1e-3)
    assert len(found["model"]["position_error_by_horizon"]) == 3
    assert (run / "filmstrips" / "clip_00003_paths.png").is_file()


def test_run_predicts_more_frames_than_in_training(run, clips):
    found = load_run(run).decompose(clips[0].frames[:, :5].float() / 255, 20)
    assert found.positions.shape[1] == 25


def test_balls_tool_compares_runs_with_baselines(run, line_error, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import balls

    states = balls.states  # of 50,000 training clips
    monkeypatch.setattr(balls, "states", lambda options, _, length: states(options, 500, length))
    words = ["balls", run, "--clips", 6, "--frames", 12, "--seconds", 0.3, "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    balls.main()
    found = json.loads((tmp_path / "balls.json").read_text())
    straight = found["scores"]["constant velocity"][0]["position_error_by_horizon"]
    assert straight == pytest.approx(line_error, abs=1e-4)
    assert set(found["scores"]) == set(found["rollout"])
    assert {"run", "true states", "constant velocity", "true positions"} < set(found["scores"])
    assert len(found["rollout"]["run"][0]["energy"]) == 12
    assert found["rollout"]["true positions"][0]["outside"] == [0] * 12
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".gif", ".png"}
