import argparse
import os
import signal
import subprocess
import sys
import time
from types import ModuleType

import pytest

from vidreason import cli
from vidreason.core.errors import DataError


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vidreason.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def stub(monkeypatch):
    """Puts a module in place of one that a command would import."""

    def put(name: str, **functions) -> None:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.mark.parametrize(
    "arguments", [[], ["data"], ["data", "get"], ["data", "check"], ["data", "windows"]]
)
def test_help_imports_nothing_heavy_and_gives_an_example(arguments):
    code = f"""
import sys
from vidreason.cli import main
try:
    main({[*arguments, "--help"]})
except SystemExit as stop:
    assert stop.code == 0
print(*(name for name in ("torch", "numpy", "pyarrow", "rich", "yaml") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, heavy = done.stdout.split("\n")[:-1]
    assert heavy == ""
    assert arguments == ["data"] or any(line.startswith("  vidreason ") for line in text)


def test_data_get_does_not_import_torch(tmp_path):
    code = f"""
import sys
from vidreason.cli import main
assert main(["data", "get", "jaad", "--from", "/no/file", "--root", {str(tmp_path)!r}]) == 1
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["trian"], "'trian'"),
        (["data"], "VERB"),
        (["data", "get"], "dataset"),
        (["data", "get", "kitti"], "'kitti'"),
        (["data", "get", "jaad", "--roo", "x"], "--roo"),  # no abbreviations
        (["data", "windows", "jaad", "--split", "dev"], "'dev'"),
        (["data", "check", "jaad", "--horizon", "3"], "--horizon"),
        (["data", "windows", "jaad", "--horizon", "0"], "'0' is not"),
        (["data", "windows", "jaad", "--horizon", "-1"], "'-1' is not"),
        (["data", "windows", "jaad", "--horizon", "1.5"], "'1.5' is not"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    output = capsys.readouterr()
    assert stop.value.code == 2 and not output.out
    assert output.err.count("\n") == 1 and output.err.startswith("error: ")
    assert words in output.err and "--help" in output.err


def test_bad_data_is_one_line_and_exit_code_1(tmp_path):
    root = tmp_path / "jaad"
    done = run("data", "get", "jaad", "--root", str(root), "--from", "no\nfile")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no\\nfile: cannot be fetched (No such file or directory); "
        "check the address or path\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = run("data", "get", "jaad", "--root", str(tmp_path / "file" / "jaad"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}") and done.stderr.count("\n") == 1


def test_without_root_the_variable_names_the_folder(monkeypatch, stub, tmp_path, capsys):
    asked = []
    stub("vidreason.get", run=lambda args: asked.append(args))
    assert cli.main(["data", "get", "jaad"]) == 0
    assert asked[0].root is None and asked[0].dataset == "jaad" and asked[0].source is None
    monkeypatch.undo()
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    assert cli.main(["data", "get", "jaad"]) == 1
    assert "VIDREASON_DATA is not set" in capsys.readouterr().err


def test_training_verbs_get_their_line_untouched(stub):
    seen = []
    stub("vidreason.runs.train", main=lambda argv: seen.append(argv))
    for verb in ("fit", "validate", "test", "predict"):
        assert cli.main([verb, "--help", "-c", "x.yaml", "--debug"]) == 0
        assert seen.pop() == [verb, "--help", "-c", "x.yaml"]
    stub("vidreason.runs.train", main=lambda argv: 3)
    assert cli.main(["--debug", "fit"]) == 3


def test_a_command_brings_its_own_options(stub):
    seen = []
    stub(
        "vidreason.results.evaluate",
        add_arguments=lambda parser: parser.add_argument("--table"),
        run=lambda args: seen.append(args.table),
    )
    assert cli.main(["evaluate", "--table", "t"]) == 0
    assert seen == ["t"]


def fail(error: BaseException):
    def raising(args: argparse.Namespace) -> int:
        raise error

    return raising


def test_debug_shows_the_place_and_nothing_else_does(stub, capsys):
    stub("vidreason.scenes.check", run=fail(DataError("f.xml", "is odd", "mend it", "line 3")))
    line = ["data", "check", "jaad", "--root", "x"]
    assert cli.main(line) == 1
    assert capsys.readouterr().err == "error: f.xml: line 3: is odd; mend it\n"
    assert cli.main([*line, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden(stub):
    stub("vidreason.scenes.check", run=fail(KeyError("x")))
    with pytest.raises(KeyError):
        cli.main(["data", "check", "jaad"])


@pytest.mark.parametrize("command", [["data", "check", "jaad"], ["fit"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("turned_into", [None, RuntimeError("a process died"), SystemExit(1)])
def test_a_signal_ends_with_its_code(stub, capsys, command, number, code, turned_into):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def work(*_: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if turned_into:
                raise turned_into from None
            raise

    stub("vidreason.scenes.check", run=work)
    stub("vidreason.runs.train", main=work)
    assert cli.main(command) == code
    said = capsys.readouterr().err
    assert said.startswith(f"stopped by {number.name}") and said.count("\n") == 1
    assert ("--resume" in said) == (command == ["fit"])
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_a_signal_that_a_destructor_swallows_is_heard(stub, capsys):
    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work(args: argparse.Namespace) -> None:
        Swallows()
        time.sleep(10)

    stub("vidreason.scenes.check", run=work)
    assert cli.main(["data", "check", "jaad"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_too_little_memory_is_one_line(stub, capsys):
    stub("vidreason.scenes.check", run=fail(MemoryError("Unable to allocate 9 TiB")))
    assert cli.main(["data", "check", "jaad"]) == 1
    assert capsys.readouterr().err == "error: memory: Unable to allocate 9 TiB; free some\n"


PRINT = """
import sys
from types import ModuleType
from vidreason.cli import main
module = sys.modules["vidreason.scenes.check"] = ModuleType("check")
module.run = lambda args: print("x" * int(sys.argv[1]))
sys.exit(main(["data", "check", "jaad"]))
"""
# Buffered, as it is by default: what could not be written is still there at the end.
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def print_to(file, length: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PRINT, str(length)]
    return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, env=BUFFERED)


@pytest.mark.parametrize("length", [1, 1 << 20])
def test_a_reader_that_goes_away_is_no_error(length):
    # The short text fails when flushed at the end, the long one while it is printed.
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


def test_choices_are_those_of_the_library():
    from vidreason.intent import windows

    line = ["data", "windows", "jaad", "--split", "test", "--out", "x"]
    for protocol in windows.PROTOCOLS:
        for subset in windows.SUBSETS:
            words = [*line, "--protocol", protocol, "--subset", subset]
            args = cli._parser(words).parse_args(words)
            assert (args.protocol, args.subset) == (protocol, subset)
