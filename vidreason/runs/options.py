"""Options of training: which classes and keys are accepted, and one line for what is not."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pytorch_lightning as pl
import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from vidreason.core.errors import DataError
from vidreason.intent.windows import OBSERVED
from vidreason.runs.moved import current

ALLOWED = ("vidreason", "pytorch_lightning", "lightning", "torch.optim", "torch.nn")
"""Packages whose classes configurations and the command line may name."""


def _coming(length: int, seen: int) -> int:
    """Returns the number of frames to predict."""
    if seen >= length:
        problem = f"{seen} of the {length} frames of a clip"
        raise DataError("model.input_frames", problem, "leave at least one frame to predict")
    return length - seen


def _observed(protocol: str, observed: int) -> int:
    return observed or OBSERVED[protocol]


LINKS: dict[str, tuple[str | tuple[str, ...], Any]] = {
    "data.seed": ("seed_everything", int),
    "model.protocol": ("data.protocol", None),
    "model.horizon": ("data.horizon", None),
    "model.folds": ("data.folds", None),
    "model.net.features": ("data.features", None),
    "model.net.observed": (("data.protocol", "data.observed"), _observed),
    "model.net.image_features": ("data.image_features", None),
    "model.net.horizon": ("data.horizon", None),
    "model.net.size": ("data.size", None),
    "model.net.channels": ("data.channels", None),
    "model.net.t_in": ("model.input_frames", None),
    "model.net.t_out": (("data.length", "model.input_frames"), _coming),
}
"""Options that are set by others, by a function or as they are; names without `init_args`."""


def named(source: str) -> str:
    """Returns the option that sets a linked option, and other options as they are."""
    if source not in LINKS:
        return source
    given = LINKS[source][0]
    return " and ".join([given] if isinstance(given, str) else given)


_BASES = (pl.LightningModule, pl.LightningDataModule, nn.Module)
_HELP = "see `vidreason fit --help`"
# The error of a union has an error for each member; these lines of it carry no information.
_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|- Expected a (<class 'NoneType'>|path but)"
)
_yaml = get_loader("yaml")


def refuse_linked(key: str) -> None:
    """Refuses an option that a link would overwrite silently.

    Raises:
        DataError: If `key` is in `LINKS`.
    """
    if link := LINKS.get(key.replace("init_args.", "")):
        sources = [link[0]] if isinstance(link[0], str) else link[0]
        raise DataError(key, f"is set by {' and '.join(sources)}", "remove it")


def _load_yaml(text: str) -> Any:
    """Loads YAML; refuses aliases, duplicate keys, and keys that a link sets."""
    nodes: list[tuple[str, yaml.Node | None]] = [("", yaml.compose(text, yaml.SafeLoader))]
    known = set()
    for path, node in nodes:  # grows while it is read
        if id(node) in known:
            # A few nested aliases expand to gigabytes, and one that contains itself never ends.
            raise DataError(path.removesuffix("."), "is a YAML alias", "write the value out")
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += [(path, item) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                name = f"{path}{key.value}"
                if name in names:
                    place = f"line {key.start_mark.line + 1}"
                    raise DataError(name, "is given twice", "keep one", place)
                names.add(name)
                refuse_linked(name)
                nodes.append((f"{name}.", value))
    try:
        return current(_yaml(text))
    except (TypeError, ValueError, RecursionError) as error:
        # Invalid dates and numbers, and unhashable keys.
        raise yaml.YAMLError(str(error)) from None


set_loader("yaml", _load_yaml, exceptions=(yaml.YAMLError,))
# By default jsonargparse imports any class that a value names, and Lightning lets it read
# configurations from any address.
set_parsing_settings(
    config_read_mode_fsspec_enabled=False,
    import_path_denylist=["*"],
    import_path_allowlist=list(ALLOWED),
)


class Parser(LightningArgumentParser):
    """Reports an error in one line: key, value, what was expected, and the nearest name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exits with code 2, unless the parser is called by another one."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {DataError(*self._explain(message))}\n")

    def _explain(self, message: str) -> tuple[str, str, str]:
        """Returns key, problem and fix; the last informative line of the message has them."""
        if found := re.search(
            r"of link .* failed: ([\w.]+): (.+?); (.+?)(; see |$)", message, re.S
        ):
            return found[1], found[2], found[3]
        key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
        classes = re.findall(r"class_path '([\w.]+)'", message)
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        last = [line for line in lines if not _NOISE.match(line)][-1]
        last = re.sub(r'^(- )?(Parser key "[^"]+": )?', "", last)
        unknown = (
            r"unrecognized arguments: --([^\s=]+)|(?:Group '(.+)' )?does not accept option '(.+)'"
            r"|Option '(.+)' is not accepted"
        )
        if found := re.search(unknown, last):
            name, problem, names = ".".join(filter(None, (key, *found.groups()))), "", self._keys()
            if classes:
                module, _, problem = classes[-1].rpartition(".")
                names = list(inspect.signature(getattr(sys.modules[module], problem)).parameters)
            near = _nearest(name.removeprefix(f"{key}."), names)
            return name, f"no such option{' of ' if problem else ''}{problem}", near
        if found := re.search(r"Importing '(.+)' is not allowed", last):
            return (
                key or self.prog,
                f"class {found[1]!r} is not allowed",
                f"give a class of {', '.join(ALLOWED)}",
            )
        if found := re.search(r"Expected a dot import path string: (\S+)", last):
            names = [child.__name__ for base in _BASES for child in _children(base)]
            return key or "usage", f"no class {found[1]!r}", _nearest(found[1], names)
        if found := re.search(r"^Expected an? (.+?)(?:\. Got value: (.*))?$", last):
            value = found[2] or message.rpartition("Given value: ")[2]
            kind = re.sub(r"<class '(\w+)'>", r"\1", found[1]).replace("typing.Literal", "one of ")
            kind = kind.replace("<class 'collections.abc.Sequence'>", "a list, such as [1, 2]")
            return key, f"is {value!r}", f"expected {kind}"
        if found := re.search("arguments are required: (.*)", last):
            return found[1], "is missing", "give a configuration with -c NAME"
        return key or "usage", last if key else " ".join(lines), _HELP

    def _keys(self) -> list[str]:
        verbs = self._subcommands_action.choices.values() if self._subcommands_action else ()
        return sorted({action.dest for parser in (self, *verbs) for action in parser._actions})


def _children(base: type) -> Iterator[type]:
    child: type
    for child in base.__subclasses__():
        if child.__module__.startswith("vidreason."):
            yield child
        yield from _children(child)


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else _HELP
