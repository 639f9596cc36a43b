"""Predictions files: what they contain, and which are refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import scenes as made
from make.predictions import columns, meta, write

from vidreason.core.errors import DataError
from vidreason.intent.predictions import (
    COLUMNS,
    match,
    prediction_columns,
    read_predictions,
)
from vidreason.intent.windows import make_windows


def test_horizons_count_frames_in_stip_and_are_0_in_the_benchmark():
    scenes = made.scenes(7)
    for protocol in ("benchmark", "stip"):
        windows = make_windows(scenes, protocol)
        label = windows.label[:, windows.observed :]
        probability = np.random.default_rng(0).random(label.shape)
        found = prediction_columns(windows, scenes, probability)
        want = {}
        for row in range(len(windows)):
            scene = scenes[windows.scene[row]]
            key = scene.id, scene.track_ids[windows.track[row]], windows.last_frame[row]
            for k in range(windows.horizon):
                if label[row, k] >= 0:
                    ahead = k + 1 if protocol == "stip" else 0
                    want[*key, ahead] = (probability[row, k], label[row, k], windows.clean[row])
        names = ("video", "pedestrian", "last_frame", "horizon", "probability", "label", "clean")
        rows = list(zip(*(found[name] for name in names), strict=True))
        assert {row[:4]: row[4:] for row in rows} == want and len(rows) == len(want) > 9


def test_a_file_is_read_sorted_and_complete(tmp_path):
    found = read_predictions(write(tmp_path / "a.parquet", seed=3))
    assert found["pedestrian"].tolist() == ["0_1_1b", "0_1_2", "0_2_1b", "0_2_2"]
    assert found["probability"].tolist() == np.float32([0.6, 0.1, 0.9, 0.45]).tolist()
    assert found["clean"].tolist() == [True, True, True, False]
    assert found.cluster.tolist() == [0, 1, 2, 3]
    assert found.meta == meta(seed=3, version=1)


def replaced(name, row, value):
    rows = columns()
    rows[name] = rows[name].astype(object)
    rows[name][row] = value
    return rows


def without(name):
    return {key: value for key, value in columns().items() if key != name}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        *((without(name), f"lacks column {name}") for name in [*COLUMNS, "clean"]),
        (replaced("probability", 1, float("nan")), "row 2: probability nan is not in [0, 1]"),
        (replaced("probability", 0, 1.5), "row 1: probability 1.5 is not in [0, 1]"),
        (replaced("probability", 0, None), "probability has 1 empty cells"),
        (replaced("label", 2, -1), "row 3: label -1 is neither 0 nor 1"),
        (replaced("last_frame", 3, -4), "row 4: last_frame -4 is negative"),
        (columns(last_frame=["a"] * 4), "column last_frame is not int32"),
        ({name: value[:0] for name, value in columns().items()}, "holds 0 rows of 4 expected"),
        (
            {name: np.r_[value, value[:1]] for name, value in columns().items()},
            "holds 5 rows of 4 expected",
        ),
        (
            {name: value[[0, 1, 2, 1]] for name, value in columns().items()},
            "row 4: pedestrian '0_2_2' has another prediction",
        ),
    ],
)
def test_refuses_wrong_columns(tmp_path, rows, words):
    file = tmp_path / "a.parquet"
    text = json.dumps(meta(version=1))
    table = pa.table({name: pa.array(list(value)) for name, value in rows.items()})
    pq.write_table(table.replace_schema_metadata({"vidreason": text}), file)
    with pytest.raises(DataError) as error:
        read_predictions(file)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        *(({name: ...}, f"lacks metadata {name}") for name in meta()),
        ({"threshold": 1.2}, "threshold=1.2 is not in [0, 1]"),
        ({"threshold": "0.5"}, "threshold must be a finite number, got '0.5'"),
        ({"oracle": 0}, "oracle must be of type bool, got 0"),
        ({"version": 2}, "has version 2, but this release reads 1"),
    ],
)
def test_refuses_wrong_metadata(tmp_path, given, words):
    file = write(tmp_path / "a.parquet")
    text = {k: v for k, v in (meta(version=1) | given).items() if v is not ...}
    table = pq.read_table(file).replace_schema_metadata({"vidreason": json.dumps(text)})
    pq.write_table(table, file)
    with pytest.raises(DataError) as error:
        read_predictions(file)
    assert words in str(error.value)


def test_refuses_other_files(tmp_path):
    with pytest.raises(DataError, match="no such file; give"):
        read_predictions(tmp_path / "nothing.parquet")
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_predictions(tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has no `vidreason` metadata"):
        read_predictions(tmp_path / "b.parquet")


def test_probabilities_include_0_and_1_and_stip_files_have_no_clean_column(tmp_path):
    rows = {name: value for name, value in columns().items() if name != "clean"}
    rows["probability"] = np.array([0.0, 1.0, 0.5, 1.0])
    found = read_predictions(write(tmp_path / "a.parquet", rows, protocol="stip"))
    assert sorted(found["probability"].tolist()) == [0, 0.5, 1, 1]
    assert "clean" not in found.table.column_names


def test_wrong_columns_are_not_written(tmp_path):
    with pytest.raises(DataError, match="lacks column label"):
        write(tmp_path / "a.parquet", without("label"))
    with pytest.raises(DataError, match="probability nan"):
        write(tmp_path / "a.parquet", replaced("probability", 0, float("nan")))
    assert not list(tmp_path.iterdir())


def test_match_returns_the_rows_of_common_keys(tmp_path):
    one = read_predictions(write(tmp_path / "a.parquet")).table
    left, right = match(one, one.take([3, 1]))
    assert (left.tolist(), right.tolist()) == ([1, 3], [1, 0])
