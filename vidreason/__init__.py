"""Pedestrian-crossing prediction from driving video, and object-centric video prediction.

`import vidreason as vr` costs milliseconds: names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vidreason.api import decompose, evaluate, graphs, load, read_scenes, windows
    from vidreason.core.errors import DataError
    from vidreason.decomposition.clip import Clip, Decomposition
    from vidreason.intent.windows import Windows
    from vidreason.results.live import Live
    from vidreason.scenes.scene import Scene

_MODULES = {
    **dict.fromkeys(
        ("read_scenes", "windows", "graphs", "load", "decompose", "evaluate"), "vidreason.api"
    ),
    "Live": "vidreason.results.live",
    "Scene": "vidreason.scenes.scene",
    "Windows": "vidreason.intent.windows",
    "Clip": "vidreason.decomposition.clip",
    "Decomposition": "vidreason.decomposition.clip",
    "DataError": "vidreason.core.errors",
}

__all__ = [
    "Clip",
    "DataError",
    "Decomposition",
    "Live",
    "Scene",
    "Windows",
    "decompose",
    "evaluate",
    "graphs",
    "load",
    "read_scenes",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # found without this function the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
