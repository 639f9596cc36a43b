"""Runs a named set of experiments over several seeds and writes one table.

    python tools/ablate.py inputs --config configs/intent/jaad_all_orientation.yaml
    python tools/ablate.py results --test          # every configuration, with test metrics
    python tools/ablate.py decomposition --pass --trainer.max_epochs 4

The table compares validation metrics. `--test` adds those of the test split for reporting; do not
select by them. Finished runs are kept, so that a stopped set can be resumed.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

NET, TASK, DATA = "--model.net.init_args.", "--model.init_args.", "--data.init_args."
TEST = ("roc_auc", "f1@0.5", "f1@validation", "accuracy@0.5", "accuracy@validation")
CONFIGS = Path(__file__).parent.parent / "configs"
SHOWN = {
    "intent": ("val/auc", "val/f1", "val/acc", "val/balanced_accuracy", "epoch"),
    "decomposition": (
        *("val/mse", "val/bce", "val/reconstruction_mse", "val/position_error"),
        *("val/position_error_input", "val/separated", "epoch"),
    ),
}


def _features(*names: str) -> list[str]:
    return [f"{DATA}features=[{','.join(names)}]"]


SETS: dict[str, dict[str, list[str]]] = {
    "inputs": {
        "box": _features("box"),
        "box, neighbours": _features("box", "neighbours"),
        "box, ego": _features("box", "ego"),
        "box, traffic": _features("box", "traffic"),
        "box, ego, traffic": _features("box", "ego", "traffic"),
        "box, orientation": _features("box", "orientation"),
        "without neighbours": _features("box", "ego", "traffic", "orientation"),
        "everything": _features("box", "neighbours", "ego", "traffic", "orientation"),
    },
    "recipe": {
        "as configured": [],
        "mirrored at random": [f"{DATA}mirror=random"],
        "mirrored to one side": [f"{DATA}mirror=canonical"],
        "not mirrored": [f"{DATA}mirror=none"],
        "one member": [f"{NET}members=1", f"{DATA}folds=1"],
        "no noise": [f"{NET}input_noise=0", f"{NET}input_dropout=0"],
        "no auxiliary labels": [f"{TASK}tag_weight=0"],
        "no detection": [f"{TASK}detection_weight=0"],
        "last weights": [f"{TASK}average=0"],
        "half the width": [f"{NET}hidden=32"],
    },
    "gates": {
        gate: [f"{NET}gate={gate}"]
        for gate in ("uniform", "random", "inner", "cosine", "spatial", "spatial_only", "all")
    },
    "temporal": {
        "pedestrian GRU": [],
        "no pedestrian GRU": [f"{NET}pedestrian_gru=false"],
        "context GRU": [f"{NET}context=gru"],
        "context node": [f"{NET}context=node"],
    },
    "layers": {
        f"{n} layers, {'tied' if tied else 'untied'}": [
            f"{NET}layers={n}",
            f"{NET}tied={str(tied).lower()}",
        ]
        for n in (1, 2, 3)
        for tied in (True, False)
        if n > 1 or tied
    },
    "decomposition": {
        "as configured": [],
        "no matched filter": [f"{NET}sweeps=0"],
        "one sweep of the matched filter": [f"{NET}sweeps=1"],
        "positions between pixels": [f"{NET}whole_pixels=false"],
        "content of 2 maps": [f"{NET}content=2"],
        "feature network of half the width": [f"{NET}width=12"],
        "feature network in float32": [f"{NET}bfloat16=false"],
        "one step of the motion model": [f"{TASK}forecast_steps=1"],
        "half the learning rate": [f"{TASK}lr=1e-3"],
        "last weights": [f"{TASK}average=0"],
    },
}
"""Experiments of each set: name, and options that differ from the configuration."""


def experiments(name: str, config: Path) -> dict[str, list[str]]:
    """Returns the arguments of `fit` for each run of a set, by name."""
    if name == "results":
        return {path.stem: ["-c", str(path)] for path in sorted(CONFIGS.glob("intent/*.yaml"))}
    return {label: ["-c", str(config), *options] for label, options in SETS[name].items()}


def vidreason(*words: str, threads: int = 1) -> None:
    """Runs a command in a new process; exits with its output if it fails."""
    command = [sys.executable, "-m", "vidreason.cli", *words]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def run(folder: Path, arguments: list[str], seed: int, test: bool, threads: int) -> None:
    """Trains one run, resuming if possible, and with `test` writes its predictions."""
    if not (folder / "done").exists():
        resume = ["--resume"] if (folder / "checkpoints" / "last.ckpt").exists() else []
        vidreason(
            "fit",
            *arguments,
            *resume,
            f"--seed_everything={seed}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            threads=threads,
        )
        (folder / "done").touch()
    if test and not (folder / "predictions.parquet").exists():
        vidreason("predict", "--run", str(folder), "--trainer.enable_progress_bar=false")


def best(folder: Path) -> dict[str, float]:
    """Returns the validation metrics of the best epoch."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    if "val/mse" in rows[0]:
        return min(rows, key=lambda row: row["val/mse"])
    monitor = "val/acc" if "stip" in (folder / "config.yaml").read_text() else "val/auc"
    return max(rows, key=lambda row: row[monitor])


def test_figures(path: Path) -> dict[str, tuple[float, float]]:
    """Returns mean and standard deviation over the seeds on the test split, all and clean."""
    seeds = {entry["split"]: entry["metrics"] for entry in json.loads(path.read_text())["seeds"]}
    return {
        f"{split} {key}": (metrics[key]["value"], metrics[key]["sd"])
        for split, metrics in seeds.items()
        for key in TEST
    }


def main() -> None:
    """Runs one set of experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=(*SETS, "results"))
    parser.add_argument(
        "--config", type=Path, help="configuration (jaad_all_orientation, moving_mnist)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ablate"))
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help="parallel runs (number of cores)")
    parser.add_argument("--only", nargs="+", help="names of experiments (all of the set)")
    parser.add_argument("--test", action="store_true", help="also report metrics of the test split")
    parser.add_argument(
        "--pass",
        dest="options",
        nargs=argparse.REMAINDER,
        default=[],
        help="options of fit; must be last",
    )
    args = parser.parse_args()
    side = "decomposition" if args.set == "decomposition" else "intent"
    if args.test and side == "decomposition":
        parser.error("--test: not available for decomposition; tools/seeds.py tests decompositions")
    default = {"intent": "jaad_all_orientation", "decomposition": "moving_mnist"}[side]
    config = args.config or CONFIGS / side / f"{default}.yaml"
    chosen = {
        label: [*words, *args.options] for label, words in experiments(args.set, config).items()
    }
    if unknown := set(args.only or ()) - set(chosen):
        parser.error(f"--only: no {unknown.pop()!r} in this set; choose from {', '.join(chosen)}")
    if args.only:
        chosen = {label: chosen[label] for label in args.only}
    elif args.set == "results":
        # The other configurations need data that cannot be downloaded; run them with --only.
        available = ("jaad_all", "jaad_beh", "jaad_stip", "jaad_location")
        chosen = {label: words for label, words in chosen.items() if label.startswith(available)}
    base = args.out / (args.set if args.set == "results" else f"{args.set}-{config.stem}")
    jobs = [(label, seed) for label in chosen for seed in args.seeds]

    def folder(label: str, seed: int) -> Path:
        return base / label.replace(" ", "_").replace(",", "") / f"seed{seed}"

    with Progress() as progress, ThreadPoolExecutor(args.jobs) as pool:
        task = progress.add_task(args.set, total=len(jobs))

        def work(job: tuple[str, int]) -> None:
            label, seed = job
            run(folder(label, seed), chosen[label], seed, args.test, max(1, cores // args.jobs))
            progress.advance(task)

        list(pool.map(work, jobs))
        if args.test:
            for label in chosen:
                runs = [str(folder(label, seed)) for seed in args.seeds]
                vidreason("evaluate", *runs, "--out", str(folder(label, 0).parent / "test"))

    table, lines = Table(title=f"{args.set}: mean ± sd over {len(args.seeds)} seeds"), []
    columns = SHOWN[side]
    tested = tuple(f"{split} {key}" for split in ("all", "clean") for key in TEST)
    for column in ("experiment", *columns, *(tested if args.test else ())):
        table.add_column(column)
    for label in chosen:
        rows = [best(folder(label, seed)) for seed in args.seeds]
        figures = {
            c: (float(np.mean(v)), float(np.std(v))) for c in columns if (v := [r[c] for r in rows])
        }
        if args.test:
            figures |= test_figures(folder(label, 0).parent / "test" / "metrics.json")
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in figures.values()]
        table.add_row(label, *cells)
        lines.append({"experiment": label, "mean, sd": figures})
    Console(width=240).print(table)
    (base / f"{args.set}.json").write_text(json.dumps(lines, indent=1))
    print(base / f"{args.set}.json")


if __name__ == "__main__":
    main()
