"""What the commands' options share."""

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn

from vidreason.core.errors import DataError

SEGMENTER = "facebook/mask2former-swin-tiny-cityscapes-panoptic"
"""Default segmenter of `prepare` and `predict --video`."""


def check_between(args: argparse.Namespace, **limits: tuple[float, float]) -> None:
    """Checks numbers given as options.

    Args:
        args: Parsed options.
        limits: Least and greatest value allowed, by option.

    Raises:
        DataError: A number is out of its range or NaN.
    """
    for name, (low, high) in limits.items():
        if not low <= (value := getattr(args, name)) <= high:
            problem = f"must be between {low} and {high}, got {value}"
            raise DataError(f"--{name}", problem, "correct the option")


def refuse(source: str, problem: str, fix: str) -> NoReturn:
    """Exits with code 2, that of wrong usage, and one line."""
    print(f"error: {DataError(source, problem, fix)}", file=sys.stderr)
    raise SystemExit(2)


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most similar to a misspelt word, if any is."""
    return next(iter(difflib.get_close_matches(word, list(names), 1)), None)
