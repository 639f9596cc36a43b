"""`vidreason render`."""

import argparse
from pathlib import Path

from vidreason.commands.options import check_between
from vidreason.core.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Draws on a video: boxes with trails, a bar with the probability of each pedestrian, and the edges
of the scene graph, whose width is the change of the probability when that neighbour is removed.
An intent model predicts in every frame of the dataset video --clip; a predictions file is drawn
as it is. For a decomposition model, filmstrips and animations of test clips are drawn. The suffix
of --out selects the format: .mp4 (H.264), .gif, or .rrd for the Rerun viewer (vidreason[rerun])."""
    parser.epilog = """examples:
  vidreason render runs/graph --clip video_0001 --out clip.mp4
  vidreason render jaad_all --clip video_0271 --start 2 --seconds 5 --out clip.gif
  vidreason render runs/graph/predictions.parquet --clip video_0271 --out clip.mp4
  vidreason render drive/forecasts.parquet --video drive.mp4 --out drive.rrd
  vidreason render store/drive.arrow --video drive.mp4 --out tracks.mp4
  vidreason render jaad --clip video_0001 --out annotation.mp4
  vidreason render runs/moving_mnist --clips 8 --out strips
  vidreason render moving_mnist --out first.gif

The background is --video, or the dataset's own video in ROOT/JAAD_clips or ROOT/videos."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="run, weights, predictions or forecasts file, store file, or dataset",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="output file; for decompositions a file or a folder",
    )
    parser.add_argument("--clip", metavar="NAME", help="video of the dataset")
    parser.add_argument("--video", type=Path, metavar="FILE", help="video to draw on")
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="dataset folder (default $VIDREASON_DATA/DATASET)",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="start time in seconds (default 0)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="duration in seconds (default until the end)"
    )
    parser.add_argument(
        "--height",
        type=int,
        default=720,
        metavar="PX",
        help="height of the output video, at most that of the source (default 720)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=4,
        metavar="N",
        help="test clips of a decomposition, if --out is a folder (default 4)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    check_between(args, height=(64, 4320), clips=(1, 10_000), start=(0, 10**6))
    if args.seconds is not None and args.seconds <= 0:
        problem = f"must be greater than 0, got {args.seconds}"
        raise DataError("--seconds", problem, "correct the option")
    from vidreason.results.render import render

    render(
        args.source,
        args.out,
        clip=args.clip,
        video=args.video,
        root=args.root,
        start=args.start,
        seconds=args.seconds,
        height=args.height,
        clips=args.clips,
    )
    print(args.out)
    return 0
