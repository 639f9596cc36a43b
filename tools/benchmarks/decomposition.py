"""Training steps of the DDPAE, and generation of clips."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from plain_ddpae import PlainDDPAE

from benchmarks.measure import in_turns, show
from vidreason.decomposition.data import MovingMNISTData
from vidreason.decomposition.digits import MovingDigits
from vidreason.decomposition.discs import Discs
from vidreason.decomposition.mnist import drawn_digits
from vidreason.decomposition.networks.ddpae import DDPAE

PARTS = (
    "features",
    "recurrences",
    "crops and content",
    "decode",
    "render",
    "likelihood",
    "other forward",
    "backward",
    "optimizer",
)


def step(batch: int, runs: int, threads: int, config: Path) -> None:
    """Measures a training step of the DDPAE: as published, fast, and fast with bf16 convolutions.

    The three alternate. The time of a step is CPU time of this process, the median of all runs.
    """
    torch.set_num_threads(threads)
    text = yaml.safe_load(config.read_text("utf-8"))
    size = text["data"]["init_args"]["size"]
    options = {"size": size, **text["model"]["init_args"]["net"]["init_args"]}
    frames = torch.rand(batch, 20, 1, size, size)
    frames *= torch.rand_like(frames) < 0.1
    fast = DDPAE(**options)
    nets = {"as published": PlainDDPAE(**options), "fast": fast}
    nets["fast, bf16 convolutions"] = DDPAE(**options)
    seconds: dict[str, dict[str, float]] = {}
    calls = {}
    for name, net in nets.items():
        net.load_state_dict(fast.state_dict())
        if "bf16" in name:
            for network in (net.features, net.appearance, net.decoder):
                network.forward = _half(network.forward)
        seconds[name] = dict.fromkeys(PARTS, 0.0)
        calls[name] = _training_step(net, frames, seconds[name])
        calls[name]()  # warm-up
        seconds[name].update(dict.fromkeys(PARTS, 0.0))
    times = {name: [cpu for cpu, _ in t] for name, t in in_turns(calls, runs).items()}
    medians = [statistics.median(t) for t in times.values()]
    rows = [
        ("step, median", *(f"{t * 1e3:.0f}" for t in medians)),
        ("step, min", *(f"{min(t) * 1e3:.0f}" for t in times.values())),
        ("clips/s", *(f"{batch / t:.0f}" for t in medians)),
        ("speed-up", *(f"{medians[0] / t:.2f}" for t in medians)),
    ]
    for part in PARTS:
        spent = [(s[part], sum(times[name])) for name, s in seconds.items()]
        rows.append((part, *(f"{s / runs * 1e3:.0f} ({s / total:.0%})" for s, total in spent)))
    title = f"{config.stem}, batch {batch}, {threads} thread(s), {runs} alternating runs, CPU ms"
    show(title, ("part", *nets), rows)


def _training_step(net: DDPAE, frames: torch.Tensor, spent: dict[str, float]) -> Callable[[], None]:
    """Returns one training step of a network, whose parts add their CPU seconds to `spent`."""
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
        setattr(owner, method, _clocked(spent, part, getattr(owner, method)))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999))

    def once() -> None:
        loss = -net.elbo(frames, 10).sum() / len(frames)
        optimizer.zero_grad()
        _clocked(spent, "backward", loss.backward)()
        _clocked(spent, "optimizer", optimizer.step)()

    return once


def _half(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a call in autocast to bfloat16; its result is float32 again."""

    def run(*args: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return call(*args).float()

    return run


def _clocked(spent: dict[str, float], part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the CPU seconds of a call to `part`, minus those of the parts clocked inside it."""

    def run(*args: Any) -> Any:
        before, start = sum(spent.values()), time.process_time()
        result = call(*args)
        inside = sum(spent.values()) - before
        spent[part] += time.process_time() - start - inside
        return result

    return run


def clips(batch: int, runs: int, threads: int) -> None:
    """Measures clips per second: Moving MNIST, 20 frames of 64 px, and states of balls, 60 frames.

    Frames are bytes, before they are normalized.
    """
    torch.set_num_threads(threads)
    images, labels = drawn_digits(4_000, 0)
    count = 64 * batch
    data = MovingMNISTData(source="drawn", batch_size=batch, epoch_clips=count)
    data.setup("fit")
    loader = data.train_dataloader()

    def generate(digits: int) -> None:
        source = MovingDigits(images, labels, (digits,))
        for start in range(0, count, batch):
            source.clips(np.arange(start, start + batch))

    calls: dict[str, Callable[[], object]] = {
        f"generating, digits: {digits}": partial(generate, digits) for digits in (1, 2, 3)
    }
    calls["loading, digits: 2"] = lambda: [None for _ in loader]
    calls["simulating, balls: 4"] = lambda: Discs().states(np.arange(count))
    for call in calls.values():  # warm-up
        call()
    rows = []
    for name, times in in_turns(calls, runs).items():
        rate = [count / cpu for cpu, _ in times]
        rows.append((name, f"{statistics.median(rate):,.0f} ({max(rate):,.0f})"))
    show(
        f"batch {batch}, {threads} thread(s), {runs} alternating runs, by CPU time",
        ("call", "clips/s, median (max)"),
        rows,
    )
