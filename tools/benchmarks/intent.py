"""Reading of annotations, training steps and latency of the intent model."""

import statistics
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.measure import in_turns, median_and_min, peak_memory, show, timed
from vidreason.intent import networks
from vidreason.intent.data import IntentData
from vidreason.intent.task import IntentTask
from vidreason.runs import export
from vidreason.runs.train import load_weights
from vidreason.scenes.jaad import FOLDERS, annotation_path, read_jaad, video_names


def read(root: Path, runs: int) -> None:
    """Measures reading all of JAAD, compared with `ElementTree.parse` of the same files."""
    names = video_names(root)
    paths = [annotation_path(root, folder, name) for name in names for folder in FOLDERS]

    def parse() -> None:
        for path in paths:
            ElementTree.parse(path)

    read_jaad(root)  # writes the cache
    calls: dict[str, Callable[[], object]] = {
        "ElementTree.parse alone": parse,
        "read_jaad, without cache": lambda: read_jaad(root, cache=False),
        "read_jaad, from the cache": lambda: read_jaad(root),
    }
    show(
        f"{len(paths)} files, median (min) of {runs} alternating runs",
        ("call", "CPU s", "wall s"),
        (
            (name, *map(median_and_min, zip(*times, strict=True)))
            for name, times in in_turns(calls, runs).items()
        ),
    )


def build(config: Path, root: Path) -> tuple[IntentTask, IntentData]:
    """Returns the task and the data of a configuration."""
    text = yaml.safe_load(config.read_text("utf-8"))
    data = IntentData(root=str(root), **text["data"]["init_args"])
    options = text["model"]["init_args"]
    chosen = options.pop("net")
    kind = getattr(networks, chosen["class_path"])
    net = kind(data.features, data.observed, data.horizon, **chosen["init_args"])
    return IntentTask(net, data.protocol, data.horizon, data.folds, **options), data


def model(root: Path, config: Path, steps: int) -> None:
    """Measures the share of loading in a training step, and windows predicted per second."""
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
    show(
        f"{config}, batches of {data.batch_size}, {torch.get_num_threads()} threads",
        ("quantity", "value"),
        (
            ("loading a batch, median", f"{statistics.median(loading) * 1e3:.1f} ms"),
            ("training step, median", f"{statistics.median(training) * 1e3:.1f} ms"),
            ("loading / step", f"{sum(loading) / sum(training):.1%}"),
            ("windows predicted per second, loading included", f"{per_second:,.0f}"),
            ("peak memory of the process", f"{peak_memory() / 1024:.2f} GiB"),
        ),
    )


def latency(weights: str, runs: int, threads: int) -> None:
    """Measures a batch of windows with five neighbours each, eager and as exported programs."""
    torch.set_num_threads(threads)
    task = load_weights(weights)
    program = export.program(task)
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        calls: dict[str, Callable[[Any], Any]] = {"network, eager": lambda given: program(**given)}
        for kind, name in (("torch", "torch.export"), ("onnx", "ONNX Runtime")):
            calls[name] = export.runner(export.write_program(Path(folder), kind, task))
        for windows in (1, 64):
            given = export.example(program.net, windows, 5)
            for name, call in calls.items():
                for _ in range(10):  # warm-up
                    call(given)
                taken = [timed(partial(call, given))[1] for _ in range(5 * runs)]
                median, late = np.percentile(taken, [50, 95]) * 1e3
                cells = f"{median:.2f}", f"{late:.2f}", f"{late / windows:.3f}"
                rows.append((name, windows, *cells))
    show(
        f"{weights}, {threads} thread(s), {5 * runs} calls, wall ms",
        ("program", "windows", "p50", "p95", "p95 per window"),
        rows,
    )
