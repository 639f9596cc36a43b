"""Injection of disk errors, full disks and signals into a forked process."""

import contextlib
import errno
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILL = "SIGKILL"
SIGNALS = (KILL, "SIGTERM", "SIGINT")
_MIN_SIZE = 4096  # bytes; the output of the process must fit


class Fault(NamedTuple):
    """A fault at the nth file operation, or when a file exceeds a size.

    Attributes:
        kind: Name of an error (`ENOSPC`) or of a signal; `EFBIG` limits the size of files.
        at: Number of the operation, from 1; for `EFBIG`, bytes.
    """

    kind: str
    at: int

    def ends(self, ended: "Ended", harmless: bool) -> bool:
        """Returns whether a process ended as expected: killed, stopped, or with an error line.

        A `harmless` fault may also go unnoticed, like an error from creating a folder that exists.
        """
        if harmless and ended.code == 0:
            return True
        if self.kind == KILL:
            return ended.code == -signal.SIGKILL
        code, words = 1, "error: "
        if self.kind in SIGNALS:
            code, words = 128 + getattr(signal, self.kind), f"stopped by {self.kind}"
        return ended.code == code and any(x.startswith(words) for x in ended.output.splitlines())


class Ended(NamedTuple):
    """The end of a process.

    Attributes:
        code: Exit code, or minus the number of the signal.
        output: Standard output and error.
        steps: Number of its file operations.
    """

    code: int
    output: str
    steps: int


def run(work: Callable[[], int], root: Path, fault: Fault | None) -> Ended:
    """Calls `work` in a forked process, with a fault in its file operations under `root`."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as steps:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = 70
            try:
                with _steps(root, fault, steps.fileno()):
                    code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        counted = os.fstat(steps.fileno()).st_size
        return Ended(os.waitstatus_to_exitcode(status), output.read(), counted)


@contextlib.contextmanager
def _steps(root: Path, fault: Fault | None, counter: int) -> Iterator[None]:
    """Writes one byte to `counter` per file operation under `root`, and makes one of them fail."""
    done = 0

    def step(path: Any) -> None:
        nonlocal done
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(str(root)):
            return
        done += 1
        os.write(counter, b".")
        if fault is not None and fault.kind != "EFBIG" and done == fault.at:
            if fault.kind in SIGNALS:
                os.kill(os.getpid(), getattr(signal, fault.kind))
                return
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), str(path))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and not (event == "open" and not (args[2] or 0) & WRITES):
            step(args[0])

    real = os.fsync

    def fsync(file: int) -> None:
        step(os.readlink(f"/proc/self/fd/{file}"))
        real(file)

    if fault is not None and fault.kind == "EFBIG":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
    sys.addaudithook(hook)
    os.fsync = fsync
    yield
    os.fsync = real


def plans(steps: int, largest: int, sizes: int, kinds: Sequence[str], each: int) -> list[Fault]:
    """Returns `each` faults per operation, of alternating kinds, and `sizes` file size limits."""
    limits = np.random.default_rng(0).integers(_MIN_SIZE, largest, sizes).tolist()
    count = len(kinds)
    found = [Fault(kinds[(at + k) % count], at) for at in range(1, steps + 1) for k in range(each)]
    return found + [Fault("EFBIG", size) for size in limits]
