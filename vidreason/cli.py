"""Command line. Standard library only: a command imports what it needs when it runs.

`vidreason --help` and `vidreason data` must not wait for the seconds that importing torch takes.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from vidreason import __version__
from vidreason.core.errors import DataError

TRAIN = {
    "fit": "train a model on a dataset, both chosen by a YAML file",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split",
    "predict": "write a checkpoint's predictions as Parquet, and filmstrips of clips",
}
_MODULES = {
    "get": "vidreason.get",
    "check": "vidreason.scenes.check",
    "windows": "vidreason.intent.datasets",
    "prepare": "vidreason.perception.prepare",
    "evaluate": "vidreason.results.evaluate",
    "render": "vidreason.results.render",
    "report": "vidreason.results.report",
    "export": "vidreason.runs.export",
    "demo": "vidreason.demo",
}
# How to go on with what a signal has stopped.
_GO_ON = {
    "fit": "with --resume it goes on after the last full epoch, if there was one",
    "prepare": "the same command goes on",
}


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: object) -> None:
        options: dict = {"formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        # One line, like every other error; argparse would print the usage before it.
        self.exit(2, f"error: {message}; see `{self.prog} --help`\n")


def _parser(argv: Sequence[str]) -> _Parser:
    """The parser for everything but training; only the command in `argv` imports its options."""
    parser = _Parser(
        prog="vidreason",
        description="Forecasting video by reasoning about the things in it.",
        epilog="""start here:
  vidreason demo                                     no data needed
  vidreason data get jaad --root data/jaad           real annotations, verified
  vidreason fit -c configs/intent/jaad_beh.yaml      train
  vidreason evaluate runs/*/predictions.parquet      compare

`vidreason COMMAND --help` explains a command with examples.""",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in TRAIN.items():
        commands.add_parser(name, help=text, add_help=False)
    _add_data(commands.add_parser("data", help="get, check and window datasets"))
    for name, text in {
        "prepare": "segment and track videos into a store of instances",
        "evaluate": "score predictions, with confidence intervals and comparisons",
        "render": "forecasts, tracks and graphs as video; clips as filmstrips",
        "report": "results as one page to be looked at",
        "export": "make a run's weights, or a program, that can be passed on",
        "demo": "train, predict, score and draw on a simulated street",
    }.items():
        command = commands.add_parser(name, help=text)
        if argv[:1] == [name]:
            module = importlib.import_module(_MODULES[name])
            module.add_arguments(command)
            command.set_defaults(module=module.__name__)
    return parser


def _add_data(data: argparse.ArgumentParser) -> None:
    verbs = data.add_subparsers(dest="verb", required=True, metavar="VERB")

    get = verbs.add_parser(
        "get",
        help="fetch a dataset and verify it",
        description="Fetches the pinned release of a dataset, checks every byte of it, and puts "
        "it\nunder the root, or simulates the balls. Nothing is left behind if it fails. A second "
        "call\nonly verifies.",
        epilog="""examples:
  vidreason data get jaad --root data/jaad
  vidreason data get jaad --root data/jaad --from JAAD-7712f55.tar.gz
  vidreason data get mnist --root data/mnist --from FOLDER-OF-IDX-FILES
  vidreason data get balls --root data/balls

With VIDREASON_DATA=data in the environment, `--root data/jaad` may be left out.""",
    )
    get.add_argument("--from", dest="source", metavar="FILE-OR-URL", help="where to take it from")

    check = verbs.add_parser(
        "check",
        help="say what is missing or wrong in a dataset",
        description="Reads every file, names each defect with its place, and counts what is there.",
        epilog="""examples:
  vidreason data check jaad --root data/jaad
  vidreason data check jaad --root data/jaad --json > check.json""",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")

    windows = verbs.add_parser(
        "windows",
        help="write the samples of a protocol as a table",
        description="Writes one row per sample: video, pedestrian, first and last observed frame, "
        "time to\nthe event, label. Other tools can be held to the same samples with it.",
        epilog="""example:
  vidreason data windows jaad --root data/jaad --protocol benchmark --subset beh \\
      --split test --out windows.parquet""",
    )
    windows.add_argument(
        "--protocol", required=True, choices=("benchmark", "benchmark-clean", "stip")
    )
    windows.add_argument(
        "--subset", default="all", choices=("beh", "all", "place"), help="who is asked about"
    )
    windows.add_argument("--split", required=True, choices=("train", "val", "test"))
    windows.add_argument(
        "--horizon", type=_positive, default=30, metavar="FRAMES", help="of the stip protocol (30)"
    )
    windows.add_argument(
        "--observed", type=_positive, default=0, metavar="BOXES", help="of the stip protocol (30)"
    )
    windows.add_argument("--out", type=Path, required=True, metavar="FILE.parquet")

    for name, verb in {"get": get, "check": check, "windows": windows}.items():
        datasets = {
            "get": ("jaad", "mnist", "balls"),
            "check": ("jaad",),
            "windows": ("jaad", "pie", "stip", "stip-all-views", "stip-20fps", "boxes"),
        }[name]
        verb.add_argument("dataset", choices=datasets)
        verb.add_argument(
            "--root", type=Path, metavar="DIR", help="its folder ($VIDREASON_DATA/DATASET)"
        )
        verb.set_defaults(module=_MODULES[name])


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["predict"] and any(word.split("=")[0] == "--video" for word in argv):
        parser = _Parser(prog="vidreason predict --video")
        live = importlib.import_module("vidreason.results.live")
        live.add_arguments(parser)
        return live.run(parser.parse_args(argv[1:])) or 0
    if argv and argv[0] in TRAIN:
        # Handed over as it is: LightningCLI has its own options, help and configuration files.
        return importlib.import_module("vidreason.runs.train").main(argv) or 0
    args = _parser(argv).parse_args(argv)
    return importlib.import_module(args.module).run(args) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; wrong usage exits with 2, as argparse does.

    Returns:
        0 done; 1 bad data or surroundings; 130 and 143 stopped by SIGINT and SIGTERM; 141 nobody
        reads the output.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Taken out here, so that it may stand anywhere, also in a line handed over to Lightning.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with _signals() as received:
        try:
            try:
                return _run(arguments)
            finally:
                _flush()
        except BaseException as error:
            if received:  # whatever came of it: Lightning makes it a SystemExit, processes die
                mend = f"; {_GO_ON[arguments[0]]}" if arguments[0] in _GO_ON else ""
                print(f"stopped by {signal.Signals(received[0]).name}{mend}", file=sys.stderr)
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
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt; yields a list of those that came."""
    received: list[int] = []
    over = threading.Event()

    def stop(number: int, _: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            # Raised in a destructor it goes no further, and the work would go on.
            with suppress(RuntimeError):  # that torch raises wherever a process of its own dies
                threading.Thread(target=again, daemon=True).start()
        elif not received:  # destructors that are cut off complain, to no avail
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
        # Otherwise the interpreter would try once more at its end, and complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _line(error: DataError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return str(DataError("memory", str(error) or "there is not enough", "free some"))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return str(DataError(error.filename, error.strerror, "check the path and the disk"))
    return str(error) if isinstance(error, DataError) else " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
