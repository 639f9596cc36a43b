"""`vidreason data check`: report what is missing or wrong in a copy of a dataset."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

_SHOWN = 3  # examples of each kind of defect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Reads every annotation file, reports each defect with its place, and counts videos, tracks and
boxes. The exit code is 1 if files are missing or unreadable."""
    parser.epilog = """examples:
  vidreason data check jaad --root data/jaad
  vidreason data check jaad --root data/jaad --json > check.json"""
    parser.add_argument("dataset", choices=("jaad",))
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="dataset folder (default $VIDREASON_DATA/DATASET)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 1 if files are missing or unreadable."""
    from rich.console import Console
    from rich.table import Table

    from vidreason.core.files import data_root
    from vidreason.scenes.check import KINDS, check

    root = args.root or data_root(args.dataset)
    report = check(root)
    if args.json:
        print(json.dumps(asdict(report), indent=1))
        return int(report.broken)
    console = Console()
    table = Table(title=f"JAAD in {root}", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, count in report.counts.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    found = Counter(finding.kind for finding in report.findings)
    for kind, text in KINDS.items():
        console.print(f"[bold]{found[kind]:5d}  {kind}[/bold]: {text}", highlight=False)
        for one in [f for f in report.findings if f.kind == kind][:_SHOWN]:
            place = f"{one.file}: {one.place}: " if one.place else f"{one.file}: "
            console.print(f"         {place}{one.seen}", highlight=False, markup=False)
        if found[kind] > _SHOWN:
            console.print(f"         … and {found[kind] - _SHOWN} more; --json lists all")
    return int(report.broken)
