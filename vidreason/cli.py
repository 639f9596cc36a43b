"""Command line: dispatch, signals and error lines.

Imports the standard library only, and the module of the command that is named: `vidreason --help`
must not wait for torch.
"""

import argparse
import importlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NoReturn

from vidreason import __version__
from vidreason.commands import train
from vidreason.commands.options import nearest, refuse
from vidreason.core.errors import DataError

COMMANDS = {
    "demo": "run both systems on simulated data",
    "data card": "print what a dataset holds, how to get it, and its licence",
    "data get": "download and verify a dataset",
    "data check": "report what is missing or wrong in a dataset",
    "data windows": "write the samples of a protocol as a table",
    "prepare": "segment and track videos into a store of instances",
    "configs": "list the shipped configurations, or print one",
    "fit": "train a model",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split",
    "predict": "write a checkpoint's predictions",
    "predict --video": "predict who will cross in your own video",
    "evaluate": "compute metrics with confidence intervals, and compare runs",
    "render": "draw predictions, tracks and graphs as video, and clips as filmstrips",
    "report": "show results as one HTML page",
    "export": "write a run's weights, or a program, for distribution",
}
_SYNONYMS = {
    "train": "fit",
    "training": "fit",
    "val": "validate",
    "eval": "evaluate",
    "score": "evaluate",
    "infer": "predict",
    "inference": "predict",
    "forecast": "predict",
    "video": "predict --video",
    "live": "predict --video",
    "get": "data get",
    "download": "data get",
    "check": "data check",
    "windows": "data windows",
    "segment": "prepare",
    "track": "prepare",
    "draw": "render",
    "plot": "render",
    "visualize": "render",
    "help": "--help",
    "version": "--version",
}
# How to resume what a signal has stopped.
_RESUME = {
    "fit": "with --resume it continues from the last completed epoch, if there is one",
    "prepare": "the same command resumes",
}


class _Parser(argparse.ArgumentParser):
    def __init__(self, command: str) -> None:
        super().__init__(
            prog=f"vidreason {command}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def check(self, words: Sequence[str]) -> None:
        """Exits if there is no such option; argparse would name missing ones first."""
        for word in (word.partition("=")[0] for word in words):
            if word.startswith("--") and word not in self._option_string_actions:
                near = nearest(word, self._option_string_actions)
                fix = f"did you mean {near}?" if near else f"see `{self.prog} --help`"
                refuse(word, f"no such option of `{self.prog}`", fix)

    def error(self, message: str) -> NoReturn:
        """Exits with one line, like every other error; argparse would print the usage before it."""
        fix = f"see `{self.prog} --help`"
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            refuse(found[1], f"not an option of `{self.prog}`", fix)
        if found := re.match(r"the following arguments are required: (.+)", message):
            refuse(found[1], "missing", fix)
        if found := re.match(
            r"argument (.+?): (?:invalid choice: (.+) \(choose from (.+)\))?", message
        ):
            if found[2]:
                choices = found[3].replace("'", "")
                near = nearest(found[2].strip("'"), choices.split(", "))
                fix = f"did you mean {near}?" if near else fix
                refuse(found[1], f"must be one of {choices}, got {found[2]}", fix)
            refuse(found[1], message[found.end() :], fix)
        refuse(self.prog, message, fix)


def _help(prefix: str = "") -> str:
    """Returns the text of `vidreason --help`, or of a group of commands."""
    width = max(map(len, COMMANDS)) + 2
    listed = [f"  {n:{width}}{text}" for n, text in COMMANDS.items() if n.startswith(prefix)]
    head = f"usage: vidreason {prefix}COMMAND [options]\n\n"
    if not prefix:
        head += """\
Pedestrian-crossing prediction from driving video, and unsupervised object-centric video
prediction, in PyTorch.

start here:
  vidreason demo                              needs no data
  vidreason data get jaad --root data/jaad    real annotations
  vidreason fit -c jaad_beh                   train
  vidreason predict --run runs/jaad_beh       predict
  vidreason evaluate runs/jaad_beh            compare with baselines

"""
    tail = f"`vidreason {prefix}COMMAND --help` explains a command with examples."
    if not prefix:
        tail += "\n`--debug` shows the traceback of an error, `--version` the version."
    return "\n".join([f"{head}commands:", *listed, "", tail])


def _command(argv: Sequence[str]) -> str:
    """Returns the command that a command line names."""
    if argv[0] == "predict" and any(word.split("=")[0] == "--video" for word in argv):
        return "predict --video"
    if argv[0] in COMMANDS:
        return argv[0]
    group = argv[0] == "data"
    listed = f"`vidreason {'data ' if group else ''}--help` lists the commands"
    if group and len(argv) == 1:
        refuse("vidreason data", "the command is missing", listed)
    given = " ".join(argv[: 1 + group])
    if given in COMMANDS:
        return given
    near = nearest(given.lower(), [*COMMANDS, *_SYNONYMS])
    fix = f"did you mean `vidreason {_SYNONYMS.get(near, near)}`?" if near else listed
    refuse(f"vidreason {given}", "no such command", fix)


def parse(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """Returns the module and the options of a command that Lightning does not declare."""
    command = _command(argv)
    name = re.sub(r"\W+", "_", command)
    module = importlib.import_module(f"vidreason.commands.{name}")
    parser = _Parser(command)
    module.add_arguments(parser)
    words = argv[1 + command.startswith("data ") :]  # with `--video`, which is an option itself
    parser.check(words)
    return module, parser.parse_args(words)


def _run(argv: Sequence[str]) -> int:
    """Runs a command line and returns its exit code; errors are raised."""
    if not argv:
        fix = "start with `vidreason demo`, or see `vidreason --help`"
        refuse("vidreason", "the command is missing", fix)
    if argv[0] in ("-h", "--help", "--version"):
        print(__version__ if argv[0] == "--version" else _help())
        return 0
    if argv[0] == "data" and argv[1:2] in (["-h"], ["--help"]):
        print(_help("data "))
        return 0
    if _command(argv) in train.VERBS:
        return train.run(argv)
    module, args = parse(argv)
    return module.run(args) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; wrong usage exits with code 2, as argparse does.

    Args:
        argv: Words of the command line; those of the process by default.

    Returns:
        0 on success, 1 on bad data or environment, 130 or 143 when stopped by SIGINT or SIGTERM,
        141 on a broken pipe.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Removed here, so that it can stand anywhere, also among Lightning's options.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with _signals() as received:
        try:
            try:
                return _run(arguments)
            finally:
                _flush()
        except BaseException as error:
            if received:  # whatever it became: Lightning raises SystemExit, worker processes die
                fix = f"; {_RESUME[arguments[0]]}" if arguments[0] in _RESUME else ""
                print(f"stopped by {signal.Signals(received[0]).name}{fix}", file=sys.stderr)
                return 128 + received[0]
            if not isinstance(error, DataError | OSError | MemoryError):
                raise
            if debug:
                traceback.print_exc()
            if isinstance(error, BrokenPipeError):
                return 141
            print(f"error: {_line(error)}", file=sys.stderr)
            return 1


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt; yields the list of received signals."""
    received: list[int] = []
    over = threading.Event()

    def stop(number: int, _: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            # Python ignores exceptions in destructors, so send the signal again.
            with suppress(RuntimeError):  # torch raises one wherever a process of its own dies
                threading.Thread(target=again, daemon=True).start()
        elif not received:  # after a signal, errors of interrupted destructors do not matter
            hook(lost)

    def again() -> None:
        if not over.wait(0.1):
            signal.pthread_kill(threading.main_thread().ident or 0, received[0])

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        if not received:
            sys.unraisablehook = hook


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise the interpreter would flush again at exit, and report a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _line(error: DataError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return str(DataError("memory", str(error) or "not enough", "free some"))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return str(DataError(error.filename, error.strerror, "check the path and the disk"))
    return str(error) if isinstance(error, DataError) else " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
