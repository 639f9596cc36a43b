"""Speed of reading, preparing, loading, training and predicting, as tables.

    python tools/bench.py read  --root data/jaad
    python tools/bench.py model --root data/jaad --config configs/intent/jaad_all.yaml
    python tools/bench.py step  --batch 64 --config configs/decomposition/balls_reference.yaml
    python tools/bench.py clips --batch 64 --threads 1
    python tools/bench.py prepare
    python tools/bench.py latency --weights jaad_all
    python tools/bench.py overlay
    python tools/bench.py against --other ../before    # of another checkout, in turns

CPU seconds are this process's own, so that a busy machine disturbs them little.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from rich.console import Console
from rich.table import Table

from vidreason.core.files import data_root
from vidreason.perception.prepare import Job, prepare_video
from vidreason.perception.store import Instances, Prepared
from vidreason.perception.video import write_video
from vidreason.scenes.jaad import FOLDERS, annotation_path, read_jaad, video_names
from vidreason.simulation.film import Film, TrueMasks, write_film, write_truth
from vidreason.simulation.world import FPS, simulate

CONFIGS = Path(__file__).parent.parent / "configs"


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def read(root: Path, runs: int) -> None:
    """Reading all of JAAD beside what `ElementTree.parse` alone takes for the same files."""
    names = video_names(root)
    paths = [annotation_path(root, folder, name) for name in names for folder in FOLDERS]

    def parse() -> None:
        for path in paths:
            ElementTree.parse(path)

    def cold() -> None:
        read_jaad(root, cache=False)

    read_jaad(root)  # writes the cache
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(runs):
        for name, call in (
            ("ElementTree.parse alone", parse),
            ("read_jaad, cold", cold),
            ("read_jaad, warm", lambda: read_jaad(root)),
        ):
            rows.setdefault(name, []).append(timed(call))
    table = Table(title=f"{len(paths)} files, median (least) of {runs} runs in turn")
    for column in ("what", "CPU s", "wall s"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, times in rows.items():
        table.add_row(
            name, *(f"{statistics.median(t):.2f} ({min(t):.2f})" for t in zip(*times, strict=True))
        )
    Console().print(table)


def build(config: Path, root: Path) -> tuple[Any, Any]:
    """Task and data of a configuration."""
    from vidreason import models
    from vidreason.intent.data import IntentData
    from vidreason.intent.task import IntentTask

    text = yaml.safe_load(config.read_text("utf-8"))
    data = IntentData(root=str(root), **text["data"]["init_args"])
    options = text["model"]["init_args"]
    chosen = options.pop("net")
    kind = getattr(models, chosen["class_path"])
    net = kind(data.features, data.observed, data.horizon, **chosen["init_args"])
    return IntentTask(net, data.protocol, data.horizon, data.folds, **options), data


def model(root: Path, config: Path, steps: int) -> None:
    """Share of loading in a training step, and windows predicted per second."""
    import torch

    task, data = build(config, root)
    data.setup("fit")
    loader = iter(data.train_dataloader())
    optimizer = torch.optim.AdamW(task.net.parameters())
    task.train()
    loading, training = [], []
    for _ in range(min(steps, len(data.train_dataloader()))):
        start = time.perf_counter()
        batch = next(loader)
        middle = time.perf_counter()
        optimizer.zero_grad()
        task.loss(task.net(batch), batch).backward()
        optimizer.step()
        loading.append(middle - start)
        training.append(time.perf_counter() - middle)
    data.setup("test")
    task.eval()
    seen, start = 0, time.perf_counter()
    with torch.inference_mode():
        for batch in data.test_dataloader():
            seen += len(task.predict_step(batch)["probability"])
    per_second = seen / (time.perf_counter() - start)
    table = Table(
        title=f"{config}, batches of {data.batch_size}, {torch.get_num_threads()} threads"
    )
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("loading a batch, median", f"{statistics.median(loading) * 1e3:.1f} ms")
    table.add_row("training step, median", f"{statistics.median(training) * 1e3:.1f} ms")
    table.add_row("loading / step", f"{sum(loading) / sum(training):.1%}")
    table.add_row("windows predicted per second, loading included", f"{per_second:,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    table.add_row("peak memory of the process", f"{peak:.2f} GiB")
    Console().print(table)


PARTS = (
    "features",
    "recurrences",
    "crops and content",
    "decode",
    "render",
    "likelihood",
    "other forward",
    "backward",
    "optimiser",
)


def step(batch: int, runs: int, threads: int, config: Path) -> None:
    """Training step of the DDPAE of a configuration: as published, fast, and fast with bf16.

    The three take turns; a step's time is CPU time of this process, the median of all runs.
    """
    import torch
    from plain_ddpae import PlainDDPAE

    from vidreason.decomposition.networks.ddpae import DDPAE

    torch.set_num_threads(threads)
    read = yaml.safe_load(config.read_text("utf-8"))
    size = read["data"]["init_args"]["size"]
    options = {"size": size, **read["model"]["init_args"]["net"]["init_args"]}
    frames = torch.rand(batch, 20, 1, size, size)
    frames *= torch.rand_like(frames) < 0.1
    fast = DDPAE(**options)
    nets = {"as published": PlainDDPAE(**options), "fast": fast}
    nets["fast, bf16 convolutions"] = DDPAE(**options)
    seconds: dict[str, dict[str, float]] = {}
    optimizers = {}
    for name, net in nets.items():
        net.load_state_dict(fast.state_dict())
        networks = (net.features, net.appearance, net.decoder)
        if "bf16" in name:
            for network in networks:
                network.forward = half(network.forward)
        seconds[name] = spent = dict.fromkeys(PARTS, 0.0)
        for part, owner, method in (
            ("features", net.features, "forward"),
            ("recurrences", net, "_encode"),
            ("recurrences", net, "_predict"),
            ("crops and content", net, "_gather"),
            ("decode", net.decoder, "forward"),
            ("render", net, "_render"),
            ("likelihood", net, "_log_likelihood"),
            ("other forward", net, "elbo"),
        ):
            setattr(owner, method, clocked(spent, part, getattr(owner, method)))
        optimizers[name] = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999))

    def once(name: str) -> None:
        loss = -nets[name].elbo(frames, 10).sum() / batch
        optimizers[name].zero_grad()
        clocked(seconds[name], "backward", loss.backward)()
        clocked(seconds[name], "optimiser", optimizers[name].step)()

    for name in nets:  # warms up
        once(name)
        seconds[name].update(dict.fromkeys(PARTS, 0.0))
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(runs):
        for name in nets:
            times[name].append(timed(lambda name=name: once(name))[0])
    title = f"{config.stem}, batch {batch}, {threads} threads, {runs} runs in turn, ms of CPU time"
    table = Table(title=title)
    table.add_column("what")
    for name in nets:
        table.add_column(name, justify="right")
    medians = {name: statistics.median(t) for name, t in times.items()}
    table.add_row("step, median", *(f"{t * 1e3:.0f}" for t in medians.values()))
    table.add_row("step, least", *(f"{min(t) * 1e3:.0f}" for t in times.values()))
    table.add_row("clips/s", *(f"{batch / t:.0f}" for t in medians.values()))
    first = medians["as published"]
    table.add_row("times faster", *(f"{first / t:.2f}" for t in medians.values()), end_section=True)
    for part in PARTS:
        shares = (s[part] / sum(times[name]) for name, s in seconds.items())
        means = (s[part] / runs * 1e3 for s in seconds.values())
        cells = (f"{m:.0f} ({s:.0%})" for m, s in zip(means, shares, strict=True))
        table.add_row(part, *cells)
    Console().print(table)


def clips(batch: int, runs: int, threads: int) -> None:
    """Clips of Moving MNIST, 20 frames of 64 pixels as bytes, and states of balls, 60 frames."""
    import numpy as np
    import torch

    from vidreason.decomposition.data import MovingMNISTData
    from vidreason.decomposition.digits import MovingDigits
    from vidreason.decomposition.discs import Discs
    from vidreason.decomposition.mnist import drawn_digits

    torch.set_num_threads(threads)
    images, labels = drawn_digits(4_000, 0)
    count = 64 * batch
    data = MovingMNISTData(source="drawn", batch_size=batch, epoch_clips=count)
    data.setup("fit")
    loader = data.train_dataloader()

    def made(digits: int) -> Callable[[], None]:
        source = MovingDigits(images, labels, (digits,))

        def make() -> None:
            for start in range(0, count, batch):
                source.clips(np.arange(start, start + batch))

        return make

    calls = {f"making, digits: {digits}": made(digits) for digits in (1, 2, 3)}
    calls["loading, digits: 2"] = lambda: [None for _ in loader]
    calls["simulating, balls: 4"] = lambda: Discs().states(np.arange(count))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # warms up
        call()
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(timed(call)[0])
    table = Table(title=f"batch {batch}, {threads} threads, {runs} runs in turn, by CPU time")
    table.add_column("what")
    table.add_column("clips/s, median (most)", justify="right")
    for name, spent in times.items():
        median, most = count / statistics.median(spent), count / min(spent)
        table.add_row(name, f"{median:,.0f} ({most:,.0f})")
    Console().print(table)


def half(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call under autocast to bfloat16; what it returns is float32 again."""
    import torch

    def run(*args: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return call(*args).float()

    return run


def clocked(spent: dict[str, float], part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, adding its CPU seconds to `part`, less those of parts clocked inside it."""

    def run(*args: Any) -> Any:
        before, start = sum(spent.values()), time.process_time()
        result = call(*args)
        inside = sum(spent.values()) - before
        spent[part] += time.process_time() - start - inside
        return result

    return run


class _Known:
    """A segmenter that takes no time: it knows the first frames of a film, over and over."""

    features = 256

    def __init__(self, film: Film, frames: int) -> None:
        truth = TrueMasks(film)
        features = np.random.default_rng(0).standard_normal((256, 270, 480), dtype=np.float32)
        self.found = [truth(film(t)[0], t)._replace(features=features) for t in range(frames)]

    def __call__(self, frame: np.ndarray, number: int) -> Instances:
        return self.found[number % len(self.found)]


def prepare(runs: int) -> None:
    """Everything of `vidreason prepare` but the network, at 1080p; and reading what it wrote."""
    table = Table(title="1080p, 256 features at a quarter of the size, one process")
    for column in ("what", "value"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        film = Film(simulate(0, 2, (90, 120)))
        once = film.street.place.length
        known = _Known(film, once)
        for times in (1, 4):
            path = Path(folder, f"{times}.mp4")
            write_video(path, (film(t)[0] for _ in range(times) for t in range(once)), FPS)
        for times in (1, 4):
            job = Job(
                f"{times}", Path(folder, f"{times}.mp4"), Path(folder), "known", lambda: known
            )
            taken = []
            for _ in range(runs):
                Path(folder, f"{times}.arrow").unlink(missing_ok=True)
                taken.append(timed(lambda job=job: prepare_video(job)))  # type: ignore[misc]
            cpu, wall = (statistics.median(t) / (times * once) for t in zip(*taken, strict=True))
            table.add_row(f"{times * once} frames: frames/s", f"{1 / wall:.0f}")
            table.add_row("  CPU ms a frame", f"{1e3 * cpu:.1f}")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            table.add_row("  peak memory so far, MiB", f"{peak:.0f}")
        path = Path(folder, "4.arrow")
        prepared = Prepared(path)
        raw = sum(_raw_bytes(column) for column in prepared.table.columns)
        table.add_row(
            "bytes of the store over those of its arrays", f"{path.stat().st_size / raw:.3f}"
        )
        starts = np.random.default_rng(0).integers(0, prepared.length - 16, 2000)
        begin = time.perf_counter()
        for start in starts.tolist():
            rows = prepared.window(start, start + 16)
            np.stack([rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")])
            rows["feature"].combine_chunks().flatten().to_numpy()
        each = (time.perf_counter() - begin) / len(starts)
        table.add_row("windows of 16 frames at random/s, boxes and features", f"{1 / each:.0f}")
    Console().print(table)


def overlay(runs: int) -> None:
    """Ten seconds of 1080p on film: read, drawn over with forecasts and edges, written as 720p."""
    from vidreason.perception.video import Video, video_writer
    from vidreason.results.overlay import Overlay
    from vidreason.results.layers import of_store
    from vidreason.scenes.scene import KINDS

    table = Table(title="10 s of 1080p to 720p H.264, segmenter and model left out")
    for column in ("what", "value"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        film = Film(simulate(0, 2, (300, 301)))
        path = Path(folder, "film.mp4")
        write_film(path, film)
        write_truth(Path(folder, "film.arrow"), "film", film)
        layers = of_store(Prepared(Path(folder, "film.arrow")))
        rng = np.random.default_rng(0)
        people = np.flatnonzero(layers.kind == KINDS.index("person"))
        probability = np.full(len(layers.frame), np.nan)
        probability[people] = rng.random(len(people))
        pairs = [
            np.stack(np.meshgrid(rows, rows), -1).reshape(-1, 2)
            for rows in np.split(people, np.flatnonzero(np.diff(layers.frame[people])) + 1)
        ]
        edge = np.concatenate(pairs)
        edge = edge[edge[:, 0] != edge[:, 1]]
        layers = layers._replace(
            probability=probability,
            words="crosses in 1 to 2 s",
            edge=edge,
            weight=rng.normal(0, 0.1, len(edge)),
            masks=None,
        )
        taken = []
        for _ in range(runs):
            draw = Overlay(*layers.size, layers.fps, 0.5, layers.words)

            def once(draw: Overlay = draw) -> None:
                with video_writer(Path(folder, "out.mp4"), layers.fps) as write:
                    for number, picture in Video(path).frames(size=draw.size):
                        write(draw(number, picture, layers.at(number)))

            taken.append(timed(once))
        cpu, wall = (statistics.median(t) / layers.length for t in zip(*taken, strict=True))
        table.add_row("frames", f"{layers.length}")
        table.add_row(
            "people, edges in a frame",
            f"{len(people) / layers.length:.1f}, {len(edge) / layers.length:.1f}",
        )
        table.add_row("frames/s", f"{1 / wall:.0f}")
        table.add_row("CPU ms a frame", f"{1e3 * cpu:.1f}")
    Console().print(table)


def latency(weights: str, runs: int, threads: int) -> None:
    """A batch of windows with five neighbours each, by the network and by its exported programs."""
    import torch

    from vidreason.runs import export
    from vidreason.runs.train import load_weights

    torch.set_num_threads(threads)
    task = load_weights(weights)
    made = export.program(task)
    title = f"{weights}, {threads} thread, {5 * runs} calls; wall ms"
    table = Table(title=title)
    for column in ("program", "windows", "p50", "p95", "p95 a window"):
        table.add_column(column, justify="left" if column == "program" else "right")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        calls: dict[str, Callable[[Any], Any]] = {"network, eager": lambda given: made(**given)}
        for kind, name in (("torch", "torch.export"), ("onnx", "ONNX Runtime")):
            calls[name] = export.runner(export.write_program(Path(folder), kind, task))
        for windows in (1, 64):
            given = export.example(made.net, windows, 5)
            for name, call in calls.items():
                for _ in range(10):  # warms up
                    call(given)
                taken = [timed(partial(call, given))[1] for _ in range(5 * runs)]
                middle, late = np.percentile(taken, [50, 95]) * 1e3
                cells = f"{middle:.2f}", f"{late:.2f}", f"{late / windows:.3f}"
                table.add_row(name, str(windows), *cells)
    Console().print(table)


_AGAINST = """
import statistics, sys, tempfile, time
from pathlib import Path
from vidreason.scenes.jaad import read_jaad
def reading():
    start = time.process_time()
    read_jaad(Path(sys.argv[1]), cache=False)
    return time.process_time() - start
print(statistics.median(reading() for _ in range(4)))
from vidreason import cli
from vidreason.runs import folder as runs
starts, begin = [], runs.RunFolder.on_train_batch_start
def clocked(self, *args):
    starts.append(time.process_time())
    return begin(self, *args)
runs.RunFolder.on_train_batch_start = clocked
with tempfile.TemporaryDirectory() as folder:
    options = ["--trainer.default_root_dir", folder, "--trainer.max_epochs", "1"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    options += ["--data.root", sys.argv[1], "--trainer.accelerator", "cpu"]
    assert cli.main(["fit", "-c", sys.argv[2], *options]) == 0
steps = [after - before for before, after in zip(starts, starts[1:])]
print(1e3 * statistics.median(steps))
"""


def against(other: Path, root: Path, config: Path, runs: int) -> None:
    """Reading JAAD without a cache, and a step of `fit`, by this checkout and another in turns."""
    trees = {"here": Path(__file__).parent.parent, str(other): other.resolve()}
    found: dict[str, list[list[float]]] = {name: [] for name in trees}
    for number in range(runs):
        for name, tree in list(trees.items())[:: 1 - 2 * (number % 2)]:
            environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
            line = [sys.executable, "-c", _AGAINST, str(root.resolve()), str(config.resolve())]
            done = subprocess.run(line, env=environment, cwd=tree, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            words = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
            found[name].append([float(word) for word in words])
    table = Table(title=f"CPU time, median (least) of {runs} runs in turns")
    for column in ("checkout", "reading JAAD, s", "step of fit, ms"):
        table.add_column(column)
    for name, rows in found.items():
        cells = [f"{statistics.median(t):.2f} ({min(t):.2f})" for t in zip(*rows, strict=True)]
        table.add_row(name, *cells)
    Console().print(table)


def _raw_bytes(column: pa.ChunkedArray) -> int:
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return 4 * len(values) + sum(len(word.as_py()) for word in values)
    if pa.types.is_list(values.type):
        return 4 * len(values) + values.flatten().to_numpy().nbytes
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy().nbytes
    return values.to_numpy().nbytes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what",
        choices=("read", "model", "step", "clips", "prepare", "latency", "overlay", "against"),
    )
    parser.add_argument("--root", type=Path, help="folder of JAAD ($VIDREASON_DATA/jaad)")
    parser.add_argument("--config", type=Path, help="jaad_all, or moving_mnist_reference of step")
    parser.add_argument("--weights", default="jaad_all", help="of latency")
    parser.add_argument("--other", type=Path, help="another checkout, of against")
    parser.add_argument("--runs", type=int, help="3, of latency 40")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    args.runs = args.runs or (40 if args.what == "latency" else 3)
    if args.what == "latency":
        latency(args.weights, args.runs, args.threads)
    elif args.what == "overlay":
        overlay(args.runs)
    elif args.what == "against":
        if not args.other:
            parser.error("against needs --other, the folder of another checkout")
        config = args.config or CONFIGS / "intent" / "jaad_beh.yaml"
        against(args.other, args.root or data_root("jaad"), config, args.runs)
    elif args.what == "prepare":
        prepare(args.runs)
    elif args.what == "clips":
        clips(args.batch, args.runs, args.threads)
    elif args.what == "step":
        config = args.config or CONFIGS / "decomposition" / "moving_mnist_reference.yaml"
        step(args.batch, args.runs, args.threads, config)
    elif args.what == "read":
        read(args.root or data_root("jaad"), args.runs)
    else:
        config = args.config or CONFIGS / "intent" / "jaad_all.yaml"
        model(args.root or data_root("jaad"), config, args.steps)


if __name__ == "__main__":
    main()
