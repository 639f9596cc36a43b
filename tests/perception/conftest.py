import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a tiny Mask2Former with random weights; must not be changed."""
    pytest.importorskip("transformers")
    from make.mask2former import save

    return save(tmp_path_factory.mktemp("tiny") / "m2f")
