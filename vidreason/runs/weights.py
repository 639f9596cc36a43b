"""Trained weights to be passed on: tensors, configuration and card, nothing that could run.

A folder of weights holds `model.safetensors` (what is applied: the averaged weights, without the
state of training), `config.yaml` (model and data, as in training), `card.json` (what it was trained
with, and measured at) and `README.md` (the same to be read). A few come with the package.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.torch import load_file, save
from torch import nn

from vidreason.core.errors import DataError
from vidreason.core.files import sha256, write_atomic

MODEL, CONFIG, CARD, README = "model.safetensors", "config.yaml", "card.json", "README.md"
FILES = (MODEL, CONFIG, CARD, README)
DEFAULT = "jaad_all"
DEFAULT_VIDEO = "jaad_all_boxes"
_SHIPPED = Path(__file__).parents[1] / "pretrained"
_AVERAGE = "averaged.module."
_ROUNDING = 2e-3  # of a figure, on another kind of processor
_TRACKS = 0.15  # the few clips that are lost make up the mean, and a tie loses or saves one
_MEND = "get the folder of weights again, or make it with `vidreason export`"


def shipped() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def find_weights(name: str | Path) -> Path:
    """The folder of weights: one that comes with the package, of this machine, or of the hub.

    Args:
        name: Such as `jaad_all`, `exported/mine`, or `user/model` on the Hugging Face hub.

    Raises:
        DataError: There is none of that name, or it lacks a file.
    """
    if str(name) in shipped():
        return _SHIPPED / str(name)
    folder = Path(name)
    if not folder.is_dir():
        if str(name).count("/") != 1 or str(name).startswith((".", "/")):
            mend = f"give a folder of weights, or one of {', '.join(shipped())}"
            raise DataError("--weights", f"there is no {str(name)!r}", mend)
        from vidreason.runs.hub import download

        folder = download(str(name))
    for file in (MODEL, CONFIG, CARD):
        if not (folder / file).is_file():
            raise DataError(folder / file, "no such file", _MEND)
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder of weights.

    Raises:
        DataError: It is none.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _MEND) from None
    kinds = {"name": str, "task": str, "figures": list, "sha256": str}
    for key, kind in kinds.items():
        if not isinstance(card, dict) or not isinstance(card.get(key), kind):
            raise DataError(path, f"has no {key}", _MEND)
    return card


def read_weights(path: Path, task: nn.Module) -> dict[str, Any]:
    """What a checkpoint would hold; what only training needs is as `task` has it.

    Args:
        path: A `model.safetensors` beside its card.
        task: Whose weights they are to be.

    Raises:
        DataError: Damaged, or not ours.
    """
    if sha256(path) != read_card(path.parent)["sha256"]:
        raise DataError(path, "is not what its card describes (another checksum)", _MEND)
    try:
        with safetensors.safe_open(path, "pt") as file:
            made_with = json.loads((file.metadata() or {}).get("vidreason", "null"))
        stored = load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(path, f"cannot be read ({error})", _MEND) from None
    if not isinstance(made_with, dict):
        raise DataError(path, "holds no weights of vidreason", _MEND)
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
    task: nn.Module,
    made_with: Mapping[str, Any],
    config: str,
    card: Mapping[str, Any],
) -> None:
    """Writes the four files, the card last: without it a folder holds no weights.

    Args:
        folder: Made if need be.
        task: With `net` and its average `averaged`.
        made_with: Plain values by the dotted names of options, to be compared on loading.
        config: Text of `config.yaml`.
        card: All but the checksum and the number of parameters.
    """
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
    """The card in words, with the header that the Hugging Face hub reads."""
    made = Environment(
        loader=PackageLoader("vidreason"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown
    )
    return made.get_template("card.md").render(card=card)


def compare(card: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What was measured, and what the card says, by metric; empty if it was measured on other data.

    Args:
        card: Of the weights.
        measured: `tested` of a task: `on` says on what, `metrics` what was found.

    Raises:
        DataError: They differ by more than rounding does on another machine.
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
    """What a tensor of the task is called in the file: the average stands for the network."""
    return name.replace(_AVERAGE, "net.", 1) if name.startswith(_AVERAGE) else name


def _training_only(task: nn.Module) -> set[str]:
    """Names of what only training needs."""
    skipped: tuple[str, ...] = getattr(task.net, "training_only", ())
    names = {f"{prefix}{name}" for prefix in ("net.", _AVERAGE) for name in skipped}
    return {"averaged.n_averaged", *names}
