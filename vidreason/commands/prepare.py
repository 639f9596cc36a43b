"""`vidreason prepare`: segment and track videos into a store of instances."""

import argparse
from functools import partial
from pathlib import Path

from vidreason.commands.options import SEGMENTER, check_between


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Segments videos frame by frame, tracks the instances, and writes one Arrow file per video: boxes,
classes, tracks, masks and appearance features of each instance. Videos that are already in the
store are skipped: the same command resumes an interrupted run, and several processes can fill one
store. A video that fails is reported and the others continue; the exit code is then 1."""
    parser.epilog = """examples:
  vidreason prepare clip.mp4 --out store
  vidreason prepare data/JAAD_clips --out store --workers 4
  vidreason prepare drive.mkv --out store --every 10 \\
      --segmenter facebook/mask2former-swin-large-mapillary-vistas-panoptic
  RAY_ADDRESS=auto vidreason prepare clips --out /shared/store --engine ray

Cityscapes has no class for crosswalks, Mapillary Vistas has. To train with a store:
  vidreason fit -c jaad_segmented --data.store store"""
    parser.add_argument(
        "videos", nargs="+", type=Path, metavar="VIDEO-OR-FOLDER", help="mp4, mov, avi, mkv, webm"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STORE", help="output folder, created if missing"
    )
    parser.add_argument(
        "--segmenter",
        default=SEGMENTER,
        metavar="NAME-OR-PATH",
        help="Mask2Former of the Hugging Face hub, or a folder written by save_pretrained "
        f"(default {SEGMENTER})",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="segment every Nth frame (default 1)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="minimum score of a segment, 0 to 1 (default 0.5)",
    )
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda (default cpu)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes (default 1)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads per process; changes the results by rounding (default 1)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="processes of this machine or a Ray cluster (default local)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 1 if a video failed."""
    from vidreason.perception.prepare import Job, find_videos, report, run_jobs
    from vidreason.perception.segmenter import Segmenter, identity

    check_between(args, every=(1, 10**6), workers=(1, 1000), threads=(1, 1000), confidence=(0, 1))
    videos = find_videos(args.videos)
    name = f"{identity(args.segmenter)} at {args.confidence:g}"
    make = partial(Segmenter, args.segmenter, args.device, args.confidence, args.threads)
    jobs = [Job(n, path, args.out, name, make, args.every) for n, path in videos.items()]
    return report(run_jobs(jobs, min(args.workers, len(jobs)), args.engine), args.out)
