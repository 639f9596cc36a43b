"""Baselines without training for Moving MNIST, and a lower bound of the error.

    python tools/floor.py --root data/mnist --clips 650

The lower bound knows the digits and averages the futures that agree with all positions so far: only
the motion below a pixel is unknown to it.
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from vidreason.core.errors import DataError
from vidreason.decomposition.baselines import table
from vidreason.decomposition.data import MovingMNISTData


def main() -> None:
    """Prints the table."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("--root", default="", help="MNIST folder ($VIDREASON_DATA/mnist)")
    parser.add_argument("--clips", type=int, default=650, help="number of test clips (650)")
    parser.add_argument("--digits", type=int, nargs="+", default=[2], help="digits per clip (2)")
    parser.add_argument("--samples", type=int, default=96, help="sampled futures per clip (96)")
    args = parser.parse_args()
    data = MovingMNISTData(args.root, digits=args.digits)
    data.setup("test")
    rows = table(data.sets["test"].made, 10, args.clips, args.samples)
    shown = Table(title=f"predicted frames of {args.clips} test clips")
    scores = ("mse", "mae", "bce", "psnr", "ssim", "position_error")
    for column in ("model", *scores, "mse of frames 11 … 20"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for name, row in rows.items():
        cells = [f"{float(row[score]):.3f}" if score in row else "" for score in scores]
        frames = " ".join(f"{value:.1f}" for value in row["mse_by_frame"].tolist())
        shown.add_row(name, *cells, frames)
    Console(width=150).print(shown)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"error: {error}")
