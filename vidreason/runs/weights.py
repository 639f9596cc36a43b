"""Weights for distribution: tensors, configuration and card, and no code.

A folder of weights holds `model.safetensors` (the averaged weights, without optimizer state),
`config.yaml` (model and data, as in training), `card.json` (training and measured metrics) and
`README.md` (the card for readers). Some ship with the package. Finding a folder and reading its
card does not import torch.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidreason.core.errors import DataError
from vidreason.core.files import sha256, write_atomic

if TYPE_CHECKING:
    from torch import nn

MODEL, CONFIG, CARD, README = "model.safetensors", "config.yaml", "card.json", "README.md"
# Trainer options that change results: the learning rate schedule ends with the last epoch.
TRAINER_OPTIONS = (
    "max_epochs",
    "max_steps",
    "gradient_clip_val",
    "accumulate_grad_batches",
    "precision",
)
FILES = (MODEL, CONFIG, CARD, README)
DEFAULT = "jaad_all"
DEFAULT_VIDEO = "jaad_all_boxes"
_SHIPPED = Path(__file__).parents[1] / "pretrained"
_AVERAGE = "averaged.module."
_ROUNDING = 2e-3  # relative difference of a metric between kinds of processors
_TRACKS = 0.15  # a few lost clips dominate the mean, and a tie decides whether one is lost
_FIX = "get the folder of weights again, or make it with `vidreason export`"


def shipped() -> list[str]:
    """Returns the names of the weights that ship with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def find_weights(name: str | Path) -> Path:
    """Returns the folder of weights, after downloading it from the hub if needed.

    Args:
        name: Shipped weights (`jaad_all`), a local folder (`exported/mine`), or a model on the
            Hugging Face hub (`user/model`).

    Raises:
        DataError: If there are no such weights, or a file is missing.
    """
    if str(name) in shipped():
        return _SHIPPED / str(name)
    folder = Path(name)
    if not folder.is_dir():
        if str(name).count("/") != 1 or str(name).startswith((".", "/")):
            fix = f"give a folder of weights, or one of {', '.join(shipped())}"
            raise DataError("--weights", f"{str(name)!r} not found", fix)
        from vidreason.runs.hub import download

        folder = download(str(name))
    for file in (MODEL, CONFIG, CARD):
        if not (folder / file).is_file():
            raise DataError(folder / file, "no such file", _FIX)
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card of a folder of weights.

    Raises:
        DataError: If the card is missing, damaged or incomplete.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _FIX) from None
    kinds = {"name": str, "task": str, "figures": list, "sha256": str}
    for key, kind in kinds.items():
        if not isinstance(card, dict) or not isinstance(card.get(key), kind):
            raise DataError(path, f"has no {key}", _FIX)
    return card


def read_weights(path: Path, task: "nn.Module") -> dict[str, Any]:
    """Reads weights as the contents of a checkpoint.

    Args:
        path: A `model.safetensors` with its card in the same folder.
        task: Task that will load the weights; tensors that only training needs are taken from it.

    Raises:
        DataError: If the file is damaged or was not written by vidreason.
    """
    import safetensors
    from safetensors.torch import load_file

    if sha256(path) != read_card(path.parent)["sha256"]:
        raise DataError(path, "does not have the checksum of its card", _FIX)
    try:
        with safetensors.safe_open(path, "pt") as file:
            made_with = json.loads((file.metadata() or {}).get("vidreason", "null"))
        stored = load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(path, f"cannot be read ({error})", _FIX) from None
    if not isinstance(made_with, dict):
        raise DataError(path, "holds no weights of vidreason", _FIX)
    state = task.state_dict()
    known = {name: _stored_name(name) for name in state}
    own = _training_only(task)
    weights = {name: stored[key] for name, key in known.items() if key in stored}
    weights |= {name: value for name, value in state.items() if name in own}
    weights |= {key: value for key, value in stored.items() if key not in known.values()}
    return {
        "state_dict": weights,
        "vidreason": made_with,
        "pytorch-lightning_version": made_with.get("pytorch-lightning", "2.6.6"),
    }


def write_weights(
    folder: Path,
    task: "nn.Module",
    made_with: Mapping[str, Any],
    config: str,
    card: Mapping[str, Any],
) -> None:
    """Writes a folder of weights; the card last, since a folder without a card is not complete.

    Args:
        folder: Output folder, created if missing.
        task: Task with the network `net` and its average `averaged`.
        made_with: Plain values by dotted option names, which loading compares.
        config: Text of `config.yaml`.
        card: Card without checksum, size and number of parameters.
    """
    from safetensors.torch import save

    state, own = task.state_dict(), _training_only(task)
    tensors = {
        _stored_name(name): value.contiguous()
        for name, value in state.items()
        if name not in own and (name.startswith(_AVERAGE) or not name.startswith("net."))
    }
    data = save(tensors, {"vidreason": json.dumps(dict(made_with), default=str)})
    net: nn.Module = task.net  # type: ignore[assignment]
    parameters = sum(p.numel() for p in net.parameters())
    card = {
        **card,
        "parameters": parameters,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with write_atomic(folder / MODEL) as temporary:
        temporary.write_bytes(data)
    texts = {CONFIG: config, README: _readme(card), CARD: json.dumps(card, indent=1)}
    for name, text in texts.items():
        with write_atomic(folder / name) as temporary:
            temporary.write_text(text.rstrip() + "\n", "utf-8")


def _readme(card: Mapping[str, Any]) -> str:
    """Returns the card as Markdown, with the header that the Hugging Face hub reads."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("vidreason"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown
    )
    return made.get_template("card.md").render(card=card)


def compare(card: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Compares measured metrics with those of a card.

    Args:
        card: Card of the weights.
        measured: `tested` of a task: the test data (`on`) and the `metrics`.

    Returns:
        Measured value and value of the card by metric; empty if the card has no such test data.

    Raises:
        DataError: If a metric differs by more than the rounding of another machine.
    """
    said = [figure["metrics"] for figure in card["figures"] if figure["on"] == measured["on"]]
    if not said:
        return {}
    pairs = {name: (measured["metrics"][name], value) for name, value in said[0].items()}
    for name, (found, value) in pairs.items():
        rtol = _TRACKS if name.startswith("position_error") else _ROUNDING
        if not math.isclose(found, value, rel_tol=rtol, abs_tol=2e-4):
            problem = f"{name} is {found:.4f}, the card says {value:.4f}"
            raise DataError(card["name"], problem, "check that the data are those of the card")
    return pairs


def _stored_name(name: str) -> str:
    """Returns the name of a tensor in the file, where the average takes the network's name."""
    return name.replace(_AVERAGE, "net.", 1) if name.startswith(_AVERAGE) else name


def _training_only(task: "nn.Module") -> set[str]:
    """Returns the names of the tensors that only training needs."""
    skipped: tuple[str, ...] = getattr(task.net, "training_only", ())
    names = {f"{prefix}{name}" for prefix in ("net.", _AVERAGE) for name in skipped}
    return {"averaged.n_averaged", *names}
