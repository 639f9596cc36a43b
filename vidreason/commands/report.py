"""`vidreason report`."""

import argparse
from pathlib import Path

from vidreason.core.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Writes one self-contained HTML page about runs: metrics with confidence intervals, baselines,
paired differences, curves with their numbers, metrics by subgroup, and the best and worst cases.
Intent: runs, weights, predictions files, forecasts of a video. Decomposition: runs or weights."""
    parser.epilog = """examples:
  vidreason report runs/graph --root data/jaad --out report.html
  vidreason report runs/graph runs/stip runs/trees.parquet       compared, with paired differences
  vidreason report runs/moving_mnist --clips 500
  vidreason report jaad_all                                      weights that come with vidreason
  vidreason report drive/forecasts.parquet --video drive.mp4

If ROOT/JAAD_clips or ROOT/videos holds the dataset's videos, cases show video frames."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run, weights, predictions file or forecasts file",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="output file (default report.html)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="dataset folder (default $VIDREASON_DATA/DATASET)",
    )
    parser.add_argument(
        "--cases", type=int, default=6, metavar="N", help="cases per group, at most (default 6)"
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=200,
        metavar="N",
        help="test clips scored for a decomposition (default 200)",
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="video that a forecasts file was made from"
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples (default 1000)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the bootstrap (default 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    for option, low in (("cases", 1), ("clips", 1), ("bootstrap", 1), ("seed", 0)):
        if (value := getattr(args, option)) < low:
            raise DataError(f"--{option}", f"{value} is too small", f"give {low} or more")
    from vidreason.results.report import write_report

    write_report(
        args.inputs,
        args.out,
        args.root,
        args.video,
        args.cases,
        args.clips,
        (args.bootstrap, args.seed),
    )
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    return 0
