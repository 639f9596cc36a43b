"""Structure of the source: layering of imports, forbidden calls and file length."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vidreason"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SOURCES = {name: ast.parse(path.read_bytes(), path.name) for name, path in FILES.items()}

# Layers, lowest first. A module imports from its own wing and from wings of lower layers, never
# from another wing of its own layer: `intent` and `decomposition` stay independent.
LAYERS = [
    {"core"},
    {"scenes"},
    {"perception"},
    {"simulation", "intent", "decomposition"},
    {"runs"},
    {"results"},
    {"__init__", "api", "get", "cli", "commands", "demo"},
]
LAYER = {wing: layer for layer, wings in enumerate(LAYERS) for wing in wings}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted name of every import, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_imports(tree: ast.AST) -> set[str]:
    """Returns the modules of this package that are imported, `__init__` for the package itself.

    `vidreason.__version__` is left out: it imports nothing, and every module may read it.
    """
    found = set()
    for name in imports(tree):
        top, *parts = name.split(".")
        if top != "vidreason" or parts == ["__version__"]:
            continue
        while ".".join(parts) not in FILES and ".".join([*parts, "__init__"]) not in FILES:
            parts.pop()
        module = ".".join(parts)
        found.add(module if module in FILES else ".".join([*parts, "__init__"]))
    return found


def top_level(module: str) -> str:
    return module.partition(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the dotted name and the constant keyword arguments of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            constants = (k for k in node.keywords if k.arg and isinstance(k.value, ast.Constant))
            yield ast.unparse(node.func), {k.arg: k.value.value for k in constants}


def may_import(module: str, other: str) -> bool:
    """Returns whether `module` may import `other`."""
    here, there = top_level(module), top_level(other)
    # Modules next to the wings may import each other.
    top = len(LAYERS) - 1
    return here == there or LAYER[there] < LAYER[here] or LAYER[there] == LAYER[here] == top


def test_layers_list_every_wing():
    assert LAYER.keys() == {top_level(module) for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_modules_import_only_from_lower_layers(module):
    for name in package_imports(SOURCES[module]):
        assert may_import(module, name), f"{module} must not import {name}"


@pytest.mark.parametrize(
    "module, other",
    [
        ("core.files", "scenes.scene"),
        ("scenes.boxes", "perception.store"),
        ("intent.task", "decomposition.clip"),
        ("decomposition.filmstrips", "results.plots"),
        ("runs.train", "results.report"),
        ("runs.train", "__init__"),
        ("results.live", "cli"),
    ],
)
def test_upward_and_sideways_imports_are_rejected(module, other):
    assert {module, other} <= FILES.keys()
    assert not may_import(module, other)


def test_imports_have_no_cycles():
    graph = {module: package_imports(tree) for module, tree in SOURCES.items()}
    TopologicalSorter(graph).prepare()


# Modules that execute code found in files or break the environment, with the modules allowed to
# use them nevertheless.
FORBIDDEN = {
    "torchvision": (),
    "torchaudio": (),
    "timm": (),
    "pickle": (),
    "dill": (),
    "cloudpickle": (),
    "joblib": (),
    "shelve": (),
    "marshal": (),
    "xml": ("scenes.cvat",),  # pyexpat has rejected any DOCTYPE before
}


@pytest.mark.parametrize("module", FILES)
def test_no_file_can_execute_code(module):
    for name in imports(SOURCES[module]):
        assert module in FORBIDDEN.get(top_level(name), (module,)), f"{module} imports {name}"
    for name, keywords in calls(SOURCES[module]):
        place = f"{module} calls {name}"
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "os.system", "yaml.load", "tempfile.mktemp"), place
        assert last not in ("unsafe_load", "full_load", "extractall"), place
        assert keywords.get("shell") is not True, place
        assert keywords.get("weights_only") is not False, place
        if name == "torch.load":
            # Explicit, because an environment variable can turn the default off.
            assert keywords.get("weights_only") is True, place
        if name == "np.load":
            assert keywords.get("allow_pickle") is False, place


@pytest.mark.slow
def test_every_module_imports_without_torchvision():
    code = """
import importlib, sys
sys.modules["torchvision"] = sys.modules["torchaudio"] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    names = ["vidreason" + ("" if name == "__init__" else f".{name}") for name in FILES]
    names = [name.removesuffix(".__init__") for name in names]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_has_more_than_420_lines():
    files = [
        path
        for folder in (PACKAGE, ROOT / "tests", ROOT / "tools")
        for path in folder.rglob("*.py")
    ]
    lengths = {str(p.relative_to(ROOT)): len(p.read_bytes().splitlines()) for p in files}
    assert {name: length for name, length in lengths.items() if length > 420} == {}
