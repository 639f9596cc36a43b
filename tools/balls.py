"""Compares trained decompositions of bouncing balls with baselines that know the true positions.

    python tools/balls.py runs/balls_s0 runs/balls_s1 runs/balls_s2 --out runs/balls

Runs whose folders differ only in a final `_s<seed>` are averaged. Position and velocity errors by
horizon are compared with the true positions, with constant velocity from the last two of them,
exact or rounded to pixels, and with an interaction network (Battaglia et al. 2016) trained on exact
positions. Rollouts of 50 frames then show energy, balls outside the box and balls that merge, with
pictures.
"""

import argparse
import functools
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.decomposition.ball_data import BallsData
from vidreason.decomposition.ball_metrics import BallMetrics, constant_velocity, rollout
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.discs import Discs
from vidreason.decomposition.filmstrips import draw_animation, draw_trajectories
from vidreason.decomposition.networks.forecaster import RelationalForecast, distance_loss
from vidreason.runs.train import load_run

SHOWN = ("position_error", "position_error_collided", "velocity_cosine", "velocity_error")
SHOWN += ("velocity_cosine_published", "velocity_error_published")
SCENE = ("balls", "radius", "gravity", "size", "length", "channels", "look")
BATCH = 50


def scene(runs: list[Path]) -> dict[str, Any]:
    """Returns the options of the scenes that the runs were trained on.

    Raises:
        DataError: If a run is not of bouncing balls, or of other scenes than the first.
    """
    found = []
    for run in runs:
        config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))["data"]
        if not config["class_path"].endswith("BallsData"):
            raise DataError(run, "is not a run of bouncing balls", "give another")
        found.append({name: config["init_args"][name] for name in SCENE})
        if found[-1] != found[0]:
            raise DataError(run, f"has other scenes than {runs[0]}", "compare it separately")
    return found[0]


def table(name: str, rows: dict[str, list[Tensor]], horizons: Sequence[int] = ()) -> Table:
    """Returns a table of mean and standard deviation over the runs of each row, by horizon."""
    shown = Table(title=f"{name.replace('_', ' ')} by horizon, frames")
    shown.add_column("model")
    for horizon in horizons or range(1, len(next(iter(rows.values()))[0]) + 1):
        shown.add_column(str(horizon), justify="right")
    for label, runs in rows.items():
        values = torch.stack(runs).double()
        spread = values.std(0) if len(runs) > 1 else [None] * values.shape[1]
        cells = [
            f"{mean:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
            for mean, sd in zip(values.mean(0), spread, strict=True)
        ]
        shown.add_row(label, *cells)
    return shown


def clips(options: dict[str, Any], count: int, length: int) -> list[Clip]:
    """Returns batches of test clips."""
    options = {**options, "length": length, "frames": length, "test_clips": count}
    data = BallsData(**options, batch_size=BATCH)
    data.setup("test")
    return list(data.test_dataloader())


def states(options: dict[str, Any], count: int, length: int) -> Tensor:
    """Returns exact positions of training clips, (count, N, 2, length), from -0.5 to 0.5."""
    keep = {name: options[name] for name in ("balls", "radius", "gravity")}
    scenes = Discs(**keep, length=length).states(np.arange(count)).positions
    return torch.from_numpy(scenes).float().permute(0, 2, 3, 1) - 0.5


def supervised(options: dict[str, Any], t_in: int, t_out: int, seconds: float, seed: int) -> Any:
    """Trains an interaction network on exact positions for `seconds` of CPU time."""
    torch.manual_seed(seed)
    tracks = 2 * states(options, 50_000, t_in + t_out)
    net = RelationalForecast(t_in, t_out, 64)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    start, spent = time.process_time(), 0.0
    with Progress(transient=True) as progress:
        bar = progress.add_task("interaction network on true states", total=seconds)
        while spent < seconds:
            rise = min(1.0, 50 * spent / seconds)
            optimizer.param_groups[0]["lr"] = 5e-3 * rise * (1 + np.cos(np.pi * spent / seconds))
            track = tracks[torch.randint(len(tracks), [64])]
            sign = torch.randint(0, 2, (64, 1, 2, 1)) * 2 - 1
            past, future = (track * sign).split([t_in, t_out], -1)
            loss = distance_loss(*net(past, torch.zeros_like(past[..., :1])), future).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            spent = time.process_time() - start
            progress.update(bar, completed=spent)
    return net


def of_pixels(task: Any, t_in: int, clip: Clip) -> Tensor:
    """Returns the positions (B, L, N, 2) px that a run infers from frames."""
    frames = clip.frames.float() / 255
    return task.decompose(frames[:, :t_in], frames.shape[1] - t_in).positions


def rounded(clip: Clip) -> Tensor:
    """Returns the true positions (B, L, N, 2) px, rounded to pixel centers."""
    return (clip.positions - 0.5).round() + 0.5


def of_states(net: Any, t_in: int, size: int, clip: Clip) -> Tensor:
    """Returns the true positions and their rollout by the network, (B, L, N, 2) px."""
    positions = clip.positions
    track = 2 * ((positions - 0.5) / size - 0.5).permute(0, 2, 3, 1)[..., :t_in]
    with torch.no_grad():
        ahead = net(track, torch.zeros_like(track[..., :1]), None, positions.shape[1] - t_in)[0]
    ahead = ((ahead / 2 + 0.5) * size + 0.5).permute(0, 3, 1, 2)
    return torch.cat([positions[:, :t_in], ahead], 1)


def main() -> None:
    """Writes tables, figures and `balls.json`."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--clips", type=int, default=1000, help="number of test clips (1000)")
    parser.add_argument("--frames", type=int, default=50, help="frames of a rollout (50)")
    parser.add_argument(
        "--seconds", type=float, default=300, help="training time of the interaction network (300)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of interaction networks (1)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/balls"), help="output folder (runs/balls)"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tasks = {folder: load_run(folder) for folder in args.runs}
    options, t_in = scene(args.runs), next(iter(tasks.values())).input_frames
    length = options["length"]
    short, long = (
        clips(options, count, frames)
        for count, frames in ((args.clips, length), (min(args.clips, 200), t_in + args.frames))
    )

    judged: dict[str, list[dict[str, Tensor]]] = {}
    kept: dict[str, list[dict[str, Tensor]]] = {}

    def judge(name: str, forecast: Any) -> None:
        """Adds the scores of `forecast`, which predicts positions (B, L, N, 2) px of clips."""
        metrics = BallMetrics(t_in, length - t_in, options["size"])
        for clip in short:
            metrics.update(clip, forecast(clip))
        judged.setdefault(name, []).append(metrics.compute())
        placed = torch.cat([forecast(clip) for clip in long])
        radius = options["radius"] * options["size"]
        kept.setdefault(name, []).append(rollout(placed, t_in, options["size"], radius))

    with Progress(transient=True) as progress:
        bar = progress.add_task("predicting", total=len(tasks))
        for folder, task in tasks.items():
            judge(re.sub(r"_s\d+$", "", folder.name), functools.partial(of_pixels, task, t_in))
            progress.advance(bar)
    for seed in range(args.seeds if args.seconds else 0):
        net = supervised(options, t_in, length - t_in, args.seconds, seed)
        judge("true states", functools.partial(of_states, net, t_in, options["size"]))
    judge("constant velocity", lambda clip: constant_velocity(clip.positions, t_in))
    judge(
        "constant velocity, rounded to pixels", lambda clip: constant_velocity(rounded(clip), t_in)
    )
    judge("true positions", lambda clip: clip.positions)

    console = Console(width=150)
    for name in SHOWN:
        console.print(
            table(name, {k: [r[f"{name}_by_horizon"] for r in v] for k, v in judged.items()})
        )
    horizons = sorted({h for h in (1, 10, 25, 50, 100, args.frames) if h <= args.frames})
    for name in next(iter(kept.values()))[0]:
        rows = {k: [row[name][[h - 1 for h in horizons]] for row in v] for k, v in kept.items()}
        console.print(table(f"rollout, {name}", rows, horizons))
    plain = {
        part: {
            name: [{key: value.tolist() for key, value in row.items()} for row in rows]
            for name, rows in found.items()
        }
        for part, found in (("scores", judged), ("rollout", kept))
    }
    with write_atomic(args.out / "balls.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
    for folder, task in tasks.items():
        for number in range(4):
            clip = Clip(*(part[number : number + 1] for part in long[0]))
            frames = clip.frames.float() / 255
            found = task.decompose(frames[:, :t_in], args.frames)
            path = args.out / f"{folder.name}_clip{number}"
            draw_animation(path.with_suffix(".gif"), frames, found, t_in)
            found = Decomposition(*(part[:, :length] for part in found))
            seen = Clip(*(part[:, :length] for part in clip[:2]), *clip[2:])
            draw_trajectories(path.with_suffix(".png"), seen, found, t_in)
    print(args.out)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"error: {error}")
