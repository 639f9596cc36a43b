import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # One core per worker; read by torch when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings
from make import tiny

from vidreason.scenes.jaad import read_jaad

# The same examples in every run, so that only changes of the code make a test fail.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Three generated videos in the layout of JAAD; read only."""
    return tiny.jaad(tmp_path_factory.mktemp("tiny") / "jaad")


@pytest.fixture
def copy(tiny_root, tmp_path):
    """A writable copy of `tiny_root`."""
    # Other tests may have left a cache in the original.
    ignore = shutil.ignore_patterns(".vidreason")
    return Path(shutil.copytree(tiny_root, tmp_path / "jaad", ignore=ignore))


def _real(name: str) -> Path:
    root = Path(os.environ.get("VIDREASON_DATA", ""), name)
    if "VIDREASON_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"$VIDREASON_DATA/{name} is not available")
    return root


@pytest.fixture(scope="session")
def real_root():
    """Folder of the real JAAD."""
    return _real("jaad")


@pytest.fixture(scope="session")
def real(real_root):
    """Scenes of the real JAAD."""
    return read_jaad(real_root)


@pytest.fixture(scope="session")
def real_digits():
    """Folder of the real MNIST."""
    return _real("mnist")


@pytest.fixture(scope="session")
def real_pie():
    """Folder of real PIE annotations, with the boxes of nine videos."""
    root = _real("pie")
    if len(list(root.glob("annotations/set*/video_*_annt.xml"))) != 9:
        pytest.skip("$VIDREASON_DATA/pie does not hold the boxes of the nine videos")
    return root


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Folder of a video of `simulate(3, 2, (90, 120))`, and of a store of its true masks."""
    from vidreason.simulation.film import Film, write_film, write_truth
    from vidreason.simulation.world import simulate

    base = tmp_path_factory.mktemp("film")
    one = Film(simulate(3, 2, (90, 120)))
    write_film(base / "street.mp4", one)
    write_truth(base / "store/street.arrow", "street", one)
    return base
