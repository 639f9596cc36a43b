"""Complete runs of small decompositions of drawn digits."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pyro.infer import TraceMeanField_ELBO

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.decomposition.data import MovingMNISTData
from vidreason.decomposition.networks import DDPAE, EquivariantDDPAE
from vidreason.decomposition.task import DecomposeTask
from vidreason.runs.train import load_run

pytestmark = pytest.mark.usefixtures("few_digits")

NET = {
    "class_path": "EquivariantDDPAE",
    "init_args": {"window": 28, "width": 4, "forecast": 8},
}
SIZES = {"t_in": 4, "t_out": 2, "size": 32}  # set by data and task in a configuration
SMALL_DDPAE = {"hidden": 8, "content": 8, "feature": 8, "width": 2}

DATA = {"source": "drawn", "size": 32, "length": 6, "batch_size": 4, "epoch_clips": 12}
DATA |= {"val_clips": 6, "test_clips": 10}


def write_config(path, net=NET, data=None, trainer=None, **task):
    """Writes a configuration with some options changed, and returns its path."""
    task = {"input_frames": 4, "forecast_steps": 2, "average": 0.9, **task}
    content = {
        "model": {"class_path": "DecomposeTask", "init_args": {"net": net, **task}},
        "data": {"class_path": "MovingMNISTData", "init_args": DATA | (data or {})},
        "trainer": {"max_epochs": 3, "enable_progress_bar": False, **(trainer or {})},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def fit(config, folder, *options):
    return cli.main(["fit", "-c", config, f"--trainer.default_root_dir={folder}", *options])


@pytest.fixture
def config(tmp_path):
    return lambda **changes: write_config(tmp_path / "config.yaml", **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    """A run that was trained, tested and used for prediction; read-only."""
    base = tmp_path_factory.mktemp("decomposition")
    folder = base / "run"
    assert fit(write_config(base / "config.yaml"), folder) == 0
    assert cli.main(["test", "--run", str(folder)]) == 0
    assert cli.main(["predict", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def clips(few_digits):
    data = MovingMNISTData(**DATA)
    data.setup("test")
    return list(data.test_dataloader())


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_fit_logs_clips_and_seconds_and_draws(run):
    table = rows(run)
    assert [float(row["clips"]) for row in table] == [12, 24, 36]
    assert float(table[2]["seconds"]) > float(table[0]["seconds"]) > 0
    assert (run / "filmstrips" / "epoch_0002.png").is_file()
    assert (run / "metrics.png").is_file()


def test_predict_writes_tracks_and_filmstrips(run):
    tracks = pq.read_table(run / "tracks.parquet")
    assert tracks.num_rows == 10 * 6 * 2
    assert json.loads(tracks.schema.metadata[b"vidreason"])["input_frames"] == 4
    assert tracks["clip"].to_pylist()[-1] == 9
    assert (run / "filmstrips" / "clip_00003.gif").is_file()


def test_test_scores_the_model_and_baselines(run, clips):
    found = json.loads((run / "test.json").read_text())
    assert found["tested"] == {"clips": 10, "counts": [2], "size": 32, "length": 6, "channels": 1}
    assert len(found["model"]["mse_by_frame"]) == 2
    assert np.isclose(np.mean(found["model"]["mse_by_frame"]), found["model"]["mse"], atol=1e-3)
    frames = torch.cat([clip.frames for clip in clips]).double() / 255
    black = frames[:, 4:].square().sum((2, 3, 4)).mean()
    copy = (frames[:, 4:] - frames[:, 3:4]).square().sum((2, 3, 4)).mean()
    assert found["black"]["mse"] == pytest.approx(float(black), abs=1e-3)
    assert found["copy last"]["mse"] == pytest.approx(float(copy), abs=1e-3)


def test_resumed_run_has_the_same_weights(config, run, tmp_path):
    folder = tmp_path / "parts"

    def stop(self):
        if self.trainer.current_epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecomposeTask, "on_train_epoch_start", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(config(), folder)
            raise KeyboardInterrupt
    assert len(rows(folder)) == 2
    fit(config(), folder, "--resume")
    expected, found = weights(run), weights(folder)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for one, other in zip(rows(run), rows(folder), strict=True):
        assert one | {"seconds": ""} == other | {"seconds": ""}


def test_moving_average_is_evaluated(clips):
    task = DecomposeTask(EquivariantDDPAE(**NET["init_args"], **SIZES), 4, average=0.9)
    _, before = task._decompose(clips[0])
    with torch.no_grad():
        for parameter in task.net.parameters():
            parameter.add_(0.1)
    _, after = task._decompose(clips[0])
    assert torch.equal(before.frames, after.frames)
    task.averaged.update_parameters(task.net)
    _, moved = task._decompose(clips[0])
    assert not torch.equal(before.frames, moved.frames)


def test_pyro_objective_equals_the_closed_form():
    torch.manual_seed(0)
    task = DecomposeTask(DDPAE(size=32, **SMALL_DDPAE), 4)
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
    assert float(closed.detach()) == pytest.approx(expected / 3, rel=1e-5)


def test_step_schedule_drops_to_a_tenth_halfway(config, tmp_path):
    net = {"class_path": "DDPAE", "init_args": SMALL_DDPAE}
    few = {"epoch_clips": 4, "val_clips": 4}
    path = config(net=net, data=few, trainer={"max_epochs": 4}, schedule="step", lr=0.001)
    assert fit(path, tmp_path / "run") == 0
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-4])


def test_nan_loss_stops_and_keeps_the_checkpoint(config, tmp_path, capsys):
    folder, train = tmp_path / "run", DecomposeTask._loss

    def loss(self, frames):
        return train(self, frames) * (torch.nan if self.trainer.current_epoch == 1 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecomposeTask, "_loss", loss)
        assert fit(config(), folder) == 1
    assert "epoch 1, step" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(folder).values())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": {"size": 34}}, "data.size: must be a multiple of 4, got 34; correct the option"),
        ({"lr": 0.0}, "model.lr: must be between 1e-12 and 1000.0, got 0.0; correct the option"),
        (
            {"net": {"class_path": "DDPAE"}, "data": {"size": 48}},
            "must be a power of two between 16 and 1024, got 48",
        ),
        ({"net": {"class_path": "DDPAE", "init_args": {"size": 32}}}, "data.size"),
        (
            {"schedule": "step", "trainer": {"max_epochs": -1}},
            "trainer.max_epochs: the step schedule requires a limit; set it",
        ),
    ],
)
def test_invalid_options_are_reported_in_one_line(config, tmp_path, capsys, changes, line):
    assert fit(config(**changes), tmp_path / "run") == 1
    assert line in capsys.readouterr().err.strip().splitlines()[-1]


def test_clips_without_frames_to_predict(config, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fit", "-c", config(input_frames=6)])
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: model.input_frames: ") and "6 frames of a clip" in line
    assert line.endswith("; leave at least one frame to predict") and "\n" not in line


def test_options_out_of_range():
    with pytest.raises(DataError, match="model.average"):
        DecomposeTask(torch.nn.Identity(), average=1.0)


def test_run_is_loaded_and_applied_in_python(run, clips, tmp_path):
    task = load_run(run)
    assert not task.training
    frames = clips[0].frames.float() / 255
    found = task.decompose(frames[:, :4], 2)
    tracks = pq.read_table(run / "tracks.parquet")
    # Python and the command line use the same weights, the averages.
    x = np.asarray(tracks["x"]).reshape(10, 6, 2)[:4]
    np.testing.assert_allclose(found.positions[..., 0].numpy(), x, atol=1e-3)
    assert task.sample(frames[:, :4], 2, samples=3).shape == (3, 4, 2, 1, 32, 32)
    with pytest.raises(DataError, match=r"frames: dtype is torch.uint8; pass floats in \[0, 1\]"):
        task.decompose((frames[:, :4] * 255).byte(), 2)
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(DataError, match=r"last.ckpt: no such checkpoint"):
        load_run(tmp_path / "copy", "last")


def test_decomposition_is_not_evaluated_as_intent(run, capsys):
    files = sorted(run.rglob("*"))
    assert cli.main(["evaluate", str(run)]) == 1
    assert "`vidreason test --run`" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == files
