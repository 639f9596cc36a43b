"""`vidreason fit`, `validate`, `test` and `predict`: LightningCLI, one folder per run.

A run folder holds `config.yaml` (the resolved configuration), `run.json` (command, seed and
versions), `metrics.csv` (a row per epoch), the checkpoints `best`, `last` and `previous` (in case
`last` is damaged), and `tensorboard/`. An interrupted run, even by a power cut, resumes from its
last completed epoch bit-identically.
"""

import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse.typing import restricted_number_type
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import vidreason.decomposition.ball_data
import vidreason.decomposition.data
import vidreason.decomposition.networks
import vidreason.decomposition.task
import vidreason.intent.networks
import vidreason.intent.task
from vidreason.core.errors import DataError
from vidreason.runs.command_line import expand
from vidreason.runs.folder import (
    CheckpointFiles,
    RunFolder,
    check_free,
    checkpoint_path,
    newest_checkpoint,
)
from vidreason.runs.options import LINKS, Parser, named, refuse_linked
from vidreason.runs.weights import DEFAULT, MODEL, TRAINER_OPTIONS, compare, read_card

# Location of the data and number of workers change no result; `data.seed` is `seed_everything`.
_IRRELEVANT = ("data.root", "data.workers", "data.seed", "data.predict_split")
# Options that must be as in training even when a checkpoint is only applied.
_FIXED_WHEN_APPLIED = ("model.net", "data.features", "data.horizon", "data.mirror")
# Options that Lightning does not have.
_EXTRA_OPTIONS = ("run", "resume", "ckpt_path", "weights", "out")
_SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
_WARNINGS = (
    ".*does not have many workers",
    ".*smaller than the logging interval",
    ".*isinstance.treespec, LeafSpec.",
    ".*callbacks used to create the checkpoint",
    # Each process computes the metrics of all samples.
    ".*when logging on epoch level in distributed setting",
)


def main(argv: Sequence[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict`; wrong usage exits with 2.

    Args:
        argv: The command line from the verb on.

    Returns:
        Exit code 0.

    Raises:
        DataError: If data, checkpoint or an option cannot be used, or memory runs out.
    """
    _silence_lightning()
    try:
        _CLI(_expand(argv), shlex.join(["vidreason", *argv]))
    except MisconfigurationException as error:
        raise DataError("trainer", " ".join(str(error).split()), "correct the option") from error
    except ValueError as error:
        if (cause := _wrapped(error)) is None:
            raise
        raise _renamed(cause) from error
    except DataError as error:
        raise _renamed(error) from error
    except RuntimeError as error:
        if (fault := _environment(error)) is None:
            raise
        raise fault from error
    return 0


def _environment(error: RuntimeError) -> DataError | None:
    """Returns torch's errors about processes and memory as one line; None for others."""
    text = str(error)
    if "DataLoader worker" in text:
        fix = "set --data.workers 0, or free memory; --resume continues the run"
        return DataError("data.workers", "a data loading worker died", fix)
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text:
        return DataError("memory", "not enough", "lower data.batch_size or data.workers")
    return None


def _silence_lightning() -> None:
    """Silences Lightning's messages that users cannot act on."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _wrapped(error: BaseException | None) -> DataError | None:
    """Returns the `DataError` of a constructor, which jsonargparse wraps."""
    while error is not None and not isinstance(error, DataError):
        error = error.__cause__ or error.__context__
    return error


def _renamed(error: DataError) -> DataError:
    """Returns the error with the option that was given, not one that is linked to it."""
    if "is set by" in error.problem:  # setting the linked option is the error itself
        return error
    return DataError(named(error.source), error.problem, error.fix, error.place)


def _expand(argv: Sequence[str]) -> list[str]:
    """Resolves configurations, runs and weights, and refuses options that a link sets."""
    words = expand(argv)
    for word in words[1:]:
        refuse_linked(word.split("=")[0].removeprefix("--"))
    return words


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
            # Nothing is built from what a checkpoint says; it is only compared.
            load_from_checkpoint_support=False,
            save_config_callback=None,
            # Our samplers split the samples themselves, so that n processes equal one.
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
        """Returns the verbs without their own options, so that one configuration serves all."""
        more = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {verb: skip | more for verb, skip in LightningCLI.subcommands().items()}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        text = "Seed of all random numbers."
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
        text = "Run folder; short for -c RUN/config.yaml --trainer.default_root_dir RUN."
        parser.add_argument("--run", metavar="RUN", help=text)
        if subcommand == "fit":
            text = "Resume the run in its folder from the last completed epoch."
            parser.add_argument("--resume", action="store_true", help=text)
        else:
            text = f"Shipped weights ({DEFAULT} by default), a folder written by `vidreason export`"
            text += ", or a model on the Hugging Face hub."
            parser.add_argument("--weights", metavar="NAME", help=text)
            text = "Output folder of --weights; runs/NAME-shipped by default."
            parser.add_argument("--out", metavar="DIR", help=text)
            text = "Checkpoint: best or last of the run folder, or a file."
            parser.add_argument("--ckpt_path", default="best", metavar="CKPT", help=text)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # Lightning's own warns about sys.argv

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint choose which classes to import and build."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.options = {name: config.pop(name, None) for name in _EXTRA_OPTIONS}
        if not config.trainer.default_root_dir:
            fix = "give the run folder, such as runs/first"
            raise DataError("trainer.default_root_dir", "is not set", fix)
        self.folder = Path(config.trainer.default_root_dir)
        self.checkpoint: Path | None = None
        if self.subcommand != "fit":
            self.checkpoint = checkpoint_path(self.folder, self.options["ckpt_path"])
        elif self.options["resume"]:
            self.checkpoint = newest_checkpoint(self.folder)
        elif not getattr(rank_zero_only, "rank", 0):  # other ranks start after rank 0 has written
            check_free(self.folder)

    def instantiate_trainer(self, **_: Any) -> pl.Trainer:
        self._dump_config()
        parts = {name: self.config_dump[name] for name in ("seed_everything", "model", "data")}
        parts |= {f"trainer.{name}": self.config_dump["trainer"][name] for name in TRAINER_OPTIONS}
        self.made_with = {key: value for key, value in _flat(parts) if key not in _IRRELEVANT}
        fit = self.subcommand == "fit"
        fixed = {key for key in self.made_with if fit or key.startswith(_FIXED_WHEN_APPLIED)}
        config = dict(self._get(self.config_init, "trainer"))
        # Lightning's summary is a table with zeros, which is shown on demand only.
        self.brief = config["enable_model_summary"] is None
        config["enable_model_summary"] = bool(config["enable_model_summary"])
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
                raise DataError(f"trainer.{name}", f"is {config[name]}", "give 1 or more")
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
            problem = f"{trainer.world_size} processes, but a decomposition trains on one"
            raise DataError("trainer.devices", problem, "set it, and num_nodes, to 1")
        return trainer

    def fit(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        # Stop on bad data before Lightning starts, since its loggers write at once.
        datamodule.setup("fit")
        if self.brief:
            net = getattr(model, "net", model)
            count = sum(parameter.numel() for parameter in net.parameters())
            rank_zero_only(print)(
                f"training {type(net).__name__} ({count:,} parameters), run folder {self.folder}"
            )
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
    """Builds a run's classes and loads its weights, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        read = self.trainer.strategy.checkpoint_io.load_checkpoint(str(self.checkpoint))
        self.model.load_state_dict(read["state_dict"])


def run_test(argv: Sequence[str]) -> "_CLI":
    """Runs `test` with these options; the command's object has the task as `model`."""
    _silence_lightning()
    return _CLI(_expand(["test", *argv]), "")


def load_weights(name: Path | str) -> pl.LightningModule:
    """Loads the trained task of weights.

    Args:
        name: Shipped weights, a folder of weights, or a model on the Hugging Face hub.

    Returns:
        The task in evaluation mode.

    Raises:
        DataError: If the weights are not found or cannot be used.
    """
    return _loaded("--weights", str(name)).model.eval()


def load_run(folder: Path | str, checkpoint: str = "best") -> pl.LightningModule:
    """Loads the trained task of a run.

    Args:
        folder: Run folder.
        checkpoint: `best`, `last`, or the path of a file.

    Returns:
        The task in evaluation mode, such as a `DecomposeTask` with its methods `decompose` and
        `sample`.

    Raises:
        DataError: If the folder is not a run, or the checkpoint cannot be used.
    """
    return _loaded("--run", str(folder), "--ckpt_path", checkpoint).model.eval()


def load_with_data(
    source: Path | str, root: Path | None = None
) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Loads a trained task with its data module, which has not read anything yet.

    Args:
        source: Run folder, or weights as for `load_weights`.
        root: Dataset folder, if it has moved.

    Raises:
        DataError: If there are no such run or weights, or a checkpoint cannot be used.
    """
    run = Path(source, "checkpoints").is_dir()
    data = ["--data.root", str(root)] if root else []
    loaded = _loaded("--run" if run else "--weights", str(source), *data)
    return loaded.model.eval(), loaded.datamodule


def _loaded(*words: str) -> "_Loader":
    _silence_lightning()
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.logger=false")
    return _Loader(_expand(["validate", *words, *quiet]), "")


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names and plain values; the value of a class is its path."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "class_path" in value:
            yield name, value["class_path"]
            yield from _flat(value.get("init_args", {}), f"{name}.")
        else:
            yield name, value
