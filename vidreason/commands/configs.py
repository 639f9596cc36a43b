"""`vidreason configs`: list the shipped configurations, or print one."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Lists the configurations that ship with vidreason, or prints one. `vidreason fit -c NAME` trains
with it; an edited copy of the file is a custom configuration."""
    parser.epilog = """examples:
  vidreason configs
  vidreason configs jaad_beh
  vidreason configs jaad_beh > mine.yaml && vidreason fit -c mine.yaml"""
    parser.add_argument("name", nargs="?", metavar="NAME", help="configuration to print")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.runs.configs import SUBSYSTEMS, describe, find_config, shipped

    if args.name:
        print(find_config(args.name).read_text("utf-8"), end="")
        return 0
    width = max(map(len, shipped())) + 2
    for subsystem in SUBSYSTEMS:
        print(f"{subsystem}:")
        for name, path in shipped(subsystem).items():
            print(f"  {name:{width}}{describe(path)}")
    return 0
