"""`vidreason data get`: download a dataset and verify it."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Downloads the pinned release of a dataset, verifies every file against its checksum and puts it
under the root; `balls` are simulated instead. Nothing is left behind if it fails. If the files are
already there, they are only verified."""
    parser.epilog = """examples:
  vidreason data get jaad --root data/jaad
  vidreason data get jaad --root data/jaad --from JAAD-7712f55.tar.gz
  vidreason data get mnist --root data/mnist --from FOLDER-OF-IDX-FILES
  vidreason data get balls --root data/balls

With VIDREASON_DATA=data in the environment, `--root data/jaad` can be omitted."""
    parser.add_argument("dataset", choices=("jaad", "mnist", "balls"))
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="output folder (default $VIDREASON_DATA/DATASET)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE-OR-URL",
        help="archive, folder or address to use instead of the official one",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from vidreason.core.files import data_root
    from vidreason.get import get

    root = args.root or data_root(args.dataset)
    get(args.dataset, root, args.source)
    print(f"{args.dataset}: complete and verified in {root}")
    return 0
