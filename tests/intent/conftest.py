import numpy as np
import pytest
from make.graphs import furnished_scenes

from vidreason.intent.windows import make_windows


@pytest.fixture(scope="session")
def few():
    """Scenes, and 40 of their benchmark windows; not to be modified."""
    scenes = furnished_scenes(11, 6)
    windows = make_windows(scenes, "benchmark")
    return scenes, windows.take(np.random.default_rng(0).permutation(len(windows))[:40])
