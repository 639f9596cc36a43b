"""Mutation testing of readers, writers and resuming.

    python tools/mutants.py                                    # 12 random mutants per module
    python tools/mutants.py core/files runs/folder --each 40

A mutant is a module with one operator, number, condition or call changed. The tests of the module
run on it in a copy of the repository until one fails. Each survivor is printed; it is either
equivalent to the original or shows a missing test. The stack level of warnings and limits that are
larger by one (2**30 + 1 bytes, 65 rows at once) are not mutated. Exits with 1 if the share of
detected mutants is below --least.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parent.parent
TESTS = {
    "scenes/cvat": [
        "scenes/test_cvat",
        "scenes/test_jaad_errors",
        "scenes/test_pie",
        "test_planted_faults",
    ],
    "scenes/jaad": ["scenes/test_jaad", "scenes/test_jaad_errors", "test_planted_faults"],
    "scenes/pie": ["scenes/test_pie", "test_planted_faults", "test_parsers"],
    "scenes/stip": ["scenes/test_stip", "test_planted_faults", "test_parsers"],
    "scenes/boxes": ["scenes/test_boxes", "test_planted_faults", "test_parsers"],
    "scenes/cache": ["scenes/test_cache", "scenes/test_stip"],
    "decomposition/mnist": ["decomposition/test_mnist", "test_parsers"],
    "decomposition/ball_files": ["decomposition/test_ball_files", "test_parsers"],
    "decomposition/ball_states": ["decomposition/test_ball_files", "test_planted_faults"],
    "decomposition/ball_json": ["decomposition/test_ball_json", "test_parsers"],
    "decomposition/ball_hdf5": ["decomposition/test_ball_hdf5", "test_parsers"],
    "perception/store": ["perception/test_store", "test_parsers", "perception/test_prepare"],
    "core/tables": ["core/test_tables", "intent/test_predictions", "test_parsers"],
    "core/files": ["core/test_files", "core/test_unpack"],
    "core/loading": ["intent/test_data", "decomposition/test_data", "core/test_processes"],
    "intent/predictions": ["intent/test_predictions", "test_parsers"],
    "runs/folder": ["runs/test_folder", "runs/test_checkpoints", "runs/test_resume"],
}
SWAPS: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot},
    **{ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add},
    **{ast.Mult: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yields line, description and source of every mutant."""
    tree = ast.parse(source)
    skipped = {
        id(child)
        for node in ast.walk(tree)
        for part in _of_no_effect(node)
        for child in ast.walk(part)
    }
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for what, change in _changes(node):
            fresh = copy.deepcopy(tree)
            target = list(ast.walk(fresh))[number]
            change(target)
            ast.fix_missing_locations(fresh)
            if isinstance(node, ast.Compare | ast.BoolOp | ast.BinOp | ast.AugAssign):
                what = f"{what}: {ast.unparse(target)}"
            yield getattr(node, "lineno", 0), what, ast.unparse(fresh)


def _of_no_effect(node: ast.AST) -> Iterator[ast.AST]:
    yield from (p for f in ("annotation", "returns") if (p := getattr(node, f, None)) is not None)
    match node:
        case ast.keyword(arg="stacklevel") | ast.BinOp(ast.Constant(), ast.Pow() | ast.LShift()):
            yield node
        case ast.Assign([ast.Name(name)], ast.Constant(int())) if name.startswith("_"):
            yield node
        case ast.Constant(int(value)) if value >= 1000:
            yield node


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    def swap(field: str, new: type, index: int | None = None) -> object:
        def change(target: ast.AST) -> None:
            if index is None:
                setattr(target, field, new())
            else:
                getattr(target, field)[index] = new()

        return change

    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield ast.unparse(node), swap("ops", SWAPS[type(op)], index)
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield ast.unparse(node), swap("op", SWAPS[type(node.op)])
    elif isinstance(node, ast.If | ast.IfExp):
        words = ast.unparse(node.test)
        yield f"if {words}: never", lambda n: setattr(n, "test", ast.Constant(False))
        yield f"if {words}: always", lambda n: setattr(n, "test", ast.Constant(True))
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value}: plus one", lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        words = ast.unparse(node)
        yield f"{words}: removed", lambda n: setattr(n, "value", ast.Constant(None))


def main() -> int:
    """Draws mutants, runs the tests on each, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"{', '.join(TESTS)} (all)")
    parser.add_argument("--each", type=int, default=12, metavar="N", help="mutants per module (12)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="parallel processes (2)")
    parser.add_argument(
        "--least", type=float, default=0.9, metavar="SHARE", help="detected mutants required (0.9)"
    )
    args = parser.parse_args()
    names = args.modules or list(TESTS)
    if unknown := set(names) - set(TESTS):
        parser.error(f"no module {min(unknown)!r}; choose from {', '.join(TESTS)}")
    drawn = []
    for name in names:
        every = list(mutants((ROOT / f"vidreason/{name}.py").read_text()))
        draw = random.Random(f"{args.seed} {name}")
        drawn += [(name, *one) for one in draw.sample(every, min(args.each, len(every)))]
    counts = {name: [0, 0] for name in names}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        trees: Queue[Path] = Queue()
        for number in range(args.jobs):
            tree = Path(folder, str(number))
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "runs", "_build"))
            trees.put(tree)

        def noticed(mutant: tuple[str, int, str, str]) -> bool:
            tree = trees.get()
            name, _, _, source = mutant
            path = tree / f"vidreason/{name}.py"
            whole = path.read_text()
            path.write_text(source)
            tests = [f"tests/{test}.py" for test in TESTS[name]]
            words = ["-x", "-q", "-p", "no:cacheprovider", *tests]
            environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
            environment.pop("VIDREASON_DATA", None)
            line = [sys.executable, "-m", "pytest", *words]
            try:
                done = subprocess.run(
                    line, cwd=tree, env=environment, capture_output=True, timeout=400
                )
                return done.returncode != 0
            except subprocess.TimeoutExpired:
                return True
            finally:
                path.write_text(whole)
                trees.put(tree)

        console = Console(stderr=True)
        for mutant, found in zip(
            drawn,
            track(pool.map(noticed, drawn), "mutants", len(drawn), console=console),
            strict=True,
        ):
            name, line, what, _ = mutant
            counts[name][0] += 1
            counts[name][1] += found
            if not found:
                print(f"survived: vidreason/{name}.py:{line}: {what}", flush=True)
    table = Table("module", "mutants", "detected", title=f"mutants, seed {args.seed}")
    for name, (count, found) in counts.items():
        table.add_row(name, str(count), str(found))
    total, found = (sum(c[i] for c in counts.values()) for i in (0, 1))
    table.add_row("all", str(total), f"{found} ({found / total:.0%})")
    Console(width=100).print(table)
    return int(found < args.least * total)


if __name__ == "__main__":
    sys.exit(main())
