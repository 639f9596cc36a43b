"""Shipped configurations, found by name."""

import difflib
from pathlib import Path

from vidreason.core.errors import DataError
from vidreason.core.files import share

SUBSYSTEMS = ("intent", "decomposition")


def shipped(subsystem: str = "*") -> dict[str, Path]:
    """Returns the files of the shipped configurations by name, of one subsystem or of both."""
    return {path.stem: path for path in sorted(share("configs").glob(f"{subsystem}/*.yaml"))}


def describe(path: Path) -> str:
    """Returns the first comment line of a configuration, which says what it trains."""
    return path.read_text("utf-8").partition("\n")[0].removeprefix("#").strip()


def find_config(name: str) -> Path:
    """Finds a configuration file.

    Args:
        name: Path of a file, or the name of a shipped configuration: `jaad_beh`, `jaad_beh.yaml` or
            `configs/intent/jaad_beh.yaml`. An existing file takes precedence.

    Raises:
        DataError: If there is neither such a file nor such a configuration.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    found = known.get(path.name.removesuffix(".yaml"))
    if found and found.as_posix().removesuffix(".yaml").endswith(name.removesuffix(".yaml")):
        return found
    if path.is_dir():
        raise DataError(name, "is a folder", "give a file, or a run with --run")
    near = difflib.get_close_matches(path.name.removesuffix(".yaml"), known, 3, 0.75)
    fix = f"did you mean {' or '.join(near)}?" if near else "`vidreason configs` lists them"
    raise DataError(name, "is neither a file nor a shipped configuration", fix)
