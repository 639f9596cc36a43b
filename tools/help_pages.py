"""Writes the help pages of `fit`, `validate`, `test` and `predict` that ship with the package.

    python tools/help_pages.py

Lightning declares these options, and importing it takes seconds; the pages print at once. They are
built from the live parser and the docstrings of tasks and data modules, so run this after changing
either.
"""

import inspect
import textwrap
from argparse import Action
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from vidreason.decomposition.ball_data import BallsData
from vidreason.decomposition.data import MovingMNISTData
from vidreason.decomposition.networks import DDPAE, EquivariantDDPAE
from vidreason.decomposition.task import DecomposeTask
from vidreason.intent.data import IntentData
from vidreason.intent.networks import IntentGraphNet, StipNet
from vidreason.intent.task import IntentTask
from vidreason.runs.options import LINKS
from vidreason.runs.train import _CLI

FOLDER = Path(__file__).parents[1] / "vidreason" / "help"
WIDTH, INDENT = 100, 32
NETWORKS = (IntentGraphNet, StipNet, DDPAE, EquivariantDDPAE)
TASKS = (IntentTask, DecomposeTask)
DATA = (IntentData, MovingMNISTData, BallsData)
HEAD = {
    "fit": """\
usage: vidreason fit -c CONFIG [options]
       vidreason fit --run RUN --resume

Trains a model and writes a run folder: the resolved configuration, versions, metrics per epoch and
checkpoints.

examples:
  vidreason fit -c jaad_beh --data.root data/jaad
  vidreason fit -c jaad_beh --seed_everything 1 \\
      --model.lr 1e-3 --trainer.default_root_dir runs/lower_lr
  vidreason fit -c moving_mnist --data.root data/mnist
  vidreason fit -c jaad_beh --data.batch_size 64 \\
      --trainer.accelerator cpu --trainer.strategy ddp --trainer.devices 2
  vidreason fit -c mine.yaml
  vidreason fit --run runs/jaad_beh --resume

`vidreason configs` lists the shipped configurations and prints them: a changed copy is a
custom configuration. With VIDREASON_DATA=data in the environment, `--data.root data/jaad` can be
omitted.""",
    "validate": """\
usage: vidreason validate --run RUN [options]
       vidreason validate --weights NAME [options]

Measures a checkpoint on the validation split.

examples:
  vidreason validate --run runs/jaad_beh
  vidreason validate --run runs/jaad_beh --ckpt_path last
  vidreason validate --weights jaad_all""",
    "test": """\
usage: vidreason test --run RUN [options]
       vidreason test --weights NAME [options]

Measures a checkpoint on the test split. For a decomposition, the metrics are also written to
RUN/test.json. For weights, they are compared with their card. `vidreason evaluate` gives an intent
model's metrics with confidence intervals and baselines.

examples:
  vidreason test --weights jaad_all
  vidreason test --weights moving_mnist
  vidreason test --run runs/jaad_beh
  vidreason test --run runs/moving_mnist --data.test_clips 1000""",
    "predict": """\
usage: vidreason predict --run RUN [options]
       vidreason predict --weights NAME [--out DIR] [options]
       vidreason predict --video FILE          (see `vidreason predict --video --help`)

Writes a checkpoint's predictions. Intent: predictions.parquet, a probability per window and
predicted frame. Decomposition: tracks.parquet, the position of each component in each frame, and
filmstrips. They go to the run folder, or for weights to runs/NAME-shipped.

examples:
  vidreason predict --data.root data/jaad
  vidreason predict --weights moving_mnist --out digits
  vidreason predict --video drive.mp4 --out drive
  vidreason predict --run runs/jaad_beh
  vidreason predict --run runs/moving_mnist --data.test_clips 100
  vidreason predict --run runs/jaad_beh --data.predict_split val""",
}
TRAINER = {
    "default_root_dir": "Run folder to write.",
    "max_epochs": "Number of epochs.",
    "max_steps": "Number of training steps, if fewer.",
    "max_time": "Training time, DD:HH:MM:SS.",
    "accelerator": "cpu, gpu, mps or auto.",
    "devices": "Number of processes or GPUs.",
    "strategy": "ddp with several devices. An intent model trains as on one device with the sum of "
    "the batches, up to rounding; a decomposition trains on one device.",
    "precision": "32-true, 16-mixed, bf16-mixed or 64-true.",
    "gradient_clip_val": "Maximum norm of the gradient.",
    "accumulate_grad_batches": "Batches per training step.",
    "limit_train_batches": "Training batches per epoch, as a number or fraction, for a trial.",
    "fast_dev_run": "Run one batch of training and validation, and write nothing.",
    "enable_progress_bar": "Show a progress bar; true by default.",
    "enable_model_summary": "Show a table of the network's layers; false by default.",
}
APPLIED_TRAINER = ("accelerator", "devices", "precision", "enable_progress_bar")
APPLIED = ("root", "store", "batch_size", "workers", "predict_split", "test_clips", "source")


def actions(cls: type, key: str) -> dict[str, Action]:
    """Returns the options of a class by name, without those that others set."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(cls, key)
    return {
        action.dest.removeprefix(f"{key}."): action
        for action in parser._actions
        if action.dest.startswith(f"{key}.") and action.dest not in LINKS
        if not action.dest.endswith(".help")
    }


def kind(action: Action) -> str:
    """Returns what an option takes, in a word."""
    hint = getattr(action, "_typehint", action.type)
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if inspect.isclass(hint) and issubclass(hint, nn.Module):
        return "CLASS"
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    names = {float: "FLOAT", int: "INT", bool: "{true,false}", str: "TEXT"}
    known = [names[part] for part in names if part in (hint, *get_args(hint))]
    several = isinstance(action.default, tuple) or str(hint).startswith("collections.abc.Sequence")
    return "LIST" if several else (known or ["VALUE"])[0]


def line(option: str, text: str) -> str:
    """Returns an option and its explanation as wrapped lines."""
    head = f"  {option}"
    if len(head) + 2 <= INDENT:
        first, head = f"{head:{INDENT}}", ""
    else:
        first, head = " " * INDENT, f"{head}\n"
    return head + textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * INDENT, break_on_hyphens=False
    )


def described(key: str, name: str, action: Action, text: str = "") -> str:
    """Returns the lines of an option, with the text of its docstring unless another is given."""
    text = text or " ".join((action.help or "").split())
    default = action.default
    shown = default if isinstance(default, str) else str(default).lower()
    if isinstance(default, list | tuple):
        shown = f"[{', '.join(map(str, default))}]"
    if default not in (None, "") and not str(default).startswith("==") and shown != "unset":
        text += f" (default {shown})"
    return line(f"--{key}.{name} {kind(action)}", text)


def section(title: str, lines: Iterable[str]) -> str:
    """Returns a titled block of lines."""
    return "\n".join([f"{title}:", *lines])


class _Built(Exception):
    """Carries the parser out of Lightning's command line."""


class _Parsers(_CLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        raise _Built(parser)


def own_options(verb: str) -> list[str]:
    """Returns the lines of the options that belong to no class."""
    try:
        _Parsers([verb], "")
    except _Built as built:
        parser = built.args[0]._subcommands_action.choices[verb]
    text = "Shipped configuration by name, or a YAML file. Later files and options take precedence."
    found = [line("-c, --config CONFIG", text)] if verb == "fit" else []
    named = {action.dest: action for action in parser._actions}
    for name in ("run", "resume", "weights", "ckpt_path", "out", "seed_everything"):
        if name in named and (verb == "fit" or name != "seed_everything"):
            action = named[name]
            option = f"--{name} {action.metavar or 'INT'}" if name != "resume" else "--resume"
            default = f" (default {action.default})" if action.default is not None else ""
            default = "" if name == "resume" else default
            found.append(line(option, f"{action.help}{default}"))
    text = "Print the resolved configuration and exit."
    return [*found, line("--print_config", text), line("-h, --help", "Print this page and exit.")]


def page(verb: str) -> str:
    """Returns the help page of a verb."""
    trainer = actions(pl.Trainer, "trainer")
    trainer["devices"].default = 1  # ours
    chosen = TRAINER if verb == "fit" else APPLIED_TRAINER
    lines = [described("trainer", name, trainer[name], TRAINER[name]) for name in chosen]
    parts = [HEAD[verb], section("options", own_options(verb)), section("trainer", lines)]
    if verb == "fit":
        names = [cls.__name__ for cls in NETWORKS]
        for cls in TASKS:
            options = actions(cls, "model")
            lines = [described("model", n, a) for n, a in options.items() if n != "net"]
            parts.append(section(f"model ({cls.__name__})", lines))
        text = f"{', '.join(names)}; `--model.net.help CLASS` explains its options."
        parts.append(section("network", [line("--model.net CLASS", text)]))
        for cls in DATA:
            lines = [described("data", n, a) for n, a in actions(cls, "data").items()]
            parts.append(section(f"data ({cls.__name__})", lines))
    else:
        seen: dict[str, str] = {}
        for cls in DATA:
            for name, action in actions(cls, "data").items():
                if name in APPLIED and (name != "predict_split" or verb == "predict"):
                    seen.setdefault(name, described("data", name, action))
        parts.append(section("data", seen.values()))
    more = {"--help-all": "every option of the trainer"}
    more |= {f"--model.help {c.__name__}": "every option of a task" for c in TASKS}
    more |= {f"--data.help {c.__name__}": "every option of a data module" for c in DATA}
    lines = [f"  vidreason {verb} {k:{INDENT}}{v}" for k, v in more.items()]
    parts.append(section("more", lines))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Writes all pages."""
    FOLDER.mkdir(exist_ok=True)
    for verb in HEAD:
        (FOLDER / f"{verb}.txt").write_text(page(verb), "utf-8")


if __name__ == "__main__":
    main()
