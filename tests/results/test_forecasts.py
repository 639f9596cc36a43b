"""Forecasts of whole scenes, the influence of neighbours, and the forecasts file."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.networks import IntentGraphNet, StipNet
from vidreason.intent.task import IntentTask
from vidreason.intent.windows import open_windows
from vidreason.results import forecasts
from vidreason.scenes.jaad import read_jaad
from vidreason.scenes.scene import KINDS

PERSON = KINDS.index("person")
FEATURES = ("box", "neighbours", "ego", "traffic")


@pytest.fixture(scope="module")
def data(streets):
    made = IntentData(FEATURES, root=str(streets))
    made.setup("test")
    return made


def make_task(net=IntentGraphNet, **options):
    torch.manual_seed(0)
    made = IntentTask(net(FEATURES, 16, 1, hidden=8, **options), average=0)
    return made.eval()


def without(scene, track):
    """The scene without one track."""
    rows = np.r_[0 : scene.offsets[track], scene.offsets[track + 1] : len(scene.frame)]
    kept = np.delete(np.arange(len(scene.kind)), track)
    sizes = np.diff(scene.offsets)[kept]
    return dataclasses.replace(
        scene,
        track_ids=tuple(scene.track_ids[k] for k in kept),
        kind=scene.kind[kept],
        facts={n: v[kept] for n, v in scene.facts.items()},
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        frame=scene.frame[rows],
        box=scene.box[rows],
        cues={n: v[rows] for n, v in scene.cues.items()},
        labels={n: v[rows] for n, v in scene.labels.items()},
    )


def test_open_windows_are_all_runs_of_consecutive_boxes_of_persons(streets):
    scenes = read_jaad(streets)[:6]
    windows = open_windows(scenes, "stip", 30, 5)
    slow = [
        (s, k, rows.start + first)
        for s, scene in enumerate(scenes)
        for k, (_, rows) in enumerate(scene.rows())
        if KINDS[scene.kind[k]] == "person"
        for first in range(rows.stop - rows.start - 29)
    ]
    assert len(slow) > 100
    assert list(zip(windows.scene, windows.track, windows.row, strict=True)) == slow
    for w in (0, len(slow) // 2, len(slow) - 1):
        frame = scenes[windows.scene[w]].frame
        assert windows.first_frame[w] == frame[windows.row[w]]
        assert windows.last_frame[w] == frame[windows.row[w] + 29]
    assert windows.label.shape == (len(slow), 35) and (windows.label == -1).all()
    assert not len(open_windows([], "stip", 30, 5))


def test_predictions_for_a_scene_equal_those_for_its_windows(data):
    task = make_task()
    windows, scenes = data.windows["test"], data.scenes["test"]
    wanted = task.forecast(data.graphs(scenes, windows))
    compared = 0
    for s in np.argsort([len(scene.frame) for scene in scenes])[:2]:
        scene = scenes[s]
        found = forecasts.forecast_scene(task, data, scene)
        keys = zip(found.track, found.frame, strict=True)
        at = dict(zip(keys, found.probability[:, 0], strict=True))
        for w in np.flatnonzero(windows.scene == s):
            key = windows.track[w], windows.last_frame[w]
            assert at[key] == pytest.approx(wanted[w, 0], abs=1e-6)
            compared += 1
    assert compared > 3


@pytest.mark.parametrize("net", [IntentGraphNet, StipNet])
def test_influence_is_the_change_without_the_neighbour(data, net):
    task = make_task(net)
    crowded = (one for one in data.scenes["test"] if (one.kind == PERSON).sum() > 3)
    scene = min(crowded, key=lambda one: len(one.frame))
    found = forecasts.forecast_scene(task, data, scene)
    assert len(np.unique(found.sender)) > 2 and np.abs(found.change).max() > 1e-5
    for track in np.unique(found.sender)[:2]:
        rest = forecasts.forecast_scene(task, data, without(scene, track))
        left = [k for k in range(len(scene.kind)) if k != track]
        keys = ((left[k], f) for k, f in zip(rest.track, rest.frame, strict=True))
        key = dict(zip(keys, rest.probability, strict=True))
        for w, sender, change in zip(found.window, found.sender, found.change, strict=True):
            if sender == track:
                alone = key[found.track[w], found.frame[w]]
                assert found.probability[w] - alone == pytest.approx(change, abs=1e-5)


# --- The file

META = {
    **{"video": "clip", "fps": 30.0, "width": 100, "height": 50, "length": 9, "every": 1},
    **{"threshold": 0.5, "words": "crosses in 1 to 2 s", "model": "some"},
}


def write(path, frames=(3, 4), probability=0.25, **meta):
    with forecasts.write_forecasts(path, {**META, **meta}, np.array([1, 2])) as writer:
        for frame in frames:
            chance = np.full((2, 2), probability)
            writer.add(frame, ["7", "<b>"], np.arange(8).reshape(2, 4), chance)


def test_forecasts_are_read_as_written(tmp_path, monkeypatch):
    monkeypatch.setattr(forecasts, "_GROUP", 2)
    write(tmp_path / "f.parquet", frames=range(9))
    assert pq.ParquetFile(tmp_path / "f.parquet").num_row_groups > 1
    found = forecasts.read_forecasts(tmp_path / "f.parquet")
    assert found.meta["video"] == "clip" and len(found.table) == 36
    assert found["frame"].tolist() == np.repeat(np.arange(9), 4).tolist()
    assert found["pedestrian"][:4].tolist() == ["7", "7", "<b>", "<b>"]
    assert found["horizon"][:4].tolist() == [1, 2, 1, 2]
    assert found["x2"][:4].tolist() == [2, 2, 6, 6]


def test_an_interrupted_write_leaves_no_file(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        forecasts.write_forecasts(tmp_path / "f.parquet", META, np.array([0])),
    ):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "f.parquet"
    with pytest.raises(DataError, match="no such file"):
        forecasts.read_forecasts(path)
    path.write_text("x")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        forecasts.read_forecasts(path)
    pq.write_table(pa.table({"video": ["clip"]}), path)
    with pytest.raises(DataError, match="is not a forecasts file"):
        forecasts.read_forecasts(path)
    for problem, options in {
        "frames are not sorted": {"frames": (4, 3)},
        "or not in 0 to 8": {"frames": (9,)},
        r"not in \[0, 1\]": {"probability": np.nan},
        "metadata fps must be a finite number, got 'fast'": {"fps": "fast"},
    }.items():
        write(path, **options)
        with pytest.raises(DataError, match=problem):
            forecasts.read_forecasts(path)
    text = json.dumps({"kind": "forecasts", "version": 1, **META})
    table = pa.table({"video": ["clip"]}).replace_schema_metadata({"vidreason": text})
    pq.write_table(table, path)
    with pytest.raises(DataError, match="has wrong columns"):
        forecasts.read_forecasts(path)


def test_the_prediction_target_in_words():
    assert forecasts.horizon_words("benchmark", 1, 30) == "crosses in 1 to 2 s"
    assert forecasts.horizon_words("stip", 60, 30) == "is crossing in 2 s"
    assert forecasts.horizon_words("stip", 2, 2) == "is crossing in 1 s"
