"""Whole runs of small decompositions, on digits that are drawn."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pyro.infer import TraceMeanField_ELBO

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.decomposition.ball_data import BallsData
from vidreason.decomposition.data import MovingMNISTData
from vidreason.decomposition.networks import DDPAE, EquivariantDDPAE
from vidreason.decomposition.task import DecomposeTask
from vidreason.runs.train import load_run

TOOL = Path(__file__).parents[2] / "tools" / "balls.py"
NET = {
    "class_path": "EquivariantDDPAE",
    "init_args": {"window": 28, "width": 4, "forecast": 8},
}
SIZES = {"t_in": 4, "t_out": 2, "size": 32}  # which follow from data and task in a configuration

DATA = {"source": "drawn", "size": 32, "length": 6, "batch_size": 4, "epoch_clips": 12}
DATA |= {"val_clips": 6, "test_clips": 10}


@pytest.fixture
def config(tmp_path):
    """Writes a configuration, its options changed, and returns its path."""

    def write(net=NET, data=None, trainer=None, **task):
        task = {"input_frames": 4, "forecast_steps": 2, "average": 0.9, **task}
        content = {
            "model": {"class_path": "DecomposeTask", "init_args": {"net": net, **task}},
            "data": {"class_path": "MovingMNISTData", "init_args": DATA | (data or {})},
            "trainer": {"max_epochs": 3, "enable_progress_bar": False, **(trainer or {})},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_scores_predicts_and_draws(config, tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={folder}"]) == 0
    table = rows(folder)
    assert [float(row["clips"]) for row in table] == [12, 24, 36]
    assert float(table[2]["seconds"]) > float(table[0]["seconds"]) > 0
    assert (folder / "filmstrips" / "epoch_0002.png").is_file()
    assert (folder / "metrics.png").is_file()
    assert cli.main(["test", "--run", str(folder)]) == 0
    assert "separated" in capsys.readouterr().out
    found = json.loads((folder / "test.json").read_text())
    assert found["tested"] == {"clips": 10, "counts": [2], "size": 32, "length": 6, "channels": 1}
    assert len(found["model"]["mse_by_frame"]) == 2
    assert np.isclose(np.mean(found["model"]["mse_by_frame"]), found["model"]["mse"], atol=1e-3)
    assert cli.main(["predict", "--run", str(folder)]) == 0
    tracks = pq.read_table(folder / "tracks.parquet")
    assert tracks.num_rows == 10 * 6 * 2
    assert json.loads(tracks.schema.metadata[b"vidreason"])["input_frames"] == 4
    assert tracks["clip"].to_pylist()[-1] == 9
    assert (folder / "filmstrips" / "clip_00003.gif").is_file()


def test_baselines_of_a_test_are_those_of_its_clips(config, tmp_path):
    folder = tmp_path / "run"
    cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={folder}"])
    cli.main(["test", "--run", str(folder)])
    found = json.loads((folder / "test.json").read_text())
    data = MovingMNISTData(**DATA)
    data.setup("test")
    frames = torch.cat([clip.frames for clip in data.test_dataloader()]).double() / 255
    black = frames[:, 4:].square().sum((2, 3, 4)).mean()
    copy = (frames[:, 4:] - frames[:, 3:4]).square().sum((2, 3, 4)).mean()
    assert found["black"]["mse"] == pytest.approx(float(black), abs=1e-3)
    assert found["copy last"]["mse"] == pytest.approx(float(copy), abs=1e-3)


def test_a_run_of_balls_is_judged_by_their_motion(tmp_path):
    folder = tmp_path / "run"
    net = {"components": 2, "window": 12, "width": 4, "content": 1, "forecast": 8}
    net |= {"forecaster": "relational"}
    data = {"balls": 2, "size": 32, "length": 8, "batch_size": 4, "epoch_clips": 8}
    data |= {"val_clips": 4, "test_clips": 6, "frames": 8, "trajectories": 100, "radius": 0.12}
    task = {"net": {"class_path": "EquivariantDDPAE", "init_args": net}, "input_frames": 5}
    content = {
        "model": {"class_path": "DecomposeTask", "init_args": task | {"forecast_steps": 2}},
        "data": {"class_path": "BallsData", "init_args": data},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    }
    path = tmp_path / "balls.yaml"
    path.write_text(yaml.safe_dump(content))
    assert cli.main(["fit", "-c", str(path), f"--trainer.default_root_dir={folder}"]) == 0
    assert -1 <= float(rows(folder)[0]["val/velocity_cosine"]) <= 1
    assert cli.main(["test", "--run", str(folder)]) == 0

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((folder / "test.json").read_text(), parse_constant=refuse)
    assert found["true positions"]["position_error"] == 0
    assert found["true positions"]["velocity_cosine"] == 1
    made = BallsData(**data)
    made.setup("test")
    clips = list(made.test_dataloader())
    seen, coming = torch.cat([clip.positions for clip in clips]).split([5, 3], 1)
    line = seen[:, -1:] + torch.arange(1, 4)[:, None, None] * (seen[:, -1:] - seen[:, -2:-1])
    expected = (line - coming).norm(dim=-1).mean((0, 2))
    straight = found["constant velocity"]["position_error_by_horizon"]
    assert straight == pytest.approx(expected.tolist(), abs=1e-3)
    assert len(found["model"]["position_error_by_horizon"]) == 3
    assert cli.main(["predict", "--run", str(folder)]) == 0
    assert (folder / "filmstrips" / "clip_00003_paths.png").is_file()
    # More frames than it was trained to predict, which is what rolling out is for.
    task = load_run(folder)
    assert task.decompose(clips[0].frames[:, :5].float() / 255, 20).positions.shape[1] == 25
    out = tmp_path / "balls"
    words = [TOOL, folder, "--clips", 6, "--frames", 12, "--seconds", 1, "--out", out]
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    found = json.loads((out / "balls.json").read_text())
    assert found["scores"]["constant velocity"][0]["position_error_by_horizon"] == pytest.approx(
        expected.tolist(), abs=1e-4
    )
    rows_of = {"run", "true states", "constant velocity", "true positions"}
    rows_of |= {"the same, seen to the pixel"}
    assert set(found["scores"]) == set(found["rollout"]) == rows_of
    assert len(found["rollout"]["run"][0]["energy"]) == 12
    assert found["rollout"]["true positions"][0]["outside"] == [0] * 12
    assert {path.suffix for path in out.iterdir()} == {".json", ".gif", ".png"}


def test_a_resumed_run_ends_with_the_same_weights(config, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={whole}"])

    def stop(self):
        if self.trainer.current_epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecomposeTask, "on_train_epoch_start", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={parts}"])
            raise KeyboardInterrupt
    assert len(rows(parts)) == 2
    cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={parts}", "--resume"])
    expected, found = weights(whole), weights(parts)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    drop = {"seconds"}
    for one, other in zip(rows(whole), rows(parts), strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {
            k: v for k, v in other.items() if k not in drop
        }


def test_the_average_is_what_is_judged():
    task = DecomposeTask(EquivariantDDPAE(**NET["init_args"], **SIZES), 4, average=0.9)
    data = MovingMNISTData(**DATA)
    data.setup("fit")
    clip = next(iter(data.train_dataloader()))
    _, before = task._decompose(clip)
    with torch.no_grad():
        for parameter in task.net.parameters():
            parameter.add_(0.1)
    _, after = task._decompose(clip)
    assert torch.equal(before.frames, after.frames)
    task.averaged.update_parameters(task.net)
    _, moved = task._decompose(clip)
    assert not torch.equal(before.frames, moved.frames)


def test_pyros_bound_trains_the_same_network():
    torch.manual_seed(0)
    task = DecomposeTask(DDPAE(size=32, hidden=8, content=8, feature=8, width=2), 4)
    frames = torch.rand(3, 6, 1, 32, 32)
    torch.manual_seed(1)
    closed = task._loss(frames)
    task.objective = "pyro"
    torch.manual_seed(1)
    assert torch.allclose(task._loss(frames), closed, rtol=1e-5)
    torch.manual_seed(1)
    expected = TraceMeanField_ELBO(max_plate_nesting=1).loss(
        task.net.model, task.net.guide, frames, 4
    )
    assert float(closed) == pytest.approx(expected / 3, rel=1e-5)


def test_step_takes_a_tenth_from_half_of_training_on(config, tmp_path):
    net = {
        "class_path": "DDPAE",
        "init_args": {"hidden": 8, "content": 8, "feature": 8, "width": 2},
    }
    path = config(net, trainer={"max_epochs": 4}, schedule="step", lr=0.001)
    assert cli.main(["fit", "-c", path, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 0
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-4])


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(config, tmp_path, capsys):
    folder, train = tmp_path / "run", DecomposeTask._loss

    def loss(self, frames):
        return train(self, frames) * (torch.nan if self.trainer.current_epoch == 1 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecomposeTask, "_loss", loss)
        path = config()
        assert cli.main(["fit", "-c", path, f"--trainer.default_root_dir={folder}"]) == 1
    assert "epoch 1, step" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(folder).values())


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"data": {"size": 34}}, "data.size: 34 is no multiple of 4"),
        ({"lr": 0.0}, "model.lr: 0.0 is not within 1e-12 and 1000.0; correct the option"),
        ({"net": {"class_path": "DDPAE"}, "data": {"size": 48}}, "48 is not a power of two"),
        ({"net": {"class_path": "DDPAE", "init_args": {"size": 32}}}, "follows from data.size"),
        ({"net": {"class_path": "DDPAE", "init_args": {"components": 0}}}, "0 is not within 1"),
        ({"schedule": "step", "trainer": {"max_epochs": -1}}, "step needs an end; set it"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(config, tmp_path, capsys, changed, line):
    path = config(**changed)
    assert cli.main(["fit", "-c", path, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 1
    assert line in capsys.readouterr().err.strip().splitlines()[-1]


def test_clips_that_are_all_input(config, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fit", "-c", config(input_frames=6)])
    line = "model.input_frames: 6 of clips of 6; leave at least one to be predicted"
    assert capsys.readouterr().err.strip() == f"error: {line}"


def test_options_out_of_range():
    with pytest.raises(DataError, match="model.average"):
        DecomposeTask(torch.nn.Identity(), average=1.0)


def test_a_run_can_be_loaded_and_applied(config, tmp_path):
    folder = tmp_path / "run"
    cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={folder}"])
    cli.main(["predict", "--run", str(folder)])
    task = load_run(folder)
    assert not task.training
    data = MovingMNISTData(**DATA)
    data.setup("test")
    frames = next(iter(data.test_dataloader())).frames.float() / 255
    found = task.decompose(frames[:, :4], 2)
    tracks = pq.read_table(folder / "tracks.parquet")
    # What is predicted on the command line is what Python gets: the averaged weights.
    x = np.asarray(tracks["x"]).reshape(10, 6, 2)[:4]
    np.testing.assert_allclose(found.positions[..., 0].numpy(), x, atol=1e-3)
    assert task.sample(frames[:, :4], 2, samples=3).shape == (3, 4, 2, 1, 32, 32)
    with pytest.raises(DataError, match="frames: are torch.uint8; give floats from 0 to 1"):
        task.decompose((frames[:, :4] * 255).byte(), 2)
    with pytest.raises(DataError, match=r"last.ckpt: no such checkpoint"):
        (folder / "checkpoints" / "last.ckpt").unlink()
        load_run(folder, "last")


def test_a_decomposition_is_not_evaluated_as_intent(config, tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main(["fit", "-c", config(), f"--trainer.default_root_dir={folder}"])
    assert cli.main(["evaluate", str(folder)]) == 1
    assert "score it with `vidreason test --run`" in capsys.readouterr().err
    assert not (folder / "tracks.parquet").exists()


def test_what_follows_from_an_option_is_called_by_its_name(config, tmp_path, capsys):
    words = ["fit", "-c", config(), f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main([*words, "--data.size", "50"]) == 1
    assert "error: data.size: 50 is no multiple of 4" in capsys.readouterr().err
