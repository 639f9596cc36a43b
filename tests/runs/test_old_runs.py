"""Runs with former class paths (`vidreason.runs.moved`) load, resume and predict."""

import csv
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vidreason import cli
from vidreason.runs.train import load_run
from vidreason.simulation.street import write_street

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "runs_old_class_paths.tar.xz"
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An intent run and a decomposition run, each stopped after two of three epochs."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    # Their configurations name this folder as it was: relative.
    write_street(tmp_path / "streets", videos=3, seed=30, frames=(110, 130), split=(1, 1, 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path):
    with path.open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    "name, table, column",
    [("intent", "predictions.parquet", "probability"), ("digits", "tracks.parquet", "x")],
)
def test_a_run_with_old_class_paths(runs, name, table, column):
    before = pq.read_table(runs / name / table)
    load_run(name, "last")
    assert cli.main(["predict", "--run", name, "--ckpt_path", "last", *QUIET]) == 0
    after = pq.read_table(runs / name / table)
    assert after.column_names == before.column_names
    np.testing.assert_allclose(after[column], before[column], rtol=1e-4, atol=1e-5)

    assert cli.main(["fit", "--run", name, "--resume", *QUIET]) == 0
    found, expected = rows(runs / name / "metrics.csv"), rows(runs / name / "expected_metrics.csv")
    assert [row["epoch"] for row in found] == [0, 1, 2]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
