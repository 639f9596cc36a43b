"""`vidreason evaluate`."""

import argparse
from pathlib import Path

from vidreason.core.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Computes metrics with 95 % confidence intervals (bootstrap over pedestrians) for runs and for
baselines on the same windows. Prints tables; writes metrics.json and figures."""
    parser.epilog = """examples:
  vidreason evaluate runs/graph --root data/jaad
  vidreason evaluate runs/seed1 runs/seed2 runs/seed3      also mean and SD over seeds
  vidreason evaluate runs/graph --against runs/stip        also the paired difference"""
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="RUN", help="run folder or predictions file"
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="dataset folder, for the baselines (default $VIDREASON_DATA/DATASET)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default `evaluation` next to the first predictions file)",
    )
    parser.add_argument(
        "--against", type=Path, metavar="RUN", help="run that every RUN is compared with, paired"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="with --against: compare on the predictions that both runs have",
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
    if args.bootstrap < 1 or args.seed < 0:
        given = f"{args.bootstrap} and --seed {args.seed}"
        raise DataError("--bootstrap", given, "give at least 1 resample and a seed of 0 or more")
    from vidreason.results.evaluate import evaluate, write_evaluation
    from vidreason.results.tables import print_tables

    boot = args.bootstrap, args.seed
    evaluation = evaluate(args.inputs, args.root, args.against, boot, args.allow_missing)
    print_tables(evaluation)
    first = args.inputs[0]
    out = args.out or (first if first.is_dir() else first.parent) / "evaluation"
    write_evaluation(evaluation, out)
    print(f"metrics.json and figures are in {out}")
    return 0
