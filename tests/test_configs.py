"""Every shipped configuration has a name, a description and trains."""

import numpy as np
import pytest
import yaml
from make import box_files, pie_files, stip_files
from make.command import refused, run

from vidreason import cli
from vidreason.intent.features import is_oracle
from vidreason.intent.metrics import roc_auc
from vidreason.intent.predictions import read_predictions
from vidreason.perception.masks import encode, pool
from vidreason.perception.store import Instances, Writer
from vidreason.runs.configs import describe, find_config, shipped
from vidreason.scenes.jaad import read_jaad
from vidreason.scenes.scene import KINDS
from vidreason.simulation.street import write_street

INTENT, DECOMPOSITION = shipped("intent"), shipped("decomposition")
# One of each dataset, protocol and network; the others differ in numbers or features only.
QUICK = {
    *("boxes", "jaad_location", "jaad_segmented", "jaad_stip_faithful", "pie", "stip_1s"),
    *("balls", "moving_mnist", "moving_mnist_digits_1_3"),
}


def quick(names):
    """Returns test parameters; only a few run by default."""
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Streets whose tracks fit windows of 30 observed and 90 predicted frames."""
    root = tmp_path_factory.mktemp("streets") / "jaad"
    return write_street(root, videos=12, frames=(200, 240))


@pytest.fixture(scope="module")
def roots(streets, tmp_path_factory):
    """A simulated dataset of each kind."""
    root = tmp_path_factory.mktemp("roots")
    stip_files.stip(root / "stip", people=4)
    pie_files.pie(root / "pie", people=4)
    tables = box_files.rows_of(read_jaad(streets), ("train", "val", "test"))
    box_files.write(root / "boxes", *tables)
    return {name: root / name for name in ("stip", "pie", "boxes")} | {"jaad": streets}


@pytest.fixture(scope="module")
def store(streets, tmp_path_factory):
    """A store for the streets: every pedestrian is a rectangle, and there is a parked car."""
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


def test_configurations_are_listed_with_a_line_each():
    code, out, _ = run("configs")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  "))
    assert code == 0 and lines.keys() == INTENT.keys() | DECOMPOSITION.keys()
    for name, path in (INTENT | DECOMPOSITION).items():
        assert lines[name] == describe(path) and len(lines[name]) <= 90
        # One sentence on one line.
        assert lines[name].endswith(".") and path.read_text().startswith("# ")


def test_a_configuration_is_printed_by_name():
    assert run("configs", "pie") == (0, INTENT["pie"].read_text(), "")


@pytest.mark.parametrize(
    "name", ["jaad_beh", "jaad_beh.yaml", "intent/jaad_beh", "configs/intent/jaad_beh.yaml"]
)
def test_configurations_are_found_by_name_and_by_their_path_in_a_checkout(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == INTENT["jaad_beh"]
    assert "neither a file" in refused("configs", f"other/{name}")


def test_a_local_file_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jaad_beh.yaml").write_text("seed_everything: 7")
    assert run("configs", "jaad_beh.yaml")[1] == "seed_everything: 7"
    assert find_config("jaad_beh") == INTENT["jaad_beh"]


@pytest.mark.parametrize("name", quick(INTENT))
def test_every_configuration_trains(name, roots, store, tmp_path):
    data = yaml.safe_load(INTENT[name].read_text())["data"]["init_args"]
    options = [f"--data.root={roots[data.get('dataset', 'jaad').partition('-')[0]]}"]
    if "image_features" in data:
        options.append(f"--data.store={store}")
    options += ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main(["fit", "-c", name, *options]) == 0


@pytest.mark.parametrize("name", ["pie", pytest.param("stip_1s", marks=pytest.mark.slow)])
def test_stip_and_pie_are_learned_and_evaluated(name, roots, tmp_path, capsys):
    folder, root = tmp_path / "run", roots[name.partition("_")[0]]
    options = [f"--data.root={root}", f"--trainer.default_root_dir={folder}"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.max_epochs=12"]
    assert cli.main(["fit", "-c", name, *options, *quiet]) == 0
    assert cli.main(["predict", "--run", str(folder), quiet[0]]) == 0
    found = read_predictions(folder / "predictions.parquet")
    # The simulated pedestrians show that they cross: they walk towards the street.
    assert roc_auc(found["probability"], found["label"]) > 0.85
    assert found.meta["dataset"] == name.partition("_")[0]
    capsys.readouterr()
    assert cli.main(["evaluate", str(folder), f"--root={root}", "--bootstrap", "20"]) == 0
    table = capsys.readouterr().out
    assert "majority" in table and "box trees" in table


def test_missing_inputs_are_reported(roots, store, tmp_path, capsys):
    config = ["fit", "-c", "jaad_all"]
    base = [f"--data.root={roots['jaad']}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    cases = {
        "data.features: 'objects' is not available in any loaded video of jaad; ": [
            "--data.features=[box,objects]"
        ],
        "data.features: 'odometry' is not available in any loaded video of jaad; ": [
            "--data.features=[box,odometry]"
        ],
        "data.image_features: 9 without a store": ["--data.image_features=9"],
        "data.image_features: 9, but video_00": [
            f"--data.store={store}",
            "--data.image_features=9",
        ],
        "no such file; create it with `vidreason prepare`": ["--data.store=nowhere"],
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


@pytest.mark.parametrize("name", quick(DECOMPOSITION))
def test_every_decomposition_trains(name, tmp_path):
    options = ["--data.batch_size=2", "--trainer.enable_progress_bar=false"]
    if "MovingMNISTData" in DECOMPOSITION[name].read_text():
        options += ["--data.source=drawn"]
    options += ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main(["fit", "-c", name, *options]) == 0


def test_runs_are_named_after_their_configuration():
    for name, path in (INTENT | DECOMPOSITION).items():
        config = yaml.safe_load(path.read_text())
        assert config["trainer"]["default_root_dir"] == f"runs/{name}"
        if name in INTENT:
            assert is_oracle(config["data"]["init_args"]["features"]) == ("oracle" in name)
