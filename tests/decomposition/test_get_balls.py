"""`vidreason data get balls`: the standard sets, simulated and verified."""

import sys
from types import ModuleType

import numpy as np
import pytest

from vidreason import cli
from vidreason import get as getting
from vidreason.core.errors import DataError
from vidreason.decomposition.ball_files import read_balls, write_balls
from vidreason.decomposition.clip import Balls


@pytest.fixture
def discs(monkeypatch):
    """Replaces the simulator by a fake that records its calls."""
    calls = []

    class Discs:
        def __init__(self, seed):
            self.seed = seed

        def states(self, index):
            calls.append((self.seed, index.tolist()))
            x = 0.2 + (index + self.seed % 7)[:, None, None, None] * 1e-4 + np.zeros((1, 60, 4, 2))
            shape = len(index), 4
            return Balls(x, 0 * x, np.full(shape, 0.075), np.ones(shape), np.ones(2))

    module = ModuleType("vidreason.decomposition.discs")
    module.Discs = Discs
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


SETS = {"train": (0, 1003), "val": (1 << 40, 2)}


def test_sets_are_simulated_once_then_verified(tmp_path, discs):
    getting.simulate(tmp_path / "balls", SETS)
    assert [(seed, len(index)) for seed, index in discs] == [*[(0, 500)] * 2, (0, 3), (1 << 40, 2)]
    assert sum((index for seed, index in discs if not seed), []) == list(range(1003))
    balls = read_balls(tmp_path / "balls" / "train.npz")
    np.testing.assert_allclose(balls.positions[:, 7, 1, 0], 0.2 + np.arange(1003) * 1e-4, rtol=1e-6)
    files = sorted((tmp_path / "balls").iterdir())
    assert [file.name for file in files] == ["train.npz", "val.npz"]
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    getting.simulate(tmp_path / "balls", SETS)
    assert before == [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]


@pytest.mark.parametrize("name", ["positions", "radii", "masses", "box"])
def test_different_existing_sets_are_rejected(tmp_path, discs, name):
    sets = {"val": SETS["val"]}
    getting.simulate(tmp_path, sets)
    balls = read_balls(tmp_path / "val.npz")
    shift = -0.1 if name == "box" else 0.01
    other = getattr(balls, name).copy()
    other.ravel()[-1] += shift
    write_balls(tmp_path / "val.npz", balls._replace(**{name: other}))
    with pytest.raises(DataError) as error:
        getting.simulate(tmp_path, sets)
    assert str(error.value) == (
        f"{tmp_path / 'val.npz'}: holds other trajectories than this version simulates; "
        "give another folder, or remove the file"
    )
    write_balls(tmp_path / "val.npz", Balls(*(array[:1] for array in balls[:4]), balls.box))
    with pytest.raises(DataError, match="holds other trajectories"):
        getting.simulate(tmp_path, sets)


def test_command_writes_the_standard_sets(tmp_path, discs, capsys, monkeypatch):
    assert cli.main(["data", "get", "balls", "--root", str(tmp_path), "--from", "x"]) == 1
    line = "error: --from: balls are simulated, not downloaded; omit it\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    # The standard sets are large; write a small one.
    assert getting.BALLS == {
        "train": (0, 50_000),
        "val": (1 << 40, 2_000),
        "test": (2 << 40, 2_000),
    }
    monkeypatch.setattr(getting, "BALLS", {"val": (1 << 40, 2)})
    assert cli.main(["data", "get", "balls"]) == 0
    root = tmp_path / "balls"
    assert capsys.readouterr().out == f"balls: complete and verified in {root}\n"
    assert [file.name for file in root.iterdir()] == ["val.npz"]
