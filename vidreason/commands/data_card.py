"""`vidreason data card`: what a dataset holds, how to get it, and its licence."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Prints the card of a dataset: what it holds, how to get it, the files and columns that are read,
known defects, licence and what to cite."""
    parser.epilog = """examples:
  vidreason data card pie
  vidreason data card boxes      the tables of a custom dataset"""
    parser.add_argument("dataset", choices=("jaad", "pie", "stip", "boxes", "mnist", "balls"))


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.core.files import share

    print(share(f"datasets/{args.dataset}/README.md").read_text("utf-8"), end="")
    return 0
