"""Streets, runs, pages and a video that several tests of the results read; not to be written to."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from vidreason import cli
from vidreason.intent.predictions import read_predictions, write_predictions
from vidreason.simulation.street import write_street

ROOT = Path(__file__).parents[2]
EVIL = "<img src=x onerror=document.title=1>"
QUICK = ("--bootstrap", "20", "--cases", "2", "--clips", "4")

FILMED = """
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 8, members: 1}}}
data:
  class_path: IntentData
  init_args: {protocol: stip, observed: 8, horizon: 3, features: [box, neighbours]}
"""


def fit(config, run, *options):
    """Trains for an epoch at most, without a progress bar."""
    line = ["fit", "-c", str(config), f"--trainer.default_root_dir={run}", *options]
    assert cli.main([*line, "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]) == 0


@pytest.fixture(scope="session")
def evil():
    """Name of a pedestrian that is markup."""
    return EVIL


@pytest.fixture(scope="session")
def streets(tmp_path_factory):
    """Root of 24 streets in JAAD's layout; one test pedestrian per video has a name like `evil`."""
    root = tmp_path_factory.mktemp("results") / "streets"
    write_street(root, 24)
    evil = EVIL.replace("<", "&lt;").replace(">", "&gt;")
    for video in (root / "split_ids/default/test.txt").read_text().split():
        text = (root / f"annotations/{video}.xml").read_text()
        found = re.search(r'id="(\w+b)"', text) or re.search(r">(0_\d+_\d+b)<", text)
        if found:
            for path in root.glob(f"*/{video}*.xml"):
                text = re.sub(rf"\b{found[1]}\b", f"{found[1]}{evil}b", path.read_text())
                path.write_text(text)
    return root


@pytest.fixture(scope="session")
def runs(streets):
    """A run on the streets with predictions, and other predictions for the same rows."""
    base, data = streets.parent, f"--data.root={streets}"
    small = ("--model.net.init_args.hidden=8", "--data.batch_size=64", "--seed_everything=0")
    fit(ROOT / "configs/intent/demo_streets.yaml", base / "run0", data, *small)
    line = ["predict", "--run", str(base / "run0"), "--trainer.enable_progress_bar=false"]
    assert cli.main(line) == 0
    found = read_predictions(base / "run0/predictions.parquet")
    columns = {name: found[name] for name in found.table.column_names}
    noise = np.random.default_rng(0).normal(0, 0.1, len(found.table))
    columns["probability"] = np.clip(columns["probability"] + noise, 0, 1)
    (base / "run1").mkdir()
    meta = {name: value for name, value in found.meta.items() if name != "version"}
    write_predictions(base / "run1/predictions.parquet", columns, meta)
    return base / "run0", base / "run1"


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A decomposition run on drawn digits with six test clips."""
    run = tmp_path_factory.mktemp("digits") / "run"
    few = ("--trainer.limit_train_batches=2", "--data.val_clips=4", "--data.test_clips=6")
    fit(ROOT / "configs/decomposition/demo_digits.yaml", run, *few)
    return run


@pytest.fixture(scope="session")
def filmed(tmp_path_factory, film):
    """Streets with a run and predictions, and the name of the one that `film` shows."""
    base, name = tmp_path_factory.mktemp("filmed"), "video_0002"
    root = write_street(base / "jaad", 12, seed=3, frames=(90, 120))
    (base / "config.yaml").write_text(FILMED)
    fit(
        base / "config.yaml", base / "run", f"--data.root={root}", "--trainer.limit_train_batches=2"
    )
    line = ["predict", "--run", str(base / "run"), "--data.predict_split=train"]
    assert cli.main(line) == 0
    for source, target in (("street.mp4", "jaad/JAAD_clips/{}.mp4"), ("store", "store")):
        place = base / target.format(name)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(film / source)
    return base, name


@pytest.fixture(scope="session")
def predicted(filmed, film):
    """Output folder of `predict --video` on the film, and what it printed."""
    out, said = filmed[0] / "predicted", io.StringIO()
    line = ["predict", "--video", str(film / "street.mp4"), "--store", str(film / "store")]
    line += ["--weights", str(filmed[0] / "run"), "--height", "90", "--out", str(out)]
    with redirect_stdout(said):
        assert cli.main(line) == 0
    return out, said.getvalue()


@pytest.fixture(scope="session")
def page_of_runs(runs, streets):
    out = streets.parent / "runs.html"
    line = ["report", *map(str, runs), "--root", str(streets), "--out", str(out), *QUICK]
    assert cli.main(line) == 0
    return out


@pytest.fixture(scope="session")
def page_of_clips(digits):
    out = digits.parent / "clips.html"
    assert cli.main(["report", str(digits), "--out", str(out), *QUICK]) == 0
    return out
