"""What the README promises of repetition, one test each: D1 to D6."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make import blobs

from vidreason.decomposition import data as clips
from vidreason.decomposition.ball_data import BallsData
from vidreason.decomposition.data import MovingMNISTData
from vidreason.intent.data import IntentData
from vidreason.simulation.street import write_street

MNIST = {"source": "drawn", "batch_size": 4, "epoch_clips": 8, "val_clips": 4}
BALLS = {"batch_size": 4, "epoch_clips": 8, "val_clips": 4, "trajectories": 8}
CONFIG = """\
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 4, members: 1}}}
data:
  class_path: IntentData
  init_args: {root: ROOT, features: [box, neighbours], batch_size: 8}
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("promises") / "jaad"
    return write_street(root, videos=3, seed=30, frames=(110, 130), split=(1, 1, 1))


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    few = {split: (count // 50, seed) for split, (count, seed) in clips._DRAWN.items()}
    monkeypatch.setattr(clips, "_DRAWN", few)


def modules(root, seed=0):
    features = ["box", "neighbours"]
    return [
        IntentData(features=features, root=str(root), batch_size=4, seed=seed),
        MovingMNISTData(**MNIST, seed=seed),
        BallsData(**BALLS, seed=seed),
    ]


def digest(batches) -> str:
    """Of all tensors, in order."""
    found = hashlib.sha256()

    def take(value) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.numpy().tobytes())
        elif hasattr(value, "to_dict"):
            take(value.to_dict())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                take(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                take(part)

    take(list(batches))
    return found.hexdigest()


def train(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return loader


def validation(data):
    found = data.val_dataloader()
    return [list(one) for one in (found if isinstance(found, list) else [found])]


def command(*words, **environment) -> None:
    """Runs a command line in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    everything = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    line = [sys.executable, *map(str, words)]
    done = subprocess.run(line, env=everything, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_d1_the_same_command_gives_the_same_bytes(root, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("ROOT", str(root)))
    found = []
    for number in ("1", "2"):
        run = tmp_path / number / "run"
        more = {"PYTHONHASHSEED": number, "TZ": f"UTC+{number}", "PL_GLOBAL_SEED": number}
        cli = ("-m", "vidreason.cli")
        command(*cli, "fit", "-c", config, f"--trainer.default_root_dir={run}", **more)
        command(*cli, "predict", "--run", run, **more)
        command(*cli, "evaluate", run, "--root", root, "--bootstrap", "20", **more)
        state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        weights = {name: value.numpy().tobytes() for name, value in state["state_dict"].items()}
        files = ("metrics.csv", "predictions.parquet", "evaluation/metrics.json")
        # Paths of the run are in it.
        texts = [(run / name).read_bytes().replace(bytes(run), b"") for name in files]
        found.append((weights, *texts))
    for one, other in zip(*found, strict=True):
        assert one == other


def test_d2_samples_depend_on_seed_epoch_and_index_alone(root):
    for one, other in zip(modules(root), modules(root), strict=True):
        one.setup("fit")
        other.workers = 2
        other.setup("fit")
        list(train(other, 2))
        assert digest(train(one, 1)) == digest(train(other, 1)), type(one)
        data, order = train(one, 1).dataset, list(train(one, 1).sampler)
        items = [digest([data.__getitems__([n])]) for n in order]
        # Whatever is drawn elsewhere, in whatever order they are asked for.
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        again = [digest([data.__getitems__([n])]) for n in order[::-1]]
        assert items == again[::-1]
        assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
        assert torch.equal(states[2], torch.get_rng_state()), "draws from torch's generator"


def test_d3_what_is_judged_depends_on_no_training(root):
    for one, other in zip(modules(root), modules(root, seed=5), strict=True):
        one.setup("fit")
        other.setup("fit")
        first = digest(validation(one))
        for epoch in range(2):
            list(train(one, epoch))
            torch.manual_seed(epoch)
            assert digest(validation(one)) == first
        assert digest(validation(other)) == first


def test_d4_a_resumed_run_is_the_undisturbed_one(root, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("ROOT", str(root)))
    cli, states = ("-m", "vidreason.cli", "fit"), []
    # Two batches to a step, so that gradients are gathered across the place where it stops.
    more = ("--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=3")
    stop = """
import os, sys
from vidreason import cli
from vidreason.runs import folder as runs
def start(self, trainer, module, batch, number):
    if (trainer.current_epoch, number) == (1, 1):
        os._exit(9)
    return kept(self, trainer, module, batch, number)
kept, runs.RunFolder.on_train_batch_start = runs.RunFolder.on_train_batch_start, start
cli.main(sys.argv[1:])
"""
    command(*cli, "-c", config, *more, f"--trainer.default_root_dir={tmp_path / 'whole'}")
    with pytest.raises(AssertionError):
        cut = f"--trainer.default_root_dir={tmp_path / 'cut'}"
        command("-c", stop, "fit", "-c", config, *more, cut)
    assert len((tmp_path / "cut/metrics.csv").read_text().splitlines()) == 2
    command(*cli, "--run", tmp_path / "cut", "--resume")
    for name in ("whole", "cut"):
        last = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        states.append((last["state_dict"], last["optimizer_states"][0]["state"]))
    for part in range(2):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)


PREPARE = """
import sys
from pathlib import Path
from make.blobs import jobs
from vidreason.perception.prepare import run_jobs
if __name__ == "__main__":
    made = jobs(Path(sys.argv[1]), Path(sys.argv[2]))
    done = run_jobs(made[::int(sys.argv[3])], abs(int(sys.argv[3])))
    assert set(done.values()) == {"prepared"}, done
"""


def test_d5_a_store_is_the_same_bytes(tmp_path):
    (tmp_path / "clips").mkdir()
    for n in range(3):
        blobs.write(tmp_path / f"clips/c{n}.mp4", n, length=6)
    found = []
    for number, order in (("0", 1), ("1", -1)):
        store = tmp_path / number
        more = {"PYTHONHASHSEED": number, "TZ": f"UTC+{number}"}
        command("-c", PREPARE, tmp_path / "clips", store, order, **more)
        found.append({p.name: p.read_bytes() for p in store.iterdir()})
    assert found[0] == found[1] and len(found[0]) == 4


# Whoever changes what is drawn changes all results: that has to be said, here and in the cards.
DRAWN = {
    "MovingMNISTData 0": "a450678ef002d835",
    "BallsData 0": "fae52561df4a00fd",
    "street 0": "7df06af9bcd7f713",
    "MovingMNISTData 1": "a157c0929f437eba",
    "BallsData 1": "39de1e64f40f406e",
    "street 1": "f210690786e0d150",
    "MovingMNISTData 2": "10c496c858f8ba2e",
    "BallsData 2": "a325458e62fb34b5",
    "street 2": "b998bc2dd14033e6",
}


def drawn(folder: Path) -> dict[str, str]:
    found = {}
    for seed in range(3):
        for data in (MovingMNISTData(**MNIST, seed=seed), BallsData(**BALLS, seed=seed)):
            data.setup("fit")
            found[f"{type(data).__name__} {seed}"] = digest(train(data))[:16]
        street = write_street(folder / str(seed), videos=3, seed=seed, split=(1, 1, 1))
        whole = hashlib.sha256()
        for path in sorted(street.rglob("*.xml")):
            whole.update(path.read_bytes())
        found[f"street {seed}"] = whole.hexdigest()[:16]
    return found


def test_d6_what_is_drawn_is_what_was_drawn(tmp_path):
    assert drawn(tmp_path) == DRAWN
