"""`vidreason predict --video`."""

import argparse
import resource
import sys
from pathlib import Path

from vidreason.commands.options import SEGMENTER, check_between
from vidreason.core.errors import DataError

WEIGHTS = "jaad_all_boxes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Predicts crossing in a video without annotation: segments it frame by frame, tracks pedestrians and
vehicles, predicts for every pedestrian in every frame, and writes the probabilities (Parquet), the
video with the results drawn on it (H.264) and an HTML page. Frames are processed one at a time, as
from a live camera; see `vidreason.Live`. A video that is in --store is not segmented again."""
    parser.epilog = """examples:
  vidreason predict --video drive.mp4 --out drive
  vidreason predict --video drive.mp4 --every 3 --device cuda
  vidreason predict --video drive.mp4 --store store --weights runs/mine

Without a GPU, segmentation takes seconds per frame; with --every 6 every sixth frame is segmented
and boxes are interpolated in between. The segmenter is loaded from the Hugging Face hub or from a
folder written by `save_pretrained`; it needs vidreason[segment]."""
    parser.add_argument(
        "--video", nargs="?", type=Path, metavar="FILE", help="mp4, mov, avi, mkv, webm"
    )
    parser.add_argument(
        "--weights",
        default=WEIGHTS,
        metavar="NAME-OR-RUN",
        help=f"weights that come with the package, a weights folder or a run (default {WEIGHTS})",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder (default runs/NAME of the video)"
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="STORE",
        help="store written by `vidreason prepare` that contains this video",
    )
    parser.add_argument(
        "--segmenter",
        default=SEGMENTER,
        metavar="NAME-OR-PATH",
        help=f"segmentation model (default {SEGMENTER})",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="process every Nth frame (default 1)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="lowest confidence of a segment (default 0.5)",
    )
    parser.add_argument(
        "--device", default="cpu", help="torch device of the segmenter (default cpu)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="FPS",
        help="frame rate the model was trained at (default that of its dataset)",
    )
    parser.add_argument(
        "--height",
        type=int,
        default=720,
        metavar="PX",
        help="height of the output video, at most that of the source (default 720)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.video is None:
        raise DataError("--video", "is given without a file", "give a video file")
    check_between(args, every=(1, 10**6), height=(64, 4320), confidence=(0, 1))
    from vidreason.results.predict_video import OUTPUTS, latency_table, predict_video

    out = args.out or Path("runs") / args.video.stem
    seconds = predict_video(
        args.video,
        out,
        weights=args.weights,
        store=args.store,
        segmenter=args.segmenter,
        device=args.device,
        confidence=args.confidence,
        every=args.every,
        rate=args.rate,
        height=args.height,
    )
    from rich.console import Console

    table = latency_table(seconds)
    # In KiB, but on a Mac in bytes.
    shift = 20 if sys.platform == "darwin" else 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> shift
    table.caption = f"{table.caption}; peak memory {peak:,} MiB"
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for name in OUTPUTS:
        print(out / name)
    return 0
