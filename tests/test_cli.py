"""Dispatch, exit codes, signals and broken output; what is wrong in a line is in test_usage."""

import argparse
import os
import signal
import subprocess
import sys
import time
from types import ModuleType
from typing import get_args, get_type_hints

import pytest

from vidreason import cli
from vidreason.commands import data_check
from vidreason.core.errors import DataError


@pytest.fixture
def stub(monkeypatch):
    """Replaces a module that a command would import."""

    def put(name: str, **functions) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_bad_data_is_one_line_and_exit_code_1(tmp_path, capsys):
    root = tmp_path / "jaad"
    assert cli.main(["data", "get", "jaad", "--root", str(root), "--from", "no\nfile"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: no\\nfile: cannot be fetched (No such file or directory); check the URL or path\n",
    )
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_created_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["data", "get", "jaad", "--root", str(tmp_path / "file" / "jaad")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'file'}") and said.count("\n") == 1


def test_without_root_the_variable_names_the_folder(monkeypatch, stub, tmp_path, capsys):
    asked = []
    stub("vidreason.get", get=lambda *words: asked.append(words))
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    assert cli.main(["data", "get", "jaad"]) == 0
    assert asked == [("jaad", tmp_path / "jaad", None)]
    monkeypatch.delenv("VIDREASON_DATA")
    assert cli.main(["data", "get", "jaad"]) == 1
    assert "VIDREASON_DATA is not set" in capsys.readouterr().err


def test_training_commands_pass_their_line_on(stub):
    seen = []
    stub("vidreason.runs.train", main=lambda argv: seen.append(argv))
    for verb in ("fit", "validate", "test", "predict"):
        assert cli.main([verb, "-c", "jaad_beh", "--data.root", "x", "--debug"]) == 0
        assert seen.pop() == [verb, "-c", "jaad_beh", "--data.root", "x"]
        assert cli.main([verb, "--help-all"]) == 0
        assert seen.pop() == [verb, "--help"]
    stub("vidreason.runs.train", main=lambda argv: 3)
    assert cli.main(["--debug", "fit", "-c", "jaad_beh"]) == 3


def test_command_brings_its_own_options(stub):
    seen = []
    stub(
        "vidreason.commands.evaluate",
        add_arguments=lambda parser: parser.add_argument("--table"),
        run=lambda args: seen.append(args.table),
    )
    assert cli.main(["evaluate", "--table", "t"]) == 0
    assert seen == ["t"]


@pytest.fixture
def check(monkeypatch):
    """Replaces functions of `data check`."""

    def put(**functions) -> None:
        for name, function in functions.items():
            monkeypatch.setattr(data_check, name, function)

    return put


def fail(error: BaseException):
    def raising(args: argparse.Namespace) -> int:
        raise error

    return raising


def test_only_debug_shows_a_traceback(check, capsys):
    check(run=fail(DataError("f.xml", "is odd", "fix it", "line 3")))
    line = ["data", "check", "jaad", "--root", "x"]
    assert cli.main(line) == 1
    assert capsys.readouterr().err == "error: f.xml: line 3: is odd; fix it\n"
    assert cli.main([*line, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden(check):
    check(run=fail(KeyError("x")))
    with pytest.raises(KeyError):
        cli.main(["data", "check", "jaad"])


@pytest.mark.parametrize("command", [["data", "check", "jaad"], ["fit", "-c", "jaad_beh"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("turned_into", [None, RuntimeError("a process died"), SystemExit(1)])
def test_a_signal_ends_with_its_code(stub, check, capsys, command, number, code, turned_into):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def work(*_: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if turned_into:
                raise turned_into from None
            raise

    check(run=work)
    stub("vidreason.runs.train", main=work)
    assert cli.main(command) == code
    said = capsys.readouterr().err
    assert said.startswith(f"stopped by {number.name}") and said.count("\n") == 1
    assert ("--resume" in said) == (command[0] == "fit")
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_a_signal_that_a_destructor_swallows_is_heard(check, capsys):
    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work(args: argparse.Namespace) -> None:
        Swallows()
        time.sleep(10)

    check(run=work)
    assert cli.main(["data", "check", "jaad"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_too_little_memory_is_one_line(check, capsys):
    check(run=fail(MemoryError("Unable to allocate 9 TiB")))
    assert cli.main(["data", "check", "jaad"]) == 1
    assert capsys.readouterr().err == "error: memory: Unable to allocate 9 TiB; free some\n"


PRINT = """
import sys
from vidreason.cli import main
from vidreason.commands import data_check
data_check.run = lambda args: print("x" * int(sys.argv[1]))
sys.exit(main(["data", "check", "jaad"]))
"""
# Buffered, as by default, so that output is left to flush at exit.
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def print_to(file, length: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PRINT, str(length)]
    return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, env=BUFFERED)


@pytest.mark.parametrize("length", [1, 1 << 20])
def test_a_reader_that_goes_away_is_no_error(length):
    # The short text fails when it is flushed at the end, the long one while it is printed.
    reading, writing = os.pipe()
    os.close(reading)
    done = print_to(writing, length)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        done = print_to(full, 1)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"No space left" in done.stderr


@pytest.mark.parametrize("dataset", ["jaad", "pie", "stip", "boxes", "mnist", "balls"])
def test_a_dataset_has_a_card(dataset, capsys):
    assert cli.main(["data", "card", dataset]) == 0
    card = capsys.readouterr().out
    simulated_or_own = dataset in ("boxes", "balls")
    assert card.startswith("# ") and ("icence" in card or simulated_or_own)


def test_names_of_datasets_agree():
    from vidreason.core.files import share
    from vidreason.intent.data import IntentData
    from vidreason.intent.datasets import DATASETS, RATES

    assert get_args(get_type_hints(IntentData.__init__)["dataset"]) == DATASETS
    assert RATES.keys() == set(DATASETS) - {"boxes"}  # whose rate is in its tables
    cards = {path.parent.name for path in share("datasets").glob("*/README.md")}
    assert cards == {*(name.partition("-")[0] for name in DATASETS), "mnist", "balls"}
    for dataset in DATASETS:
        words = ["data", "windows", dataset, "--protocol", "stip", "--split", "test", "--out", "x"]
        assert cli.parse(words)[1].dataset == dataset
    for dataset in cards:
        assert cli.parse(["data", "card", dataset])[1].dataset == dataset
