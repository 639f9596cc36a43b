"""`vidreason fit`, `validate`, `test` and `predict`, whose options Lightning declares.

Importing Lightning takes seconds. So their help is a page that ships with the package, written by
`tools/help_pages.py`, and wrong usage that can be recognized without the options' classes is
reported first, with a suggestion.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vidreason.commands.options import nearest, refuse

VERBS = ("fit", "validate", "test", "predict")

_GROUPS = ("--model", "--data", "--trainer")  # the live parser knows their options
_OPTIONS = {"-c", "--config", "--run", "--seed_everything", "--print_config", *_GROUPS}
_APPLY = {"--weights", "--out", "--ckpt_path"}  # of all verbs but `fit`
_FLAGS = ("--resume", "--print_config")  # options without a value
_CLASSES = {"--model.help": "IntentTask", "--data.help": "IntentData"}
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# Names that other programs have for our options, without dashes and underscores.
_ALIASES = {
    "epochs": "--trainer.max_epochs",
    "nepochs": "--trainer.max_epochs",
    "epoch": "--trainer.max_epochs",
    "steps": "--trainer.max_steps",
    "learningrate": "--model.lr",
    "bs": "--data.batch_size",
    "batch": "--data.batch_size",
    "seed": "--seed_everything",
    "randomseed": "--seed_everything",
    "gpu": "--trainer.devices",
    "gpus": "--trainer.devices",
    "ngpus": "--trainer.devices",
    "device": "--trainer.accelerator",
    "cpu": "--trainer.accelerator",
    "cuda": "--trainer.accelerator",
    "fp16": "--trainer.precision",
    "amp": "--trainer.precision",
    "gradclip": "--trainer.gradient_clip_val",
    "dataroot": "--data.root",
    "datadir": "--data.root",
    "datapath": "--data.root",
    "dataset": "--data.dataset",
    "numworkers": "--data.workers",
    "split": "--data.predict_split",
    "out": "--trainer.default_root_dir",
    "output": "--trainer.default_root_dir",
    "outputdir": "--trainer.default_root_dir",
    "outdir": "--trainer.default_root_dir",
    "savedir": "--trainer.default_root_dir",
    "logdir": "--trainer.default_root_dir",
    "net": "--model.net",
    "network": "--model.net",
    "conf": "--config",
    "cfg": "--config",
    "checkpoint": "--ckpt_path",
    "ckpt": "--ckpt_path",
    "continue": "--resume",
    "pretrained": "--weights",
}


def run(argv: Sequence[str]) -> int:
    """Runs a command line from the verb on.

    Returns:
        Exit code.

    Raises:
        DataError: If data, checkpoint or an option cannot be used.
        SystemExit: If options are missing or unknown.
    """
    verb, *words = argv
    if {"-h", "--help"} & set(words):
        print(_page(verb), end="")
        return 0
    if "--help-all" in words:
        words = ["--help"]
    else:
        _check(verb, words)
        if any(word.startswith("--model.net.help") for word in words):
            words = ["--model", "IntentTask", *words]  # otherwise the parser does not know `net`
        importlib.import_module("vidreason.runs.command_line").expand([verb, *words])
    return importlib.import_module("vidreason.runs.train").main([verb, *words]) or 0


def _check(verb: str, words: Sequence[str]) -> None:
    """Exits with a suggestion if words are missing or unknown."""
    given = dict(_options(verb, words))
    known = _OPTIONS | ({"--resume"} if verb == "fit" else _APPLY)
    for option, value in given.items():
        group, _, name = option.rstrip("+").partition(".")
        meant = _ALIASES.get(_plain(name), "")
        if group not in known or (meant != option and meant.startswith(f"{group}.")):
            _refuse_option(verb, option)
        optional = option in _FLAGS or option.endswith(".help") and option not in _CLASSES
        if value is None and not optional:
            _refuse_empty(verb, option)
    if verb != "fit":
        return
    if given.keys() & {"-c", "--config", "--run"} or {"--model", "--data"} <= given.keys():
        return
    if "--resume" in given:
        refuse(
            "--resume", "no run given", "add its folder, as in `vidreason fit --run RUN --resume`"
        )
    if not any(option.endswith(".help") for option in given):
        fix = "give one, as in `vidreason fit -c jaad_beh`; `vidreason configs` lists them"
        refuse("-c", "no configuration given", fix)


def _options(verb: str, words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yields options and their values; exits if a word is neither."""
    waiting = list(words)
    while waiting:
        option, equals, value = waiting.pop(0).partition("=")
        if not option.startswith("-"):
            _refuse_word(verb, option)
        if equals:
            yield option, value
        elif option not in _FLAGS and waiting and not waiting[0].startswith("--"):
            yield option, waiting.pop(0)
        else:
            yield option, None


def _refuse_empty(verb: str, option: str) -> None:
    """Exits because an option has no value."""
    fix = _see(verb)
    if option in _CLASSES:
        fix = f"give a class, as in `{option} {_CLASSES[option]}`"
    refuse(option, "its value is missing", fix)


def _refuse_word(verb: str, word: str) -> None:
    """Exits with the option that a word without one seems to belong to."""
    option = ""
    if verb == "predict" and word.lower().endswith(_VIDEOS):
        option = "--video"
    elif Path(word, "config.yaml").is_file():
        option = "--weights" if Path(word, "card.json").is_file() else "--run"
    elif verb != "fit" and word in importlib.import_module("vidreason.runs.weights").shipped():
        option = "--weights"
    elif verb == "fit":
        configs = importlib.import_module("vidreason.runs.configs").shipped()
        if Path(word).suffix in (".yaml", ".yml") or word in configs:
            option = "-c"
    fix = f"did you mean `vidreason {verb} {option} {word}`?" if option else _see(verb)
    refuse(word, f"not an option of `vidreason {verb}`", fix)


def _refuse_option(verb: str, option: str) -> None:
    """Exits with the option that an unknown one seems to mean."""
    known = re.findall(r"^  (?:-c, )?(--[\w.]+)", _page(verb) + _page("fit"), re.MULTILINE)
    if verb != "fit":
        known.remove("--resume")
    # The last part of a name is what users remember.
    short = {_plain(name.rpartition(".")[2]): name for name in reversed(known)}
    short |= {word: name for word, name in _ALIASES.items() if name in known}
    near = nearest(_plain(option.rpartition(".")[2]), short)
    fix = f"did you mean {short[near]}?" if near else _see(verb)
    refuse(option, f"no such option of `vidreason {verb}`", fix)


def _page(verb: str) -> str:
    return (Path(__file__).parents[1] / "help" / f"{verb}.txt").read_text("utf-8")


def _plain(option: str) -> str:
    return re.sub("[-_]", "", option).lower()


def _see(verb: str) -> str:
    return f"see `vidreason {verb} --help`"
