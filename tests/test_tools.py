"""Short runs of the tools that no other test uses."""

import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
SHORT = ["--trainer.max_epochs=1", "--data.source=drawn", "--data.epoch_clips=8"]
SHORT += ["--data.batch_size=4", "--data.val_clips=4", "--data.test_clips=4"]


@pytest.fixture
def rows(monkeypatch, capsys):
    """Runs a tool; returns the cells of its last table, joined, by their first."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")

    def run(tool: str, *options: object) -> dict[str, str]:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, options)])
        with suppress(SystemExit):
            runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        cells = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
        return {first.strip(): " ".join(map(str.strip, others)) for first, *others in cells}

    return run


def numbers(cells: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", cells)]


def test_ablate_compares_experiments(tmp_path, rows):
    chosen = ["--only", "as configured", "--seeds", 0, "--out", tmp_path, "--pass", *SHORT]
    assert rows("ablate", "decomposition", *chosen)["as configured"].count("± 0.000") == 7


def test_seeds_trains_and_tests_each_seed(tmp_path, rows):
    config = ROOT / "configs/decomposition/moving_mnist.yaml"
    found = rows("seeds", config, "--seeds", 0, "--out", tmp_path, "--pass", *SHORT)
    assert found["clips"] == "8.000 8.000" and min(numbers(found["mse"])) > 0


def test_floor_bounds_the_baselines(real_digits, rows):
    found = rows("floor", "--root", real_digits, "--clips", 8, "--samples", 8)
    mse = {name: float(cells.split()[0]) for name, cells in found.items()}
    assert min(mse, key=mse.get) == "Bayes floor", mse


def test_mutants_are_detected(rows):
    assert rows("mutants", "core/tables", "--each", 2)["all"] == "2 2 (100%)"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["read", "--root", "JAAD", "--runs", 1], "read_jaad, without cache"),
        (["model", "--root", "JAAD", "--steps", 2], "training step, median"),
        (["latency", "--runs", 1], "ONNX Runtime"),
        (["step", "--runs", 1, "--batch", 1], "crops and content"),
        (["clips", "--runs", 1, "--batch", 2], "simulating, balls: 4"),
        (["prepare", "--runs", 1, "--frames", 20], "80 frames: frames/s"),
        (["overlay", "--runs", 1, "--frames", 20], "pedestrians per frame"),
        (["help", "--runs", 1, "--other", ROOT], "predict --help"),
        (["against", "--runs", 1, "--root", "JAAD", "--config", "CONFIG", "--other", ROOT], "here"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_benchmark_measures(options, expected, copy, tmp_path, rows):
    config = tmp_path / "config.yaml"
    text = (ROOT / "configs/intent/jaad_beh.yaml").read_text()
    text = text.replace("subset: beh", "subset: all").replace("folds: 5", "batch_size: 4")
    config.write_text(text)
    paths = {"JAAD": copy, "CONFIG": config}
    found = rows("bench", *(paths.get(option, option) for option in options))
    assert numbers(found[expected]) and min(numbers(found[expected])) > 0
