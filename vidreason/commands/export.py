"""`vidreason export`: write a run's weights, or a program, for distribution."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Exports a run as weights for distribution: safetensors, configuration and a card with the metrics
measured on the test split. For an intent model it also writes programs that run without vidreason,
a torch.export archive and an ONNX file, with any number of windows, persons and edges."""
    parser.epilog = """examples:
  vidreason export runs/jaad_all --out weights/mine
  vidreason test --weights weights/mine                compares its metrics with the card
  vidreason export jaad_all --out weights/jaad_all --program torch onnx
  vidreason export runs/moving_mnist --out weights/digits --clips 1000 10000
  vidreason export runs/jaad_all --out weights/mine --push USER/NAME"""
    parser.add_argument("run", metavar="RUN", help="run folder, or weights by name or folder")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder, created if missing"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="dataset folder to measure on")
    parser.add_argument("--about", default="", metavar="TEXT", help="a sentence for the card")
    parser.add_argument(
        "--clips", type=int, nargs="+", metavar="N", help="measure on the first N test clips"
    )
    parser.add_argument(
        "--program", nargs="+", default=(), choices=("torch", "onnx"), help="also write programs"
    )
    parser.add_argument("--push", metavar="USER/NAME", help="upload to the Hugging Face hub")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.runs.export import export, write_program

    task = export(args.run, args.out, args.root, args.about, args.clips)
    for kind in args.program:
        print(f"{write_program(args.out, kind, task)}: agrees with the network")
    if args.push:
        from vidreason.runs.hub import push

        print(push(args.out, args.push))
    print(args.out)
    return 0
