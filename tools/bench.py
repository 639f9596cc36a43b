"""Measures the speed of reading, preparing, loading, training and predicting, as tables.

    python tools/bench.py read  --root data/jaad
    python tools/bench.py model --root data/jaad --config configs/intent/jaad_all.yaml
    python tools/bench.py step  --batch 64 --config configs/decomposition/balls_reference.yaml
    python tools/bench.py clips --batch 64 --threads 1
    python tools/bench.py prepare
    python tools/bench.py latency --weights jaad_all
    python tools/bench.py overlay
    python tools/bench.py help
    python tools/bench.py help    --other ../before    # compared with another checkout
    python tools/bench.py against --other ../before

CPU seconds are those of the measured process, so that other load disturbs them little.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from vidreason.core.errors import DataError
from vidreason.core.files import data_root

CONFIGS = Path(__file__).parent.parent / "configs"
OPTIONS: dict[str, tuple[type, str]] = {
    "root": (Path, "JAAD folder ($VIDREASON_DATA/jaad)"),
    "config": (Path, "configuration"),
    "weights": (str, "name of shipped weights"),
    "other": (Path, "folder of another checkout"),
    "runs": (int, "repetitions"),
    "steps": (int, "training steps"),
    "batch": (int, "clips per batch"),
    "frames": (int, "frames of the video"),
    "threads": (int, "threads"),
}
# Description, function, and the options it takes with their defaults; an ellipsis is required.
BENCHMARKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "read": ("reading JAAD", "intent.read", {"root": None, "runs": 3}),
    "model": (
        "loading, training and predicting",
        "intent.model",
        {"root": None, "config": CONFIGS / "intent/jaad_all.yaml", "steps": 60},
    ),
    "latency": (
        "predicting with the network and its exported programs",
        "intent.latency",
        {"weights": "jaad_all", "runs": 40, "threads": 1},
    ),
    "step": (
        "a training step of the DDPAE, by its parts",
        "decomposition.step",
        {
            "config": CONFIGS / "decomposition/moving_mnist_reference.yaml",
            **{"batch": 64, "runs": 3, "threads": 1},
        },
    ),
    "clips": (
        "generating clips",
        "decomposition.clips",
        {"batch": 64, "runs": 3, "threads": 1},
    ),
    "prepare": ("preparing a video", "video.prepare", {"frames": 120, "runs": 3}),
    "overlay": ("drawing over a video", "video.overlay", {"frames": 300, "runs": 3}),
    "help": (
        "`import vidreason` and `--help` of each command",
        "checkouts.helps",
        {"runs": 5, "other": None},
    ),
    "against": (
        "reading and training in this checkout and another",
        "checkouts.against",
        {"other": ..., "root": None, "config": CONFIGS / "intent/jaad_beh.yaml", "runs": 3},
    ),
}


def main() -> None:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (text, _, defaults) in BENCHMARKS.items():
        command = commands.add_parser(name, help=text, description=text)
        for option, default in defaults.items():
            kind, words = OPTIONS[option]
            if default is ...:
                command.add_argument(f"--{option}", type=kind, required=True, help=words)
            else:
                if default is not None:
                    words += f" ({default.stem if kind is Path else default})"
                command.add_argument(f"--{option}", type=kind, default=default, help=words)
    chosen = vars(parser.parse_args())
    module, function = BENCHMARKS[chosen.pop("benchmark")][1].split(".")
    if "root" in chosen:
        chosen["root"] = chosen["root"] or data_root("jaad")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    getattr(import_module(f"benchmarks.{module}"), function)(**chosen)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"error: {error}")
