"""`vidreason export`: a run to weights that can be passed on, and to programs without Python.

The weights are measured on the test split before they are written, so a card says what was seen.
Programs take plain tensors (`IntentGraphNet.logits` says which) with any number of windows, persons
and edges, and give probabilities; each is compared with the network itself before it is kept.
"""

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from vidreason import __version__
from vidreason.core.errors import DataError
from vidreason.core.files import load_manifest, write_atomic
from vidreason.intent.networks import IntentGraphNet
from vidreason.runs.train import load_weights, measured
from vidreason.runs.weights import CARD, find_weights, write_weights

TORCH, ONNX = "model.pt2", "model.onnx"
_AXES = {
    "windows": ("target", "around"),
    "persons": ("person", "present"),
    "edges": ("sender", "window", "relation", "both"),
}
_TRAINER = ("max_epochs", "max_steps", "gradient_clip_val", "accumulate_grad_batches", "precision")
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
        run: Run folder; measured first. Or weights by name or folder; copied as they are.
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
        done = measured([*options, *more])
        figures.append(done.model.tested)
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    ran = json.loads((folder / "run.json").read_text("utf-8"))
    data = config["data"]["init_args"]
    # Where the data lay says nothing to others.
    data |= {name: "" for name in ("root", "store") if name in data}
    kept = {name: config["trainer"][name] for name in _TRAINER}
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
    """The command line without the places of one machine."""
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
    """Probabilities (B, K) of an intent network's predictions, from the arguments of `logits`."""

    def __init__(self, net: IntentGraphNet, horizon: int) -> None:
        super().__init__()
        self.net, self.horizon = net, horizon

    def forward(
        self,
        person: Tensor,
        present: Tensor,
        target: Tensor,
        around: Tensor,
        sender: Tensor,
        window: Tensor,
        relation: Tensor,
        both: Tensor,
    ) -> Tensor:
        """The mean of the members."""
        logits = self.net.logits(person, present, target, around, sender, window, relation, both)
        steps = around.shape[1]
        return logits[..., steps : steps + self.horizon].sigmoid().mean(0)


def program(task: Any) -> Program:
    """The intent task's network as it is applied, to be called with plain tensors.

    Raises:
        DataError: A task or network that has no such form.
    """
    if not hasattr(task, "threshold") or not isinstance(task.net, IntentGraphNet):
        name = type(task.net).__name__
        raise DataError("--program", f"{name} cannot be exported", "take an IntentGraphNet")
    return Program(task.averaged.module, task.horizon).eval()


def example(net: IntentGraphNet, windows: int, others: int, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `IntentGraphNet.logits`, drawn at random, for windows with `others` each."""
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
    """Writes the intent model as a program, and compares it with the network.

    Args:
        folder: That gets `model.pt2` or `model.onnx`.
        kind: `torch` or `onnx`.
        task: An `IntentTask` with an `IntentGraphNet`.

    Raises:
        DataError: It cannot be exported, or its answers differ.
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
                raise DataError(path, problem, "take the versions of torch and onnx as pinned")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps exporters from telling what they could not find and do not need."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _onnx(path: Path, made: Program, inputs: dict[str, Tensor], dynamic: dict) -> None:
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        mend = "pip install 'vidreason[export]'"
        raise DataError("--program onnx", f"needs onnx and onnxscript ({error})", mend) from None
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
    """What calls a program on one thread: named tensors in, probabilities (B, K) out."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda given: module(**given)
    try:
        import onnxruntime
    except ImportError as error:
        mend = "pip install 'vidreason[export]'"
        raise DataError("--program onnx", f"needs onnxruntime ({error})", mend) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)

    def call(given: dict[str, Tensor]) -> Tensor:
        arrays = {name: value.numpy() for name, value in given.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return call
