from pathlib import Path

import pytest
import yaml

from vidreason import cli
from vidreason.data.street import write_street
from vidreason.features import is_oracle

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted((FOLDER / "intent").glob("*.yaml"))
DECOMPOSITIONS = sorted((FOLDER / "decomposition").glob("*.yaml"))


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Tracks long enough for windows of 30 observed and 90 coming frames, by number and by list."""
    root = tmp_path_factory.mktemp("streets") / "jaad"
    return write_street(root, videos=12, frames=(200, 240))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_trains(path, streets, tmp_path):
    options = ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert cli.main(["fit", "-c", str(path), f"--data.root={streets}", *options]) == 0


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
