"""Exports runs as weights for distribution, and as programs that run without vidreason.

The weights are measured on the test split before they are written, and the card has the metrics.
Programs take plain tensors (the arguments of `IntentGraphNet.logits`) with any number of windows,
persons and edges, and return probabilities; each is compared with the network before it is kept.
"""

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from vidreason import __version__
from vidreason.core.errors import DataError
from vidreason.core.files import load_manifest, write_atomic
from vidreason.intent.networks import IntentGraphNet
from vidreason.runs.train import load_weights, run_test
from vidreason.runs.weights import CARD, TRAINER_OPTIONS, find_weights, write_weights

TORCH, ONNX = "model.pt2", "model.onnx"
_AXES = {
    "windows": ("target", "around"),
    "persons": ("person", "present"),
    "edges": ("sender", "window", "relation", "both"),
}
_AGREES = 1e-5  # of probabilities


def export(
    run: str,
    out: Path,
    root: Path | None = None,
    about: str = "",
    clips: Sequence[int] | None = None,
) -> nn.Module:
    """Writes the weights of a run with a card that has its metrics on the test split.

    Args:
        run: Run folder, which is measured; or weights by name or folder, which are copied.
        out: Output folder.
        root: Dataset folder to measure on, if not that of the run.
        about: A sentence for the card.
        clips: Measure on these numbers of test clips instead of all.

    Returns:
        The task with these weights, in evaluation mode.

    Raises:
        DataError: `out` holds other files, or the run cannot be loaded.
    """
    if out.exists() and any(out.iterdir()) and not (out / CARD).is_file():
        problem = "holds something that is not a folder of weights"
        raise DataError(out, problem, "give another --out")
    if Path(run, "checkpoints").is_dir():
        return _export_run(Path(run), out, root, about, clips)
    task = load_weights(run)
    out.mkdir(parents=True, exist_ok=True)
    source = find_weights(run)
    for path in source.iterdir() if source != out.resolve() else ():
        with write_atomic(out / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
    return task


def _export_run(
    folder: Path, out: Path, root: Path | None, about: str, clips: Sequence[int] | None
) -> nn.Module:
    options = ["--run", str(folder)]
    options += ["--data.root", str(root)] if root else []
    figures: list[dict[str, Any]] = []
    for count in clips or (None,):
        more = ["--data.test_clips", str(count)] if count else []
        done = run_test([*options, *more])
        figures.append(done.model.tested)
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    ran = json.loads((folder / "run.json").read_text("utf-8"))
    data = config["data"]["init_args"]
    # The location of the data means nothing on another machine.
    data |= {name: "" for name in ("root", "store") if name in data}
    kept = {name: config["trainer"][name] for name in TRAINER_OPTIONS}
    text = yaml.safe_dump(
        {
            **{name: config[name] for name in ("seed_everything", "model", "data")},
            "trainer": {name: value for name, value in kept.items() if value is not None},
        },
        sort_keys=False,
    )
    intent = hasattr(done.model, "threshold")
    dataset = data.get("dataset") or data.get("source") or "balls"
    names = ("protocol", "subset", "features", "digits", "size", "length")
    card = {
        "name": out.name,
        "task": "intent" if intent else "decomposition",
        "about": about,
        "data": {"dataset": dataset, **{n: data[n] for n in names if n in data}},
        **({"threshold": round(float(done.model.threshold), 4)} if intent else {}),
        "figures": figures,
        "train": _command(ran["command"]),
        "check": f"vidreason test --weights {out.name}",
        "seed": ran["seed"],
        "versions": {**ran["versions"], "exported with": __version__},
        "licence": "MIT",
        "data_licence": _licence(dataset),
    }
    write_weights(out, done.model, done.made_with, text, card)
    return done.model


def _command(command: str) -> str:
    """Returns the command line without the paths of this machine."""
    words, kept = command.split(), []
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name in ("--data.root", "--data.store", "--trainer.default_root_dir"):
            words = words if value else words[1:]
        elif not word.startswith("--trainer.enable"):
            kept.append(word)
    return " ".join(kept)


def _licence(dataset: str) -> str:
    try:
        return str(load_manifest(dataset)["licence"])
    except DataError:
        return f"that of {dataset}; see its card"


class Program(nn.Module):
    """Intent network that maps the arguments of `IntentGraphNet.logits` to probabilities."""

    def __init__(self, net: IntentGraphNet, horizon: int) -> None:
        super().__init__()
        self.net, self.horizon = net, horizon

    # Exporters name the inputs by this signature.
    @wraps(IntentGraphNet.logits, assigned=())
    def forward(self, **graph: Tensor) -> Tensor:  # type: ignore[override]
        """Returns the mean probabilities (B, K) of the ensemble members, in 0 to 1."""
        steps = graph["around"].shape[1]
        return self.net.logits(**graph)[..., steps : steps + self.horizon].sigmoid().mean(0)


def program(task: Any) -> Program:
    """Returns the averaged network of an intent task as a module of plain tensors.

    Raises:
        DataError: If the network is not an `IntentGraphNet`.
    """
    if not hasattr(task, "threshold") or not isinstance(task.net, IntentGraphNet):
        name = type(task.net).__name__
        raise DataError("--program", f"{name} cannot be exported", "export an IntentGraphNet")
    return Program(task.averaged.module, task.horizon).eval()


def example(net: IntentGraphNet, windows: int, others: int, seed: int = 0) -> dict[str, Tensor]:
    """Returns random arguments of `IntentGraphNet.logits`, with `others` persons per window."""
    draw = torch.Generator().manual_seed(seed)
    persons, edges, steps = windows * (1 + others), windows * others, net.observed
    around = net.around_norm.num_features
    relation, width = net.edge_norm.num_features, net.person_norm.num_features
    window = torch.arange(windows).repeat_interleave(others)
    target = torch.arange(windows) * (1 + others)
    present = torch.rand(persons, steps, generator=draw) < 0.9
    present[target] = True
    sender = torch.ones(persons, dtype=torch.bool)
    sender[target] = False
    sender = sender.nonzero()[:, 0]
    return {
        "person": torch.randn(persons, steps, width, generator=draw),
        "present": present,
        "target": target,
        "around": torch.randn(windows, steps, around, generator=draw),
        "sender": sender,
        "window": window,
        "relation": torch.randn(edges, steps, relation, generator=draw),
        "both": present[sender],
    }


def write_program(folder: Path, kind: str, task: Any) -> Path:
    """Writes an intent model as a program, after comparing it with the network.

    Args:
        folder: Output folder for `model.pt2` or `model.onnx`.
        kind: `torch` or `onnx`.
        task: An `IntentTask` with an `IntentGraphNet`.

    Returns:
        Path of the program.

    Raises:
        DataError: If the model cannot be exported, or the probabilities differ.
    """
    made = program(task)
    inputs = example(made.net, 3, 4)
    dynamic = {
        name: {0: torch.export.Dim(axis, min=0)} for axis, names in _AXES.items() for name in names
    }
    dynamic = {name: dynamic[name] for name in inputs}
    path = folder / (TORCH if kind == "torch" else ONNX)
    with warnings.catch_warnings(), _quiet(), write_atomic(path) as temporary:
        warnings.simplefilter("ignore")
        if kind == "torch":
            exported = torch.export.export(made, (), inputs, dynamic_shapes=dynamic, strict=False)
            torch.export.save(exported, temporary)
        else:
            _onnx(temporary, made, inputs, dynamic)
        call = runner(temporary)
        for windows, others in ((1, 0), (1, 1), (5, 3), (64, 8)):
            given = example(made.net, windows, others, seed=1)
            with torch.inference_mode():
                gap = float((call(given) - made(**given)).abs().max())
            if gap > _AGREES:
                problem = f"its probabilities differ by {gap:.1e} from those of the network"
                raise DataError(path, problem, "install the pinned versions of torch and onnx")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' warnings about optional packages."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _onnx(path: Path, made: Program, inputs: dict[str, Tensor], dynamic: dict) -> None:
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        fix = "pip install 'vidreason[export]'"
        raise DataError("--program onnx", f"needs onnx and onnxscript ({error})", fix) from None
    torch.onnx.export(
        made,
        (),
        str(path),
        kwargs=inputs,
        dynamic_shapes=dynamic,
        dynamo=True,
        verbose=False,
        external_data=False,
        output_names=["probability"],
    )


def runner(path: Path) -> Any:
    """Returns a function that runs a program: named tensors to probabilities (B, K), one thread."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda given: module(**given)
    try:
        import onnxruntime
    except ImportError as error:
        fix = "pip install 'vidreason[export]'"
        raise DataError("--program onnx", f"needs onnxruntime ({error})", fix) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)

    def call(given: dict[str, Tensor]) -> Tensor:
        arrays = {name: value.numpy() for name, value in given.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return call
