"""Wrong options and configurations are one line, and no option imports foreign code."""

import sys

import pytest
import yaml
from make.command import refused
from make.tiny_run import CONFIG, write


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--model.net.hiden", "3"],
            "model.net.hiden: no such option of TinyNet; did you mean 'hidden'?",
        ),
        (["--model.lrr", "3"], "model.lrr: no such option of IntentTask; did you mean 'lr'?"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'?"),
        (["--trainer.max_epochs", "abc"], "trainer.max_epochs: is 'abc'; expected int"),
        (
            ["--model.schedule", "cos"],
            "model.schedule: is 'cos'; expected one of ['one_cycle', 'co",
        ),
        (["--model.lr", "-1"], "model.lr: must be between 1e-12 and 1000.0, got -1.0"),
        (["--model.lr", ".nan"], "model.lr: must be between 1e-12 and 1000.0, got nan"),
        (["--seed_everything", "-1"], "seed_everything: "),
        (["--trainer.precision", "7"], "trainer.precision: is '7'"),
        (["--trainer.devices", "0"], "devices"),
        (["--model.net", "TinyNett"], "model.net: no class 'TinyNett'; did you mean 'TinyNet'?"),
        (["--model.net.features", "[a]"], "model.net.features: is set by data.features; remove it"),
        (["--data.init_args.seed=1"], "data.init_args.seed: is set by seed_everything; remove it"),
    ],
)
def test_wrong_option_is_one_line(arguments, words, config, tmp_path):
    folder = ("--trainer.default_root_dir", tmp_path / "run")
    assert words in refused("fit", "-c", config, *folder, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hidden:", "hiden:", "did you mean 'hidden'?"),
        ("max_epochs:", "max_epoch:", "did you mean 'trainer.max_epochs'?"),
        ("seed_everything:", "seed_everythin:", "did you mean 'seed_everything'?"),
        ("lr: 0.01", "lr: high", "model.lr: is 'high'; expected float"),
        ("lr: 0.01", "lr: 0.01\n    lr: 0.02", "model.init_args.lr: line 11: is given twice"),
        ("lr: 0.01", "horizon: 2", "is set by data.horizon; remove it"),
        ("hidden: 4", "observed: 4", "is set by data.protocol and data.observed; remove it"),
        ("trainer:", "x: &x 1\ntrainer: *x\nz:", "is a YAML alias"),
        ("trainer:", "trainer: [", "c.yaml: line 18: is not valid YAML (expected"),
    ],
)
def test_wrong_configuration_is_one_line(old, new, words, tmp_path):
    text = yaml.safe_dump(CONFIG)
    assert old in text
    config = write(tmp_path / "c.yaml", text.replace(old, new))
    assert words in refused("fit", "-c", config, "--trainer.default_root_dir", tmp_path / "run")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "trap.Net"],
        ["--model.net", "trap.Net"],
        ["--model.net.class_path=trap.Net"],
        ["--model.net", '{"class_path": "trap.Net"}'],
        ["--trainer.callbacks+=trap.Net"],
        ["--trainer.logger", "trap.Net"],
        ["--model.help", "trap.Net"],
        ["--model.net.help", "trap.Net"],
        ["-c", "net.yaml"],
        ["--model.net", "only.yaml"],
    ],
)
def test_foreign_classes_are_refused_before_they_are_imported(
    arguments, config, trap, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.yaml", yaml.safe_dump(CONFIG).replace("TinyNet", "trap.Net"))
    write(tmp_path / "only.yaml", "class_path: trap.Net")
    refused("fit", "-c", config, "--trainer.default_root_dir", "run", *arguments)
    assert not trap.exists() and "trap" not in sys.modules
