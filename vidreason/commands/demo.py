"""`vidreason demo`: both systems on simulated data."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Runs both systems on simulated data. Intent: simulates streets in JAAD's layout, trains a model on
them, predicts who will cross on held-out streets, and compares the metrics with baselines; films
one of the streets, tracks every instance in the film and predicts with the shipped weights, which
were trained on real streets. Decomposition: trains a model on drawn moving digits, decomposes and
predicts held-out clips, and does the same with the shipped weights, which were trained on real
digits. A page shows all results. Needs no data and no network; takes two minutes."""
    parser.epilog = """examples:
  vidreason demo
  vidreason demo --out demo --videos 120"""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="output folder; an older demo in it is replaced (default runs/demo)",
    )
    parser.add_argument(
        "--videos",
        type=int,
        default=100,
        metavar="N",
        help="streets to simulate, 20 or more (default 100)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.demo import demo

    return demo(args.out, args.videos)
