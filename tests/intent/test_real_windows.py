"""Windows of the real annotations; skipped where the data are not available."""

from pathlib import Path

import pytest

from vidreason.intent.datasets import read_split, split_windows
from vidreason.scenes.jaad import read_splits


def count_crossing(windows):
    return int((windows.label[:, -1] == 1).sum())


def counts(dataset: str, root: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Returns by subset the windows of train, val and test, and how many of them are crossing."""
    scenes = [read_split(dataset, root, "benchmark", split) for split in ("train", "val", "test")]
    found = {}
    for subset in ("all", "beh"):
        windows = [split_windows(dataset, some, "benchmark", subset) for some in scenes]
        found[subset] = [len(w) for w in windows], [count_crossing(w) for w in windows]
    return found


def test_jaad_has_20867_windows_over_both_subsets(real_root):
    found = counts("jaad", real_root)
    crossing = [1_760, 176, 1_177]
    assert found["all"] == ([8_613, 1_265, 6_732], crossing)
    assert found["beh"] == ([2_134, 242, 1_881], crossing)
    assert sum(sum(windows) for windows, _ in found.values()) == 20_867


def test_nine_pie_videos_have_588_windows(real_pie):
    found = counts("pie", real_pie)
    assert found["all"] == found["beh"] == ([246, 162, 180], [18, 18, 24])
    assert sum(found["all"][0]) == 588


@pytest.mark.parametrize(("subset", "count"), [("beh", 1_265), ("all", 6_116)])
def test_clean_benchmark_windows_of_jaad(real_root, real, subset, count):
    names = set(read_splits(real_root)["test"])
    scenes = [scene for scene in real if scene.id in names]
    windows = split_windows("jaad", scenes, "benchmark-clean", subset)
    assert len(windows) == count and count_crossing(windows) == 561
    positive = windows.label[:, -1] == 1
    assert len(set(zip(windows.scene[positive], windows.track[positive], strict=True))) == 51
