from pathlib import Path

import numpy as np
import pytest
import yaml
from make import box_files, pie_files, stip_files

from vidreason import cli
from vidreason.intent.features import is_oracle
from vidreason.intent.metrics import roc_auc
from vidreason.intent.predictions import read_predictions
from vidreason.perception.masks import encode, pool
from vidreason.perception.store import Instances, Writer
from vidreason.scenes.jaad import read_jaad
from vidreason.scenes.scene import KINDS
from vidreason.simulation.street import write_street

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted((FOLDER / "intent").glob("*.yaml"))
DECOMPOSITIONS = sorted((FOLDER / "decomposition").glob("*.yaml"))


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Tracks long enough for windows of 30 observed and 90 coming frames, by number and by list."""
    root = tmp_path_factory.mktemp("streets") / "jaad"
    return write_street(root, videos=12, frames=(200, 240))


@pytest.fixture(scope="module")
def roots(streets, tmp_path_factory):
    """A made-up data set of each kind."""
    root = tmp_path_factory.mktemp("roots")
    stip_files.stip(root / "stip", people=4)
    pie_files.pie(root / "pie", people=4)
    tables = box_files.rows_of(read_jaad(streets), ("train", "val", "test"))
    box_files.write(root / "boxes", *tables)
    return {name: root / name for name in ("stip", "pie", "boxes")} | {"jaad": streets}


@pytest.fixture(scope="module")
def store(streets, tmp_path_factory):
    """What a segmenter might make of the streets: everybody is a rectangle, a car stands by."""
    folder = tmp_path_factory.mktemp("store")
    for scene in read_jaad(streets):
        facts = {"video": scene.id, "fps": scene.fps, "length": scene.length, "every": 30}
        facts |= {"width": scene.width, "height": scene.height}
        with Writer(folder / f"{scene.id}.arrow", facts, 256) as writer:
            for frame in range(0, scene.length, 30):
                _look(writer, scene, frame)
    return folder


def _look(writer, scene, frame):
    rows = np.flatnonzero(scene.frame == frame)
    image = np.zeros((scene.height, scene.width), np.uint8)
    image[500:600, 100:300] = 1
    for n, row in enumerate(rows, 2):
        x1, y1, x2, y2 = scene.box[row].astype(int)
        image[y1:y2, x1:x2] = n
    kind = np.array([KINDS.index("vehicle")] + [KINDS.index("person")] * len(rows), np.int8)
    features = np.full((256, 4, 6), frame / 300, np.float32)
    count = len(kind)
    found = Instances(image, ["x"] * count, kind, np.ones(count, np.float32), features)
    track = np.append(0, 1 + np.searchsorted(scene.offsets, rows, side="right"))
    writer.add(frame, found, track, encode(image, count), pool(features, image, count))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_trains(path, roots, store, tmp_path):
    data = yaml.safe_load(path.read_text())["data"]["init_args"]
    options = [f"--data.root={roots[data.get('dataset', 'jaad').partition('-')[0]]}"]
    if "image_features" in data:
        options.append(f"--data.store={store}")
    options += ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main(["fit", "-c", str(path), *options]) == 0


@pytest.mark.parametrize("name", ["stip_1s", "pie"])
def test_stip_and_pie_are_learned_and_evaluated(name, roots, tmp_path, capsys):
    run, root = tmp_path / "run", roots[name.partition("_")[0]]
    options = [f"--data.root={root}", f"--trainer.default_root_dir={run}"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.max_epochs=12"]
    config = str(FOLDER / "intent" / f"{name}.yaml")
    assert cli.main(["fit", "-c", config, *options, *quiet]) == 0
    assert cli.main(["predict", "--run", str(run), quiet[0]]) == 0
    found = read_predictions(run / "predictions.parquet")
    # Who nears a crosswalk, or walks across a street, can be seen to do so.
    assert roc_auc(found["probability"], found["label"]) > 0.85
    assert found.meta["dataset"] == name.partition("_")[0]
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), f"--root={root}", "--bootstrap", "20"]) == 0
    table = capsys.readouterr().out
    assert "majority" in table and "box trees" in table


def test_what_the_data_lack_is_not_quietly_left_out(roots, store, tmp_path, capsys):
    config = ["fit", "-c", str(FOLDER / "intent" / "jaad_all.yaml")]
    base = [f"--data.root={roots['jaad']}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    cases = {
        "data.features: 'objects', which no video of jaad has here": [
            "--data.features=[box,objects]"
        ],
        "data.features: 'odometry', which no video of jaad": ["--data.features=[box,odometry]"],
        "data.image_features: 9 without a store": ["--data.image_features=9"],
        "data.image_features: 9, but video_00": [
            f"--data.store={store}",
            "--data.image_features=9",
        ],
        "no such file; make it with `vidreason prepare`": ["--data.store=nowhere"],
        "protocol: 'benchmark' with 'stip', which has no crossing points": [
            "--data.dataset=stip",
            f"--data.root={roots['stip']}",
        ],
        "observed: 8 with 'benchmark', which observes 16": ["--data.observed=8"],
    }
    for said, options in cases.items():
        assert cli.main([*config, *base, *options]) == 1, said
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


@pytest.mark.parametrize("dataset", ["stip", "stip-all-views", "pie", "boxes"])
def test_windows_of_any_dataset_are_a_table(dataset, roots, tmp_path, capsys):
    root = roots[dataset.partition("-")[0]]
    line = ["data", "windows", dataset, "--root", str(root), "--split", "test", "--horizon", "4"]
    line += ["--observed", "8", "--protocol", "stip", "--out", str(tmp_path / "w.parquet")]
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    assert "of the labels crossing" in said and " 0 windows" not in said


@pytest.mark.parametrize("path", DECOMPOSITIONS, ids=lambda path: path.stem)
def test_every_decomposition_trains(path, tmp_path):
    options = ["--data.batch_size=2", "--trainer.enable_progress_bar=false"]
    if "MovingMNISTData" in path.read_text():
        options += ["--data.source=drawn"]
    options += ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main(["fit", "-c", str(path), *options]) == 0


def test_decompositions_are_named_after_their_configuration():
    for path in DECOMPOSITIONS:
        config = yaml.safe_load(path.read_text())
        assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_runs_are_named_after_their_configuration(path):
    config = yaml.safe_load(path.read_text())
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    assert is_oracle(config["data"]["init_args"]["features"]) == ("oracle" in path.stem)
