import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Side by side each process has a core to itself; torch reads this when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings
from make import tiny

from vidreason.scenes.jaad import read_jaad

# Examples are the same in every run: a test fails because of the code, not of luck.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Three made-up videos; not to be written to."""
    return tiny.jaad(tmp_path_factory.mktemp("tiny") / "jaad")


@pytest.fixture
def copy(tiny_root, tmp_path):
    """The same videos, to be written to."""
    # Other tests may have left a cache in the original.
    ignore = shutil.ignore_patterns(".vidreason")
    return Path(shutil.copytree(tiny_root, tmp_path / "jaad", ignore=ignore))


@pytest.fixture(scope="session")
def real_root():
    """The real JAAD."""
    root = Path(os.environ.get("VIDREASON_DATA", "")) / "jaad"
    if "VIDREASON_DATA" not in os.environ or not root.is_dir():
        pytest.skip("$VIDREASON_DATA/jaad is not there")
    return root


@pytest.fixture(scope="session")
def real(real_root):
    """Scenes of the real JAAD."""
    return read_jaad(real_root)


@pytest.fixture(scope="session")
def real_digits():
    """The real MNIST."""
    root = Path(os.environ.get("VIDREASON_DATA", "")) / "mnist"
    if "VIDREASON_DATA" not in os.environ or not root.is_dir():
        pytest.skip("$VIDREASON_DATA/mnist is not there")
    return root


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """A short street on film, with a store of its true masks: `simulate(3, 2, (90, 120))`."""
    from vidreason.simulation.film import Film, write_film, write_truth
    from vidreason.simulation.world import simulate

    base = tmp_path_factory.mktemp("film")
    one = Film(simulate(3, 2, (90, 120)))
    write_film(base / "street.mp4", one)
    write_truth(base / "store/street.arrow", "street", one)
    return base
