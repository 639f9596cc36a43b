"""Coverage-guided fuzzing of the parsers, which must return a value or raise a `DataError`.

    python tools/fuzz.py --seconds 600              # all parsers, one by one
    python tools/fuzz.py "jaad annotations" video   # two parsers
    python tools/fuzz.py all -runs=20000            # all parsers in one process, for a short run

Options with one dash are those of libFuzzer.

Starts from the valid files of tests/make/parsers.py. An input that makes a parser crash, raise any
other exception, or use more than 10 s or 4 GiB is kept as `crash-…` in the folder `--out`; the exit
code is then 1. Needs atheris, which is part of the `dev` extra.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

ALL = "all"
TESTS = Path(__file__).parent.parent / "tests"


def fuzz(name: str, options: list[str]) -> None:
    """Fuzzes one parser with options of libFuzzer; never returns."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["vidreason"]):
        from make import parsers

    chosen = [parsers.PARSERS[name]] if name != ALL else list(parsers.PARSERS.values())
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        roots, valid = [], []
        for number, parser in enumerate(chosen):
            roots.append(root := Path(folder, str(number)))
            root.mkdir()
            parser.make(root)
            valid.append((root / parser.file).read_bytes())
            # With several parsers, the first byte selects one.
            data = bytes([number] * (len(chosen) > 1)) + valid[-1]
            (corpus / str(number)).write_bytes(data)

        def feed(data: bytes) -> None:
            number = 0
            if len(chosen) > 1:
                number, data = (data[0] if data else 0) % len(chosen), data[1:]
            file = roots[number] / chosen[number].file
            file.write_bytes(data)
            try:
                parsers.accepts(chosen[number], roots[number])
            finally:
                file.write_bytes(valid[number])

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            draw = random.Random(seed)
            if draw.random() < 0.5:
                return atheris.Mutate(data, most)
            # Random bytes hardly ever leave a text well-formed; replaced words do.
            for _ in range(draw.randint(1, 3)):
                token, other = (
                    _TOKEN.search(data, draw.randrange(len(data) + 1)) for _ in range(2)
                )
                if token and other:
                    word = draw.choice((*_ODD, other[0], other[0]))
                    data = data[: token.start()] + word + data[token.end() :]
            return data[:most]

        text = any(data.isascii() for data in valid)
        line = [sys.argv[0], str(corpus), *options]
        atheris.Setup(line, feed, custom_mutator=mutate if text else None)
        atheris.Fuzz()


_TOKEN = re.compile(rb"[\w.-]+")
_ODD = (b"", b"-1", b"0", b"1.5", b"1e999", b"nan", b"Infinity", b"99999999999999999999", b"1_0")
_ODD += (b"&#0;", b"\xff", b"\xe2\x80\xae", b"\x00", b"<!DOCTYPE a>", b"<!--", b"]]>", b"null")
_ODD += (b"[[[[", b"{}", b"\xc2\xb2", b"a:b", b" ", b'"', b"true", b"../x")


def main() -> int:
    """Fuzzes parsers and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help="names (all)")
    parser.add_argument("--seconds", type=int, default=600, help="total time (600)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="parallel processes (1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument("--out", type=Path, default=Path("crashes"), help="output folder (crashes)")
    parser.add_argument("--feed", metavar="PARSER", help=argparse.SUPPRESS)
    args, options = parser.parse_known_args()
    if args.feed:
        fuzz(args.feed, options)
    sys.path.insert(0, str(TESTS))
    from make.parsers import PARSERS

    names = args.parsers or list(PARSERS)
    if unknown := set(names) - {*PARSERS, ALL}:
        parser.error(f"no parser {min(unknown)!r}; choose from {', '.join(PARSERS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    each = max(1, args.seconds * args.jobs // len(names))

    def run(name: str) -> tuple[str, int, str, bool]:
        limits = [f"-max_total_time={each}", "-timeout=10", "-rss_limit_mb=4096"]
        kept = f"-artifact_prefix={args.out}/{name.replace(' ', '-')}-"
        line = [
            sys.executable,
            __file__,
            "--feed",
            name,
            f"-seed={args.seed + 1}",
            *limits,
            kept,
            *options,
        ]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace")
        runs = re.findall(r"^#(\d+)\s", done.stderr, re.M)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        if done.returncode:
            (args.out / f"{name.replace(' ', '-')}.txt").write_text(done.stdout + done.stderr)
        return (
            name,
            int(runs[-1]) if runs else 0,
            covered[-1] if covered else "",
            not done.returncode,
        )

    table = Table("parser", "inputs", "branches", "uncaught", title=f"{each} s each")
    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, runs, covered, fine in track(
            pool.map(run, names), "fuzzing", len(names), console=Console(stderr=True)
        ):
            table.add_row(name, f"{runs:,}", covered, "none" if fine else f"see {args.out}")
            failed += not fine
    Console(width=100).print(table)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
