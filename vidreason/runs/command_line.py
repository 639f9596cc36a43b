"""Resolves `-c NAME`, `--run` and `--weights` to the options that Lightning knows.

Does not import torch, so that a file that is missing is reported at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from vidreason.core.errors import DataError
from vidreason.runs.configs import find_config
from vidreason.runs.weights import CONFIG, DEFAULT, MODEL, find_weights

_WITHOUT_WEIGHTS = {"-c", "--config", "-h", "--help", "--print_config"}


def expand(argv: Sequence[str]) -> list[str]:
    """Returns the command line with configurations, runs and weights replaced by files.

    Args:
        argv: The command line from the verb on: `fit`, `validate`, `test` or `predict`.

    Raises:
        DataError: If a configuration, run or weights cannot be found or read.
    """
    verb, *words = argv
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", nargs="?", const="", default=None)
    if verb != "fit":
        parser.add_argument("--weights", nargs="?", const="", default=None)
        parser.add_argument("--out", default=None)
    known, rest = parser.parse_known_args(words)
    rest = _with_configs(rest)
    names = {word.split("=")[0] for word in rest}
    if verb != "fit" and known.run is None:
        weights = known.weights
        if weights is None and not names & _WITHOUT_WEIGHTS:
            weights = DEFAULT
        if weights is not None:
            folder = find_weights(weights)
            out = known.out or f"runs/{folder.name}-shipped"
            options = ["-c", str(folder / CONFIG), "--trainer.default_root_dir", out]
            return [verb, *options, "--ckpt_path", str(folder / MODEL), *rest]
    if known.run is None:
        return [verb, *rest]
    if verb != "fit" and (known.weights is not None or known.out):
        fix = "give one of them: a run has its own folder"
        raise DataError("--run", "excludes --weights and --out", fix)
    config = Path(known.run) / "config.yaml"
    if not known.run or not config.is_file():
        raise DataError("--run", f"{known.run!r} has no config.yaml", "give a run folder")
    _check_yaml(config)
    return [verb, "-c", str(config), "--trainer.default_root_dir", known.run, *rest]


def _with_configs(words: Sequence[str]) -> list[str]:
    """Replaces names of configurations by their files, and checks that these are YAML."""
    found: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        if equals and option == "--config":
            word = f"{option}={_config(value)}"
        elif found and found[-1] in ("-c", "--config"):
            word = _config(word)
        found.append(word)
    return found


def _config(name: str) -> str:
    path = find_config(name)
    _check_yaml(path)
    return str(path)


def _check_yaml(path: Path) -> None:
    """Names file and line of invalid YAML; jsonargparse would not say which file it is in."""
    fix = "correct it, or start from one that `vidreason configs` lists"
    try:
        read = yaml.compose(path.read_text("utf-8"), yaml.SafeLoader)
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8", fix) from None
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(path, f"is not valid YAML ({error.problem})", fix, place) from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = f"is not valid YAML ({' '.join(str(error).split())})"
        raise DataError(path, problem, fix) from None
    if not isinstance(read, yaml.MappingNode):
        raise DataError(path, "has no options, such as `model:`", fix)
