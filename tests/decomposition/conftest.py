import pytest

from vidreason.decomposition import data


@pytest.fixture(scope="module")
def few_digits():
    """Draws fewer digits, which takes less time."""
    few = {split: (count // 10, seed) for split, (count, seed) in data._DRAWN.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_DRAWN", few)
        yield
