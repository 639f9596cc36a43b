import argparse
import json
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import scenes as made

from vidreason.core.errors import DataError
from vidreason.intent import metrics
from vidreason.intent.baselines import box_trees, majority
from vidreason.intent.datasets import split_videos
from vidreason.intent.predictions import (
    COLUMNS,
    match,
    prediction_columns,
    read_predictions,
    write_predictions,
)
from vidreason.intent.windows import make_windows
from vidreason.results import evaluate
from vidreason.scenes.jaad import read_jaad, read_splits

FIGURES = {"roc", "pr", "calibration"}


def columns(label=(1, 1, 0, 0), probability=(0.9, 0.45, 0.6, 0.1), steps=0, **more):
    """Two pedestrians in each of two videos; with `steps`, a row for each of so many horizons."""
    repeat = max(steps, 1)
    one = {
        "video": ["video_0002", "video_0002", "video_0001", "video_0001"],
        "pedestrian": ["0_2_1b", "0_2_2", "0_1_1b", "0_1_2"],
        "last_frame": np.array([15, 15, 30, 18]),
        "label": np.array(label),
        "clean": np.array([True, False, True, True]),
        **more,
    }
    rows = {name: np.repeat(np.array(value), repeat) for name, value in one.items()}
    rows["horizon"] = np.tile(np.arange(1, steps + 1) if steps else [0], 4)
    rows["probability"] = np.broadcast_to(probability, 4 * repeat)
    return rows


def meta(**more):
    return {
        "dataset": "jaad",
        "protocol": "benchmark",
        "subset": "all",
        "split": "test",
        "features": ["box"],
        "oracle": False,
        "threshold": 0.4,
        "n_expected": 4,
    } | more


def write(path, rows=None, **more):
    write_predictions(path, columns() if rows is None else rows, meta(**more))
    return path


def run(capsys, *arguments):
    """Runs the command; returns what it printed."""
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    assert evaluate.run(parser.parse_args([str(a) for a in arguments])) == 0
    return capsys.readouterr().out


def report(folder):
    return json.loads((folder / "metrics.json").read_text())


def values(numbers):
    return {name: number["value"] for name, number in numbers.items()}


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)


def test_horizons_are_frames_under_stip_and_the_one_question_else():
    scenes = made.scenes(7)
    for protocol in ("benchmark", "stip"):
        windows = make_windows(scenes, protocol)
        answer = windows.label[:, windows.observed :]
        probability = np.random.default_rng(0).random(answer.shape)
        found = prediction_columns(windows, scenes, probability)
        want = {}
        for row in range(len(windows)):
            scene = scenes[windows.scene[row]]
            who = scene.id, scene.track_ids[windows.track[row]], windows.last_frame[row]
            for k in range(windows.horizon):
                if answer[row, k] >= 0:
                    ahead = k + 1 if protocol == "stip" else 0
                    want[*who, ahead] = (probability[row, k], answer[row, k], windows.clean[row])
        names = ("video", "pedestrian", "last_frame", "horizon", "probability", "label", "clean")
        rows = list(zip(*(found[name] for name in names), strict=True))
        assert {row[:4]: row[4:] for row in rows} == want and len(rows) == len(want) > 9


def test_file_is_sorted_and_complete(tmp_path):
    found = read_predictions(write(tmp_path / "a.parquet", seed=3))
    assert found["pedestrian"].tolist() == ["0_1_1b", "0_1_2", "0_2_1b", "0_2_2"]
    assert found["probability"].tolist() == np.float32([0.6, 0.1, 0.9, 0.45]).tolist()
    assert found["clean"].tolist() == [True, True, True, False]
    assert found.cluster.tolist() == [0, 1, 2, 3]
    assert found.meta == meta(seed=3, version=1)


def test_golden_numbers(tmp_path, capsys):
    file = write(tmp_path / "run" / "predictions.parquet")
    text = run(capsys, file, "--bootstrap", 40)
    found = report(tmp_path / "run" / "evaluation")["runs"]["run"]
    every, clean = (found["splits"][s]["scores"]["run"] for s in ("all", "clean"))
    assert values(every["metrics"]) == pytest.approx(
        {
            "accuracy@0.5": 0.5,
            "accuracy@validation": 0.75,
            "balanced_accuracy@0.5": 0.5,
            "balanced_accuracy@validation": 0.75,
            "f1@0.5": 0.5,
            "f1@validation": 0.8,
            "precision@0.5": 0.5,
            "precision@validation": 2 / 3,
            "recall@0.5": 0.5,
            "recall@validation": 1,
            "roc_auc": 0.75,
            "average_precision": (1 + 2 / 3) / 2,
            "brier": (0.1**2 + 0.55**2 + 0.6**2 + 0.1**2) / 4,
            "calibration_error": (0.1 + 0.55 + 0.6 + 0.1) / 4,
        }
    )
    assert values(clean["metrics"])["roc_auc"] == 1
    assert (every["n"], every["pedestrians"], clean["n"]) == (4, 4, 3)
    assert found["splits"]["clean"]["n_expected"] == 3
    for line in ("│ accuracy          │ 0.500 [", "0.750 [", "at 0.400 (validation)", "4/4", "3/3"):
        assert line in text
    assert "INCOMPLETE" not in text and "ORACLE" not in text and "--root" in text
    made = {path.name for path in (tmp_path / "run" / "evaluation").iterdir()}
    figures = {f"jaad-benchmark-all-test-{s}-{f}.png" for s in ("all", "clean") for f in FIGURES}
    assert made == figures | {"metrics.json"}


def crowd(seed):
    """Forty rows of ten pedestrians, four each; the two videos use the same names."""
    return {
        "video": np.repeat(["v1", "v2"], 20),
        "pedestrian": np.tile(np.repeat([f"p{i}" for i in range(5)], 4), 2),
        "last_frame": np.arange(40),
        "horizon": np.zeros(40, int),
        "label": np.random.default_rng(0).integers(0, 2, 40),
        "probability": np.random.default_rng(seed).random(40).astype(np.float32),
        "clean": np.ones(40, bool),
    }


def test_intervals_are_those_of_the_clustered_bootstrap(tmp_path, capsys):
    rows = crowd(1)
    file = write(tmp_path / "a.parquet", rows, n_expected=40)
    run(capsys, file, "--bootstrap", 30, "--seed", 5)
    cluster = np.arange(40) // 4
    samples = metrics.measure(rows["probability"], rows["label"], metrics.draw(cluster, 30, 5))
    found = report(tmp_path / "evaluation")["runs"]["a"]["splits"]["all"]["scores"]["a"]
    for name, sample in samples.items():
        low, high, left_out = metrics.interval(sample)
        numbers = found["metrics"][name]
        assert (numbers["low"], numbers["high"]) == pytest.approx((low, high)), name
        assert numbers["left_out"] == left_out


def test_order_of_rows_does_not_matter(tmp_path, capsys):
    rows = columns()
    for name, order in (("a", [0, 1, 2, 3]), ("b", [3, 1, 0, 2])):
        shuffled = {key: value[order] for key, value in rows.items()}
        write(tmp_path / name / "x.parquet", shuffled)
        run(capsys, tmp_path / name / "x.parquet", "--bootstrap", 20)
    one, other = (report(tmp_path / name / "evaluation")["runs"]["x"] for name in "ab")
    assert one["splits"] == other["splits"]


def test_stip_is_the_mean_over_horizons(tmp_path, capsys):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, (4, 6)) | np.eye(4, 6, dtype=int)
    label[-1] = 0  # both classes at every horizon
    label[0] = 1
    rows = columns(probability=rng.random(24), steps=6) | {"label": label.ravel()}
    write(tmp_path / "a.parquet", rows, protocol="stip", n_expected=24)
    text = run(capsys, tmp_path / "a.parquet", "--bootstrap", 20)
    found = report(tmp_path / "evaluation")["runs"]["a"]["splits"]
    assert list(found) == ["all"]
    scores = found["all"]["scores"]["a"]
    probability = rows["probability"].astype(np.float32).reshape(4, 6)
    slow = [metrics.measure(probability[:, k], label[:, k]) for k in range(6)]
    assert scores["horizons"]["frames"] == [1, 2, 3, 4, 5, 6]
    assert scores["horizons"]["n"] == [4] * 6
    for name in slow[0]:
        curve = [step[name] for step in slow]
        assert [n["value"] for n in scores["horizons"]["metrics"][name]] == pytest.approx(curve)
        assert scores["metrics"][name]["value"] == pytest.approx(np.mean(curve))
    # Horizons share the resamples of pedestrians, and the interval is that of the mean.
    drawn = metrics.draw(np.array([2, 3, 0, 1]), 20, 0)
    samples = [metrics.measure(probability[:, k], label[:, k], drawn) for k in range(6)]
    low, high, left_out = metrics.interval(np.mean([s["brier"] for s in samples], axis=0))
    brier = {"value": pytest.approx(np.mean([s["brier"] for s in slow])), "left_out": left_out}
    brier |= {"low": pytest.approx(low), "high": pytest.approx(high)}
    assert scores["metrics"]["brier"] == brier
    accuracy = [f"{slow[k]['accuracy@0.5']:.3f}" for k in (0, 2, 5)]
    lines = text[text.index("frames ahead") :].splitlines()[2:5]
    assert [line.split()[1] for line in lines] == ["1", "3", "6"]
    assert [line.split()[3] for line in lines] == accuracy
    assert all(line.split()[-2] == "4/4" for line in lines)
    assert (tmp_path / "evaluation" / "jaad-stip-6-all-test-all-roc-auc-by-time.png").exists()


def test_oracles_are_marked_everywhere(tmp_path, capsys):
    # Features that reveal the label make an oracle, whatever the flag says.
    write(tmp_path / "a.parquet", features=["box", "oracle_behaviour"])
    write(tmp_path / "b.parquet", oracle=True)
    text = run(capsys, tmp_path / "a.parquet", "--against", tmp_path / "b.parquet")
    assert "a (ORACLE): jaad" in text and "a (ORACLE) - b (ORACLE): all" in text
    found = report(tmp_path / "evaluation")["runs"]["a (ORACLE)"]
    assert found["oracle"] and found["against"]["oracle"]


def test_incomplete_predictions_are_marked(tmp_path, capsys):
    write(tmp_path / "a.parquet", n_expected=5)
    text = run(capsys, tmp_path / "a.parquet", "--bootstrap", 5)
    assert "4/5 INCOMPLETE" in text and "3/? INCOMPLETE" in text


def test_one_class_is_called_undefined(tmp_path, capsys):
    write(tmp_path / "a.parquet", columns(label=(0, 0, 0, 0)))
    assert "undefined" in run(capsys, tmp_path / "a.parquet", "--bootstrap", 5)
    found = report(tmp_path / "evaluation")["runs"]["a"]["splits"]["all"]["scores"]["a"]
    nothing = {"value": None, "low": None, "high": None, "left_out": 5}
    assert found["metrics"]["roc_auc"] == nothing


def test_paired_difference(tmp_path, capsys):
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write(good, columns(probability=(0.9, 0.8, 0.2, 0.1)))
    write(bad, columns(probability=(0.1, 0.2, 0.8, 0.9)))
    text = run(capsys, good, "--against", bad, "--bootstrap", 50)
    found = report(tmp_path / "evaluation")["runs"]["good"]["against"]
    change = found["splits"]["all"]["accuracy@0.5"]
    assert change == {"value": 1, "low": 1, "high": 1, "left_out": change["left_out"]}
    assert found["splits"]["all"]["brier"]["value"] == pytest.approx(0.025 - 0.725)
    assert "better" in text and "worse" not in text and "undecided" not in text
    text = run(capsys, bad, "--against", good, "--bootstrap", 50)
    assert "worse" in text and "better" not in text
    text = run(capsys, good, "--against", good, "--bootstrap", 50)
    same = report(tmp_path / "evaluation")["runs"]["good"]["against"]["splits"]["all"]
    assert {(n["value"], n["low"], n["high"]) for n in same.values()} == {(0, 0, 0)}
    assert text.count("undecided") == 2 * len(same)


def test_paired_difference_of_common_rows_is_resampled_together(tmp_path, capsys):
    rows = {"one": crowd(1), "other": crowd(2)}
    kept = {"one": np.arange(3, 40), "other": np.r_[39:29:-1, 0:29]}
    for name, take in kept.items():
        part = {key: value[take] for key, value in rows[name].items()}
        write(tmp_path / f"{name}.parquet", part, n_expected=40)
    one, other = (tmp_path / f"{name}.parquet" for name in kept)
    run(capsys, one, "--against", other, "--allow-missing", "--bootstrap", 30, "--seed", 5)
    found = report(tmp_path / "evaluation")["runs"]["one"]["against"]["splits"]["all"]
    common = np.r_[3:29, 30:40]
    drawn = metrics.draw(common // 4, 30, 5)
    label, cuts = crowd(0)["label"][common], {"0.5": 0.5, "validation": 0.4}
    for weight, ends in ((None, ["value"]), (drawn, ["low", "high"])):
        mine, theirs = (
            metrics.measure(rows[name]["probability"][common], label, weight, cuts)
            for name in ("one", "other")
        )
        for name, change in found.items():
            slow = mine[name] - theirs[name]
            slow = [slow] if weight is None else metrics.interval(slow)[:2]
            assert [change[end] for end in ends] == pytest.approx(slow), name


def test_pairs_must_match_unless_allowed(tmp_path, capsys):
    rows = columns()
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    write(one, {name: value[:3] for name, value in rows.items()})
    write(other, {name: value[1:] for name, value in rows.items()})
    counts = "2 forecasts in common, 1 only in one, 1 only in the other"
    mend = "2 forecasts in common, 1 only in .*one.parquet, 1 only in the other; or pass --allow-m"
    with pytest.raises(DataError, match=mend):
        run(capsys, one, "--against", other)
    text = run(capsys, one, "--against", other, "--allow-missing", "--bootstrap", 5)
    assert counts in " ".join(text.split()) and "2/4 INCOMPLETE" in text
    found = report(tmp_path / "evaluation")["runs"]["one"]["against"]
    assert (found["n"], found["only_here"], found["only_there"]) == (2, 1, 1)
    write(other, columns(label=(1, 0, 0, 0)))
    with pytest.raises(DataError, match="has other labels than .*one.parquet"):
        run(capsys, one, "--against", other, "--allow-missing")
    write(other, columns(last_frame=[1, 2, 3, 4]))
    with pytest.raises(DataError, match="0 forecasts in common"):
        run(capsys, one, "--against", other, "--allow-missing")


def test_seeds_are_averaged(tmp_path, capsys):
    probabilities = [(0.9, 0.8, 0.6, 0.1), (0.9, 0.3, 0.6, 0.1), (0.9, 0.8, 0.2, 0.1)]
    for seed, probability in enumerate(probabilities):
        rows = columns(probability=probability)
        write(tmp_path / f"{seed}.parquet", rows, seed=seed, config="x", threshold=seed / 10)
    write(tmp_path / "else.parquet", seed=3, config="y")
    text = run(capsys, *sorted(tmp_path.glob("*.parquet")), "--bootstrap", 5)
    every, clean = report(tmp_path / "evaluation")["seeds"]
    assert every["runs"] == clean["runs"] == ["0", "1", "2"]
    accuracy = np.array([0.75, 0.5, 1])
    assert every["metrics"]["accuracy@0.5"]["value"] == pytest.approx(accuracy.mean())
    assert every["metrics"]["accuracy@0.5"]["sd"] == pytest.approx(accuracy.std(ddof=1))
    assert "3 seeds: all" in text and "0.750 ± 0.250" in text


def test_run_without_predictions_makes_them(tmp_path, capsys, monkeypatch):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    asked = []

    def main(argv):
        asked.append(argv)
        write(tmp_path / "run" / "predictions.parquet")
        return 0

    monkeypatch.setitem(sys.modules, "vidreason.runs.train", types.SimpleNamespace(main=main))
    for _ in range(2):
        assert "run: jaad" in run(capsys, tmp_path / "run", "--bootstrap", 5)
    assert asked == [["predict", "--run", str(tmp_path / "run"), "--data.predict_split", "test"]]


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
        (replaced("probability", 1, float("nan")), "row 2: probability nan is not in 0…1"),
        (replaced("probability", 0, 1.5), "row 1: probability 1.5 is not in 0…1"),
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
            "row 4: pedestrian '0_2_2' has another forecast",
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
        ({"threshold": 1.2}, "threshold=1.2 is not in 0…1"),
        ({"threshold": "0.5"}, "threshold='0.5' is no float"),
        ({"oracle": 0}, "oracle=0 is no bool"),
        ({"version": 2}, "has version 2, this program reads 1"),
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


def test_refuses_other_files(tmp_path, capsys):
    with pytest.raises(DataError, match="no such file; give"):
        run(capsys, tmp_path / "nothing.parquet")
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        run(capsys, tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has no `vidreason` metadata"):
        run(capsys, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="neither predictions.parquet nor checkpoints"):
        run(capsys, tmp_path)
    file = write(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="is given twice"):
        run(capsys, file, file)
    with pytest.raises(DataError, match="--bootstrap"):
        run(capsys, file, "--bootstrap", 0)


def test_probabilities_of_0_and_1_are_some_and_only_the_benchmark_knows_clean(tmp_path):
    rows = {name: value for name, value in columns().items() if name != "clean"}
    rows["probability"] = np.array([0.0, 1.0, 0.5, 1.0])
    found = read_predictions(write(tmp_path / "a.parquet", rows, protocol="stip"))
    assert sorted(found["probability"].tolist()) == [0, 0.5, 1, 1]
    assert "clean" not in found.table.column_names


def test_nothing_is_written_if_the_columns_are_wrong(tmp_path):
    with pytest.raises(DataError, match="lacks column label"):
        write(tmp_path / "a.parquet", without("label"))
    with pytest.raises(DataError, match="probability nan"):
        write(tmp_path / "a.parquet", replaced("probability", 0, float("nan")))
    assert not list(tmp_path.iterdir())


def test_match_finds_common_keys(tmp_path):
    one = read_predictions(write(tmp_path / "a.parquet")).table
    left, right = match(one, one.take([3, 1]))
    assert (left.tolist(), right.tolist()) == ([1, 3], [1, 0])


def part(root, protocol, split, subset="all", horizon=30):
    scenes = {scene.id: scene for scene in read_jaad(root, cache=False)}
    names = split_videos(protocol, read_splits(root), list(scenes), split)
    chosen = [scenes[name] for name in names]
    return chosen, make_windows(chosen, protocol, subset, horizon)


def test_baselines_forecast_the_same_rows(tmp_path, tiny_root, capsys):
    scenes, windows = part(tiny_root, "benchmark", "test")
    train = part(tiny_root, "benchmark", "train")
    rows = prediction_columns(windows, scenes, np.full((len(windows), 1), 0.5))
    order = np.random.default_rng(0).permutation(len(windows))[:-1]  # one row is missing
    shuffled = {name: value[order] for name, value in rows.items()}
    write(tmp_path / "a.parquet", shuffled, n_expected=len(windows), features=["box", "ego"])
    text = run(capsys, tmp_path / "a.parquet", "--root", tiny_root, "--bootstrap", 5)
    assert "persistence (oracle)" in text and "No baselines" not in text
    found = report(tmp_path / "evaluation")["runs"]["a"]["splits"]["all"]["scores"]
    (trees,) = box_trees(train, [(scenes, windows)], ["box", "ego"])
    expected = {"majority": majority(train[1], windows), "box trees": trees}
    for name, probability in expected.items():
        slow = metrics.brier(probability[order, 0].astype(np.float32), rows["label"][order])
        assert found[name]["metrics"]["brier"]["value"] == pytest.approx(slow), name
        assert found[name]["n"] == len(windows) - 1


def test_baselines_refuse_another_dataset(tmp_path, tiny_root, capsys):
    file = write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="4 of 4 rows are no windows of"):
        run(capsys, file, "--root", tiny_root)
    scenes, windows = part(tiny_root, "benchmark", "test")
    rows = prediction_columns(windows, scenes, np.full((len(windows), 1), 0.5))
    rows["label"] = 1 - rows["label"]
    write(file, rows, n_expected=len(windows))
    with pytest.raises(DataError, match="labels differ"):
        run(capsys, file, "--root", tiny_root)
