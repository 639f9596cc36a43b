"""`vidreason evaluate`: metrics, confidence intervals, baselines and paired differences."""

import argparse
import json
import sys
import types

import numpy as np
import pytest
from make.predictions import columns, write

from vidreason.commands import evaluate
from vidreason.core.errors import DataError
from vidreason.intent import metrics
from vidreason.intent.baselines import box_trees, majority
from vidreason.intent.datasets import split_videos
from vidreason.intent.predictions import prediction_columns
from vidreason.intent.windows import make_windows
from vidreason.results.scoring import format_interval, verdict
from vidreason.scenes.jaad import read_jaad, read_splits

FIGURES = {"roc", "pr", "calibration"}


def run(capsys, *arguments, figures=False):
    """Runs the command; returns what it printed."""
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    with pytest.MonkeyPatch.context() as patch:
        if not figures:  # they take most of the time
            patch.setattr("vidreason.results.evaluate.draw", lambda out, runs: None)
        assert evaluate.run(parser.parse_args([str(a) for a in arguments])) == 0
    return capsys.readouterr().out


def report(folder):
    return json.loads((folder / "metrics.json").read_text())


def values(numbers):
    return {name: number["value"] for name, number in numbers.items()}


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)


def test_metrics_are_those_computed_by_hand(tmp_path, capsys):
    file = write(tmp_path / "run" / "predictions.parquet")
    text = run(capsys, file, "--bootstrap", 40, figures=True)
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


def test_intervals_come_from_a_bootstrap_over_pedestrians(tmp_path, capsys):
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


def test_the_order_of_rows_does_not_matter(tmp_path, capsys):
    rows = columns()
    for name, order in (("a", [0, 1, 2, 3]), ("b", [3, 1, 0, 2])):
        shuffled = {key: value[order] for key, value in rows.items()}
        write(tmp_path / name / "x.parquet", shuffled)
        run(capsys, tmp_path / name / "x.parquet", "--bootstrap", 20)
    one, other = (report(tmp_path / name / "evaluation")["runs"]["x"] for name in "ab")
    assert one["splits"] == other["splits"]


def test_stip_metrics_are_means_over_horizons(tmp_path, capsys):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, (4, 6)) | np.eye(4, 6, dtype=int)
    label[-1] = 0  # both classes at every horizon
    label[0] = 1
    rows = columns(probability=rng.random(24), steps=6) | {"label": label.ravel()}
    write(tmp_path / "a.parquet", rows, protocol="stip", n_expected=24)
    text = run(capsys, tmp_path / "a.parquet", "--bootstrap", 20, figures=True)
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
    # All horizons use the same resamples of pedestrians; the interval is that of the mean.
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


def test_oracles_are_marked_in_tables_and_json(tmp_path, capsys):
    # Oracle features make an oracle, whatever the flag says.
    write(tmp_path / "a.parquet", features=["box", "oracle_behaviour"])
    write(tmp_path / "b.parquet", oracle=True)
    pair = tmp_path / "a.parquet", "--against", tmp_path / "b.parquet"
    text = run(capsys, *pair, "--bootstrap", 5)
    assert "a (ORACLE): jaad" in text and "a (ORACLE) - b (ORACLE): all" in text
    found = report(tmp_path / "evaluation")["runs"]["a (ORACLE)"]
    assert found["oracle"] and found["against"]["oracle"]


def test_incomplete_predictions_are_marked(tmp_path, capsys):
    write(tmp_path / "a.parquet", n_expected=5)
    text = run(capsys, tmp_path / "a.parquet", "--bootstrap", 5)
    assert "4/5 INCOMPLETE" in text and "3/? INCOMPLETE" in text


def test_metrics_of_one_class_are_undefined(tmp_path, capsys):
    write(tmp_path / "a.parquet", columns(label=(0, 0, 0, 0)))
    assert "undefined" in run(capsys, tmp_path / "a.parquet", "--bootstrap", 5)
    found = report(tmp_path / "evaluation")["runs"]["a"]["splits"]["all"]["scores"]["a"]
    nothing = {"value": None, "low": None, "high": None, "left_out": 5}
    assert found["metrics"]["roc_auc"] == nothing


def test_paired_differences_of_two_runs(tmp_path, capsys):
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
    assert text.count("no difference") == 2 * len(same) and "-0.000" not in text


def test_paired_differences_use_the_same_resamples_of_common_rows(tmp_path, capsys):
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


def test_runs_with_different_rows_are_refused_unless_allowed(tmp_path, capsys):
    rows = columns()
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    write(one, {name: value[:3] for name, value in rows.items()})
    write(other, {name: value[1:] for name, value in rows.items()})
    counts = "2 predictions in common, 1 only in one, 1 only in the other"
    refused = "2 predictions in common, 1 only in .*one.parquet, 1 only in the other; or pass --al"
    with pytest.raises(DataError, match=refused):
        run(capsys, one, "--against", other)
    text = run(capsys, one, "--against", other, "--allow-missing", "--bootstrap", 5)
    assert counts in " ".join(text.split()) and "2/4 INCOMPLETE" in text
    found = report(tmp_path / "evaluation")["runs"]["one"]["against"]
    assert (found["n"], found["only_here"], found["only_there"]) == (2, 1, 1)
    write(other, columns(label=(1, 0, 0, 0)))
    with pytest.raises(DataError, match="labels differ from those of .*one.parquet"):
        run(capsys, one, "--against", other, "--allow-missing")
    write(other, columns(last_frame=[1, 2, 3, 4]))
    with pytest.raises(DataError, match="0 predictions in common"):
        run(capsys, one, "--against", other, "--allow-missing")


def test_runs_that_differ_in_the_seed_are_averaged(tmp_path, capsys):
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


def test_a_run_without_predictions_predicts_first(tmp_path, capsys, monkeypatch):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    calls = []

    def main(argv):
        calls.append(argv)
        write(tmp_path / "run" / "predictions.parquet")
        return 0

    monkeypatch.setitem(sys.modules, "vidreason.runs.train", types.SimpleNamespace(main=main))
    for _ in range(2):
        assert "run: jaad" in run(capsys, tmp_path / "run", "--bootstrap", 5)
    assert calls == [["predict", "--run", str(tmp_path / "run"), "--data.predict_split", "test"]]


def part(root, protocol, split, subset="all", horizon=30):
    scenes = {scene.id: scene for scene in read_jaad(root, cache=False)}
    names = split_videos(protocol, read_splits(root), list(scenes), split)
    chosen = [scenes[name] for name in names]
    return chosen, make_windows(chosen, protocol, subset, horizon)


def test_baselines_are_scored_on_the_same_rows(tmp_path, tiny_root, capsys):
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


def test_inputs_that_cannot_be_evaluated_are_refused(tmp_path, capsys):
    with pytest.raises(DataError, match="neither predictions.parquet nor checkpoints"):
        run(capsys, tmp_path)
    (tmp_path / "digits" / "checkpoints").mkdir(parents=True)
    (tmp_path / "digits" / "config.yaml").write_text("model: {class_path: DecomposeTask}")
    with pytest.raises(DataError, match="is a decomposition run"):
        run(capsys, tmp_path / "digits")
    file = write(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="is given twice"):
        run(capsys, file, file)
    with pytest.raises(DataError, match="--bootstrap"):
        run(capsys, file, "--bootstrap", 0)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("roc_auc", (0.02, 0.01, 0.03), "better"),
        ("roc_auc", (-0.02, -0.03, -0.01), "worse"),
        ("brier", (-0.02, -0.03, -0.01), "better"),
        ("f1@0.5", (0.02, -0.01, 0.03), "undecided"),
        ("brier", (-2e-4, -4e-4, -1e-4), "no difference"),
        ("brier", (-2e-4, -6e-3, -1e-4), "no difference"),
        ("brier", (0.0, -2e-4, 1e-4), "no difference"),
        ("roc_auc", (None, None, None), "undecided"),
    ],
)
def test_a_difference_that_is_printed_as_zero_is_neither_better_nor_worse(key, change, words):
    numbers = dict(zip(("value", "low", "high"), change, strict=True))
    assert verdict(key, numbers) == words
    assert "-0.000" not in format_interval(numbers)


def test_baselines_refuse_another_dataset(tmp_path, tiny_root, capsys):
    file = write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="4 of 4 rows are not windows of"):
        run(capsys, file, "--root", tiny_root)
    scenes, windows = part(tiny_root, "benchmark", "test")
    rows = prediction_columns(windows, scenes, np.full((len(windows), 1), 0.5))
    rows["label"] = 1 - rows["label"]
    write(file, rows, n_expected=len(windows))
    with pytest.raises(DataError, match="labels differ"):
        run(capsys, file, "--root", tiny_root)
