"""Help is quick; wrong usage is one line with a suggestion, and imports no torch."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from make.command import refused, run

from vidreason import cli
from vidreason.commands.train import VERBS

ROOT = Path(__file__).parents[1]

IMPORTS_NOTHING = """
import sys
from vidreason.cli import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit:
        pass
    heavy = {"torch", "numpy", "pyarrow", "rich", "yaml", *sys.argv[1:]} & set(sys.modules)
    assert not heavy - set(sys.argv[1:]), (line, heavy)
"""


def test_help_imports_nothing_heavy():
    lines = "\n".join(f"{command} --help" for command in ["", "data", *cli.COMMANDS])
    code = [sys.executable, "-c", IMPORTS_NOTHING]
    subprocess.run(code, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)


def test_errors_that_need_no_torch_do_not_import_it(tmp_path):
    lines = """fit
fit -c nowhere
fit --run nowhere
fit --epochs 3
predict drive.mp4
test --weights nobody
data get jaad --from /no/file --root nowhere
configs nothing"""
    light = ["yaml", "rich"]
    code = [sys.executable, "-c", IMPORTS_NOTHING, *light]
    subprocess.run(code, input=lines, text=True, check=True, cwd=tmp_path, capture_output=True)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_of_every_command_can_be_typed(command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    text = re.sub(r" (>|&&) .*", "", re.sub(r"\\\n +", "", out))
    lines = [shlex.split(line) for line in re.findall(r"^  vidreason (.+?)(?:   .*)?$", text, re.M)]
    examples = [words for words in lines if words[0] == command.split()[0]]
    assert examples and "configs/" not in out
    for words in examples:
        if words[0] not in VERBS or "--video" in words:
            cli.parse(words)
            continue
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        told = re.findall(r"^  (-c)?,? ?(--[\w.]+)", run(words[0], "--help")[1], re.M)
        live = {"--help-all", "--model.help", "--data.help"}
        assert options <= live | {name for names in told for name in names}, words


@pytest.mark.slow
def test_pages_are_those_of_the_live_parser():
    spec = importlib.util.spec_from_file_location("help_pages", ROOT / "tools" / "help_pages.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for verb in VERBS:
        page = (tool.FOLDER / f"{verb}.txt").read_text()
        assert page == tool.page(verb), "run `python tools/help_pages.py`"


def test_help_of_a_class_is_live():
    code, out, _ = run("fit", "--model.help", "IntentTask")
    assert code == 0 and "--model.lr LR" in out
    code, out, _ = run("fit", "--model.net.help", "DDPAE")
    assert code == 0 and "components" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "vidreason: the command is missing; start with `vidreason demo`"),
        ("trian", "vidreason trian: no such command; did you mean `vidreason fit`?"),
        ("train", "did you mean `vidreason fit`?"),
        ("evalute runs/a", "did you mean `vidreason evaluate`?"),
        ("nothing", "`vidreason --help` lists the commands"),
        ("data", "vidreason data: the command is missing; `vidreason data --help` lists"),
        ("data gte jaad", "did you mean `vidreason data get`?"),
        ("data get", "dataset: missing; see `vidreason data get --help`"),
        ("data get kitti", "dataset: must be one of jaad, mnist, balls, got 'kitti'"),
        ("data get jaadd", "did you mean jaad?"),
        ("data get jaad --roo x", "--roo: no such option of `vidreason data get`; did you mean"),
        ("data windows jaad --split dev", "--split: must be one of train, val, test, got 'dev'"),
        ("data check jaad --horizon 3", "--horizon: no such option"),
        ("data windows jaad --horizon 0", "'0' is not"),
        ("data windows jaad --horizon -1", "'-1' is not"),
        ("data windows jaad --horizon 1.5", "'1.5' is not"),
        ("export run --output x", "--output: no such option"),
        ("export run", "--out: missing"),
        ("fit", "-c: no configuration given; give one, as in `vidreason fit -c jaad_beh`"),
        ("fit --model IntentTask", "-c: no configuration given"),
        ("fit --resume", "--resume: no run given; add its folder"),
        ("fit -c", "-c: its value is missing"),
        ("fit --run --resume", "--run: its value is missing"),
        ("fit --model.help", "--model.help: its value is missing; give a class, as in"),
        ("fit jaad_beh", "jaad_beh: not an option of `vidreason fit`; did you mean `vid"),
        ("fit -c jaad_beh mine.yaml", "did you mean `vidreason fit -c mine.yaml`?"),
        ("fit -c jaad_beh bogus", "bogus: not an option of `vidreason fit`; see `vid"),
        ("fit -c jaad_beh --epochs 3", "--epochs: no such option of `vidreason fit`; did you mean "
         "--trainer.max_epochs?"),
        ("fit -c jaad_beh --max-epochs=3", "did you mean --trainer.max_epochs?"),
        ("fit -c jaad_beh --lr 1", "did you mean --model.lr?"),
        ("fit -c jaad_beh --learning-rate 1", "did you mean --model.lr?"),
        ("fit -c jaad_beh --batch-size 1", "did you mean --data.batch_size?"),
        ("fit -c jaad_beh --seed 1", "did you mean --seed_everything?"),
        ("fit -c jaad_beh --gpus 1", "did you mean --trainer.devices?"),
        ("fit -c jaad_beh --root x", "did you mean --data.root?"),
        ("fit -c jaad_beh --data-root x", "did you mean --data.root?"),
        ("fit -c jaad_beh --trainer.epochs 1", "did you mean --trainer.max_epochs?"),
        ("fit -c jaad_beh --model.learning_rate 1", "did you mean --model.lr?"),
        ("fit -c jaad_beh --weights jaad_all", "--weights: no such option of `vidreason fit`"),
        ("fit -c jaad_beh --qqq", "--qqq: no such option of `vidreason fit`; see `vid"),
        ("fit -c jaad_beg", "jaad_beg: is neither a file nor a shipped configuration; did you mean "
         "jaad_beh"),
        ("fit -c no/such.yaml", "no/such.yaml: is neither a file nor a shipped configuration"),
        ("fit -c http://127.0.0.1:1/c.yaml", "is neither a file"),
        ("fit -c .", ".: is a folder; give a file, or a run with --run"),
        ("fit --run nowhere", "--run: 'nowhere' has no config.yaml"),
        ("predict drive.mp4", "did you mean `vidreason predict --video drive.mp4`?"),
        ("predict jaad_all", "did you mean `vidreason predict --weights jaad_all`?"),
        ("predict --split val", "did you mean --data.predict_split?"),
        ("predict --run a --weights b", "--run: excludes --weights and --out"),
        ("test --weights nobody", "--weights: 'nobody' not found; give a folder of weights"),
        ("test --checkpoint x", "did you mean --ckpt_path?"),
        ("configs jaad_behh", "jaad_behh: is neither a file nor a shipped configuration; did you"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(line, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*line.split())


def test_run_folder_without_its_option_is_recognized(tmp_path):
    (tmp_path / "config.yaml").touch()
    assert f"`vidreason test --run {tmp_path}`?" in refused("test", tmp_path)


def test_choices_are_those_of_the_library():
    from vidreason.intent import datasets, windows

    line = ["--split", "test", "--out", "x"]
    for name in datasets.DATASETS:
        for protocol in windows.PROTOCOLS:
            for subset in windows.SUBSETS:
                words = ["data", "windows", name, *line, "--protocol", protocol, "--subset", subset]
                _, args = cli.parse(words)
                assert (args.dataset, args.protocol, args.subset) == (name, protocol, subset)
