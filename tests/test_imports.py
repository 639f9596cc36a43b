"""What the source may import and call, read from the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidreason"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SOURCES = {name: ast.parse(path.read_bytes(), path.name) for name, path in FILES.items()}

# A file imports from its own wing and from those above it, never from a wing on its own row.
WINGS = [
    {"core"},
    {"scenes"},
    {"perception"},
    {"simulation", "intent", "decomposition"},
    {"runs"},
    {"results"},
    {"__init__", "get", "cli", "commands", "demo"},
]
ROW = {wing: row for row, wings in enumerate(WINGS) for wing in wings}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST) -> set[str]:
    """Modules of this package that are imported."""
    found = set()
    for name in imports(tree):
        if name.startswith("vidreason."):
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in FILES:
                parts = parts[:-1]
            found.add(".".join(parts) or "__init__")
    return found


def part(module: str) -> str:
    return module.partition(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Dotted name and constant keyword arguments of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            constants = (k for k in node.keywords if k.arg and isinstance(k.value, ast.Constant))
            yield ast.unparse(node.func), {k.arg: k.value.value for k in constants}


def may_import(module: str, other: str) -> bool:
    """Whether a file may import another of the package; everything may ask for the version."""
    here, there = part(module), part(other)
    if other == "__init__" or here == there:
        return True
    top = len(WINGS) - 1
    return ROW[there] < ROW[here] or ROW[there] == ROW[here] == top


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module):
    assert part(module) in ROW, f"say in WINGS where {part(module)} belongs"
    for name in ours(SOURCES[module]):
        assert may_import(module, name), f"{module} must not import {name}"


@pytest.mark.parametrize(
    "module, other",
    [
        ("core.files", "scenes.scene"),
        ("scenes.boxes", "perception.store"),
        ("intent.task", "decomposition.clip"),
        ("decomposition.filmstrips", "results.plots"),
        ("runs.train", "results.report"),
        ("results.live", "cli"),
    ],
)
def test_a_back_arrow_is_refused(module, other):
    assert {module, other} <= FILES.keys()
    assert not may_import(module, other)


def test_no_import_goes_in_a_circle():
    # Folders' own files are left out: importing a.b runs a first, but that is no use of it.
    TopologicalSorter({module: ours(tree) for module, tree in SOURCES.items()}).prepare()


# Modules that run code found in files, or break the environment, and who may use them all the same.
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
    "xml": ("scenes.cvat",),  # after pyexpat has refused a DOCTYPE
}


@pytest.mark.parametrize("module", FILES)
def test_nothing_reads_files_that_can_run_code(module):
    for name in imports(SOURCES[module]):
        assert module in FORBIDDEN.get(part(name), (module,)), f"{module} imports {name}"
    for name, keywords in calls(SOURCES[module]):
        place = f"{module} calls {name}"
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "os.system", "yaml.load", "tempfile.mktemp"), place
        assert last not in ("unsafe_load", "full_load", "extractall"), place
        assert keywords.get("shell") is not True, place
        assert keywords.get("weights_only") is not False, place
        if name == "torch.load":
            # Said aloud, because a variable in the environment turns the default off.
            assert keywords.get("weights_only") is True, place
        if name == "np.load":
            assert keywords.get("allow_pickle") is False, place


def test_importing_needs_no_torchvision():
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
