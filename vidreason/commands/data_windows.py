"""`vidreason data windows`: write the samples of a protocol as a table."""

import argparse
from pathlib import Path

from vidreason.core.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Writes one row per sample: video, pedestrian, first and last observed frame, time-to-event and
label. With this table other tools can be evaluated on the same samples."""
    parser.epilog = """example:
  vidreason data windows jaad --root data/jaad --protocol benchmark --subset beh \\
      --split test --out windows.parquet"""
    parser.add_argument(
        "dataset", choices=("jaad", "pie", "stip", "stip-all-views", "stip-20fps", "boxes")
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="dataset folder (default $VIDREASON_DATA/DATASET)"
    )
    parser.add_argument(
        "--protocol", required=True, choices=("benchmark", "benchmark-clean", "stip")
    )
    parser.add_argument(
        "--subset", default="all", choices=("beh", "all", "place"), help="targets (default all)"
    )
    parser.add_argument("--split", required=True, choices=("train", "val", "test"))
    parser.add_argument(
        "--horizon",
        type=_positive,
        default=30,
        metavar="FRAMES",
        help="prediction horizon of the stip protocol (default 30)",
    )
    parser.add_argument(
        "--observed",
        type=_positive,
        default=0,
        metavar="FRAMES",
        help="observation window of the stip protocol (default 30)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.parquet", help="output file"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.intent.datasets import dataset_root, read_split, split_windows
    from vidreason.intent.windows import write_windows

    root = dataset_root(args.dataset, args.root)
    scenes = read_split(args.dataset, root, args.protocol, args.split, args.subset)
    windows = split_windows(
        args.dataset, scenes, args.protocol, args.subset, args.horizon, observed=args.observed
    )
    if not len(windows):
        problem = f"no track of the {len(scenes)} videos is long enough for {args.protocol}"
        raise DataError(root, problem, "give a smaller --horizon or --observed, or another split")
    write_windows(windows, scenes, args.out)
    label = windows.label[:, windows.observed :]
    print(f"{args.out}: {len(windows)} windows of {len(scenes)} videos, ", end="")
    if args.protocol == "stip":
        now = windows.label[:, windows.observed - 1 : windows.observed]
        known = label >= 0
        print(f"{label[known].mean():.1%} of the labels crossing, ", end="")
        print(f"persistence (repeats the current label) scores {(label == now)[known].mean():.1%}")
    else:
        some = f"; {windows.clean.sum()} clean with {label[windows.clean].sum()} crossing"
        print(f"{label.sum()} crossing" + some * (not windows.clean.all()))
    return 0
