"""`vidreason fit`, `validate`, `test` and `predict`: LightningCLI, one folder per run.

A run folder holds `config.yaml` (everything that was set), `run.json` (with what), `metrics.csv`
(a row per epoch), the checkpoints `best`, `last` and `previous` (the one before `last`, should that
be damaged), and `tensorboard/`. A run that was stopped, even by a power cut, continues from its
last complete epoch as if nothing had happened.
"""

import argparse
import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse.typing import restricted_number_type
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import vidreason.decomposition.ball_data
import vidreason.decomposition.data
import vidreason.decomposition.task
import vidreason.intent.task
from vidreason.core.errors import DataError
from vidreason.runs.options import LINKS, Parser, named, refuse_linked
from vidreason.runs.folder import (
    CheckpointFiles,
    RunFolder,
    check_free,
    checkpoint_path,
    newest_checkpoint,
)
from vidreason.runs.weights import CONFIG, DEFAULT, MODEL, compare, find_weights, read_card

# Where the data lies and who loads it changes no result; `data.seed` is `seed_everything`.
_FREE = ("data.root", "data.workers", "data.seed", "data.predict_split")
# What of the trainer does. The schedule of the learning rate ends with the last epoch.
_TRAINER = ("max_epochs", "max_steps", "gradient_clip_val", "accumulate_grad_batches", "precision")
# What must be as in training even when a checkpoint is only applied.
_SEEN = ("model.net", "data.features", "data.horizon", "data.mirror")
_USAGE = {
    "fit": """vidreason fit -c CONFIG.yaml [options]

Trains a model. The run's folder (trainer.default_root_dir) gets the resolved config, versions,
metrics per epoch and checkpoints.

examples:
  vidreason fit -c configs/intent/jaad_beh.yaml --data.root data/jaad
  vidreason fit -c configs/intent/jaad_beh.yaml --seed_everything 1 \\
      --model.lr 1e-3 --trainer.default_root_dir runs/lower_lr
  vidreason fit -c configs/decomposition/moving_mnist.yaml --data.root data/mnist
  vidreason fit -c configs/intent/jaad_beh.yaml --data.batch_size 64 \\
      --trainer.accelerator cpu --trainer.strategy ddp --trainer.devices 2
  vidreason fit --run runs/jaad_beh --resume          goes on after the last full epoch
  vidreason fit --model.help IntentTask               explains a class and its options""",
    "validate": """vidreason validate --run RUN [options]

Measures a checkpoint on the validation split.

examples:
  vidreason validate --run runs/jaad_beh
  vidreason validate --run runs/jaad_beh --ckpt_path last
  vidreason validate --weights jaad_all""",
    "test": """vidreason test --run RUN [options]

Measures a checkpoint on the test split. Of intent, `vidreason evaluate` says more, with intervals;
of decomposition, the scores also go to RUN/test.json. What was measured of weights is held to their
card.

examples:
  vidreason test --weights jaad_all
  vidreason test --weights moving_mnist
  vidreason test --run runs/jaad_beh
  vidreason test --run runs/moving_mnist --data.test_clips 1000""",
    "predict": """vidreason predict --run RUN [options]

Of intent, writes RUN/predictions.parquet: a probability for each window and predicted frame.
Of decomposition, RUN/tracks.parquet: where each component is in each frame; and filmstrips.
Without a run, with the weights that come with the package, into runs/NAME-shipped. Of a video file:
see `vidreason predict --video --help`.

examples:
  vidreason predict --data.root data/jaad
  vidreason predict --weights moving_mnist --out digits
  vidreason predict --video drive.mp4 --out drive
  vidreason predict --run runs/jaad_beh
  vidreason predict --run runs/moving_mnist --data.test_clips 100
  vidreason predict --run runs/jaad_beh --data.predict_split val""",
}
_OWN = ("run", "resume", "ckpt_path", "weights", "out")  # options that Lightning does not know
_SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
_WARNINGS = (
    ".*does not have many workers",
    ".*smaller than the logging interval",
    ".*isinstance.treespec, LeafSpec.",
    ".*callbacks used to create the checkpoint",
    ".*when logging on epoch level in distributed setting",  # each process judges everything
)


def main(argv: Sequence[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict`; wrong usage exits with 2.

    Args:
        argv: The command line from the verb on.

    Returns:
        0, done.

    Raises:
        DataError: Data, checkpoint or option that cannot be used; too little memory.
    """
    _calm()
    try:
        _CLI(_expand(list(argv)), shlex.join(["vidreason", *argv]))
    except MisconfigurationException as error:
        raise DataError("trainer", " ".join(str(error).split()), "correct the option") from error
    except ValueError as error:
        if (cause := _wrapped(error)) is None:
            raise
        raise _renamed(cause) from error
    except DataError as error:
        raise _renamed(error) from error
    except RuntimeError as error:
        if (fault := _surroundings(error)) is None:
            raise
        raise fault from error
    return 0


def _surroundings(error: RuntimeError) -> DataError | None:
    """What torch says of processes and memory, if it is that."""
    text = str(error)
    if "DataLoader worker" in text:
        mend = "set --data.workers 0, or free memory; --resume goes on with a run"
        return DataError("data.workers", "a process that loads data died", mend)
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text:
        return DataError("memory", "there is not enough", "lower data.batch_size or data.workers")
    return None


def _calm() -> None:
    """Leaves out what Lightning says that nobody can act on."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _wrapped(error: BaseException | None) -> DataError | None:
    """The `DataError` of a constructor, which jsonargparse wraps."""
    while error is not None and not isinstance(error, DataError):
        error = error.__cause__ or error.__context__
    return error


def _renamed(error: DataError) -> DataError:
    """The error with the name of the option that was given, not of one that follows from it."""
    if "follows from" in error.problem:  # it was given, which is the error
        return error
    return DataError(named(error.source), error.problem, error.mend, error.place)


def _expand(argv: list[str]) -> list[str]:
    """Writes out `--run` and `--weights`, and refuses what is set by a link."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", nargs="?", const="", default=None)
    if argv[0] != "fit":
        parser.add_argument("--weights", nargs="?", const="", default=None)
        parser.add_argument("--out", default=None)
    known, rest = parser.parse_known_args(argv[1:])
    for argument in rest:
        refuse_linked(argument.split("=")[0].removeprefix("--"))
    names = {argument.split("=")[0] for argument in rest}
    if argv[0] != "fit" and known.run is None:
        weights = known.weights
        if weights is None and not names & {"-c", "--config", "-h", "--help", "--print_config"}:
            weights = DEFAULT
        if weights is not None:
            folder = find_weights(weights)
            out = known.out or f"runs/{folder.name}-shipped"
            options = ["-c", str(folder / CONFIG), "--trainer.default_root_dir", out]
            return [argv[0], *options, "--ckpt_path", str(folder / MODEL), *rest]
    if known.run is None:
        for word, value in zip(rest, [*rest[1:], ""], strict=True):
            name, _, inline = word.partition("=")
            if name in ("-c", "--config"):
                _check_yaml(Path(inline or value))
        return argv
    if argv[0] != "fit" and (known.weights is not None or known.out):
        raise DataError("--run", "with --weights or --out", "give one: a run has its own folder")
    config = Path(known.run) / "config.yaml"
    if not known.run or not config.is_file():
        raise DataError("--run", f"{known.run!r} has no config.yaml", "give the folder of a run")
    _check_yaml(config)
    return [argv[0], "-c", str(config), "--trainer.default_root_dir", known.run, *rest]


def _check_yaml(path: Path) -> None:
    """Names file and line of what is no YAML; jsonargparse would not say in which file it is."""
    if not path.is_file():
        return
    mend = "correct it, or take one of configs"
    try:
        read = yaml.compose(path.read_text("utf-8"), yaml.SafeLoader)
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8", mend) from None
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(path, f"is no YAML ({error.problem})", mend, place) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(path, f"is no YAML ({' '.join(str(error).split())})", mend) from None
    if not isinstance(read, yaml.MappingNode):
        raise DataError(path, "has no options, such as `model:`", mend)


class _CLI(LightningCLI):
    def __init__(self, argv: list[str], command: str) -> None:
        self.command = command
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            args=argv,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            # Checkpoints name the model for comparison only; nothing is built from what they say.
            load_from_checkpoint_support=False,
            save_config_callback=None,
            # Samplers share out the samples themselves, so that n processes learn as one would.
            trainer_defaults={
                "deterministic": "warn",
                "devices": 1,
                "use_distributed_sampler": False,
            },
            parser_class=Parser,
            parser_kwargs={"prog": "vidreason", "allow_abbrev": False},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Options that depend on the verb are left out: one configuration serves all verbs."""
        more = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {verb: skip | more for verb, skip in LightningCLI.subcommands().items()}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        text = "of everything that is drawn at random"
        parser.add_argument("--seed_everything", type=_SEED, default=0, help=text)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for target, (given, function) in LINKS.items():
            sources = (given,) if isinstance(given, str) else given
            parser.link_arguments(
                tuple(source.replace(".", ".init_args.") for source in sources),
                target.replace(".", ".init_args."),
                function,
            )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.usage = _USAGE[subcommand]
        text = "-c RUN/config.yaml --trainer.default_root_dir RUN"
        parser.add_argument("--run", metavar="RUN", help=f"short for {text}")
        if subcommand == "fit":
            text = "continue the run in its folder after the last full epoch"
            parser.add_argument("--resume", action="store_true", help=text)
        else:
            text = "weights that come with the package, a folder of `vidreason export`, or a model"
            parser.add_argument("--weights", metavar="NAME", help=f"{text} of the hub ({DEFAULT})")
            parser.add_argument("--out", metavar="DIR", help="for results of --weights")
            text = "best or last of the run folder, or a file"
            parser.add_argument("--ckpt_path", default="best", metavar="CKPT", help=text)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # Lightning's own warns about sys.argv

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint choose which classes to import and build."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.options = {name: config.pop(name, None) for name in _OWN}
        if not config.trainer.default_root_dir:
            mend = "give the folder of the run, such as runs/first"
            raise DataError("trainer.default_root_dir", "is not set", mend)
        self.folder = Path(config.trainer.default_root_dir)
        self.checkpoint: Path | None = None
        if self.subcommand != "fit":
            self.checkpoint = checkpoint_path(self.folder, self.options["ckpt_path"])
        elif self.options["resume"]:
            self.checkpoint = newest_checkpoint(self.folder)
        elif not getattr(rank_zero_only, "rank", 0):  # the first process has begun when others come
            check_free(self.folder)

    def instantiate_trainer(self, **_: Any) -> pl.Trainer:
        self._dump_config()
        parts = {name: self.config_dump[name] for name in ("seed_everything", "model", "data")}
        parts |= {f"trainer.{name}": self.config_dump["trainer"][name] for name in _TRAINER}
        self.made_with = {key: value for key, value in _flat(parts) if key not in _FREE}
        fit = self.subcommand == "fit"
        fixed = {key for key in self.made_with if fit or key.startswith(_SEEN)}
        config = dict(self._get(self.config_init, "trainer"))
        given = config["plugins"] or []
        config["plugins"] = [
            CheckpointFiles(self.model, self.made_with, fixed),
            *(given if isinstance(given, list) else [given]),
        ]
        if config["logger"] is None:
            config["logger"] = (
                TensorBoardLogger(self.folder, name="tensorboard", version="") if fit else False
            )
        callbacks: list[pl.Callback] = (
            [] if config["enable_progress_bar"] is False else [RichProgressBar()]
        )
        for name in ("check_val_every_n_epoch", "num_nodes"):
            if config[name] is not None and config[name] < 1:
                raise DataError(f"trainer.{name}", f"is {config[name]}", "expected 1 or more")
        if fit and not config["fast_dev_run"]:
            text = self._parser("fit").dump(self.config["fit"], skip_unset=False)
            seed = self.made_with["seed_everything"]
            callbacks.append(RunFolder(self.folder, text, self.command, seed))
        try:
            trainer = self._instantiate_trainer(config, callbacks)
        except MisconfigurationException:
            raise
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            raise DataError(
                "trainer", " ".join(str(error).split()), "correct the option"
            ) from error
        if (
            fit
            and trainer.world_size > 1
            and isinstance(self.model, vidreason.decomposition.task.DecomposeTask)
        ):
            problem = f"{trainer.world_size} processes, and a decomposition is learned by one"
            raise DataError("trainer.devices", problem, "set it, and num_nodes, to 1")
        return trainer

    def fit(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        # Bad data end here: once Lightning starts, its loggers write.
        datamodule.setup("fit")
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=self.checkpoint)

    def validate(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.checkpoint)

    def test(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self.checkpoint)
        if self.checkpoint and self.checkpoint.name == MODEL:
            tested: dict[str, Any] = model.tested  # type: ignore[assignment]
            card = read_card(self.checkpoint.parent)
            pairs = compare(card, tested)
            for name, (found, said) in pairs.items():
                print(f"{name.replace('_', ' ')}: {found:.4f}, card {said:.4f}")
            word = "agrees with" if pairs else f"measured on {tested['on']}, which is not on"
            print(f"{card['name']} {word} its card")

    def predict(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        batches = self.trainer.predict(model, datamodule=datamodule, ckpt_path=self.checkpoint)
        write: Callable[..., Path] = model.write_predictions  # type: ignore[assignment]
        print(write(self.folder, batches, datamodule, self.made_with))


class _Loader(_CLI):
    """Builds a run's classes and stops there."""

    def _run_subcommand(self, subcommand: str) -> None:
        read = self.trainer.strategy.checkpoint_io.load_checkpoint(str(self.checkpoint))
        self.model.load_state_dict(read["state_dict"])


def measured(argv: Sequence[str]) -> "_CLI":
    """The command line `test` with these options, when it is done."""
    _calm()
    return _CLI(_expand(["test", *argv]), "")


def load_weights(name: Path | str) -> pl.LightningModule:
    """A trained task, to be applied from Python.

    Args:
        name: Of weights that come with the package, a folder of them, or a model on the hub.

    Raises:
        DataError: There are none of that name, or they cannot be used.
    """
    return _loaded("--weights", str(name)).model.eval()


def load_run(folder: Path | str, checkpoint: str = "best") -> pl.LightningModule:
    """The trained task of a run, to be applied from Python.

    Args:
        folder: Of the run.
        checkpoint: `best`, `last`, or a file.

    Returns:
        The task with its weights, in evaluation mode; `DecomposeTask.decompose` and `.sample`.

    Raises:
        DataError: No run, or a checkpoint that cannot be used.
    """
    return _loaded("--run", str(folder), "--ckpt_path", checkpoint).model.eval()


def load_with_data(
    source: Path | str, root: Path | None = None
) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """A trained task with its data, which nobody has read yet.

    Args:
        source: Folder of a run, or weights as for `load_weights`.
        root: Of the dataset, if not where it was.

    Raises:
        DataError: No run or weights, or a checkpoint that cannot be used.
    """
    run = Path(source, "checkpoints").is_dir()
    data = ["--data.root", str(root)] if root else []
    loaded = _loaded("--run" if run else "--weights", str(source), *data)
    return loaded.model.eval(), loaded.datamodule


def _loaded(*words: str) -> "_Loader":
    _calm()
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.logger=false")
    return _Loader(_expand(["validate", *words, *quiet]), "")


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values; a class is the value of its own name."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "class_path" in value:
            yield name, value["class_path"]
            yield from _flat(value.get("init_args", {}), f"{name}.")
        else:
            yield name, value
