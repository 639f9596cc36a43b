"""Files that are whole or not there: shipped with the package, written, fetched, unpacked."""

import gzip
import hashlib
import http.client
import lzma
import os
import re
import secrets
import shutil
import stat
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO, Any, cast

import yaml
from rich.console import Console
from rich.progress import DownloadColumn, Progress, ProgressColumn

from vidreason.core.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-")


def share(relative: str) -> Path:
    """Path of a file that ships with the package, such as `configs/intent/stip.yaml`.

    Raises:
        DataError: There is no such file.
    """
    package = Path(__file__).parents[1]
    # A wheel carries these folders in the package; a checkout has them beside it.
    for base in (package / "share", package.parent):
        if (base / relative).exists():
            return base / relative
    raise DataError(relative, "does not ship with this version", "check its name")


def load_manifest(dataset: str) -> dict[str, Any]:
    """Reads `datasets/<dataset>/manifest.yaml`: where the data come from and what they must be."""
    return cast(
        dict[str, Any], yaml.safe_load(share(f"datasets/{dataset}/manifest.yaml").read_bytes())
    )


def data_root(dataset: str) -> Path:
    """The dataset's folder in `$VIDREASON_DATA`.

    Raises:
        DataError: The variable is not set.
    """
    if parent := os.environ.get("VIDREASON_DATA"):
        return Path(parent) / dataset
    raise DataError(
        "--root",
        "is not given and VIDREASON_DATA is not set",
        "set VIDREASON_DATA to the folder that holds "
        f"`{dataset}/`, or give that: `--root DIR`, in training `--data.root DIR`",
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yields a path to write to; `path` appears, or is replaced, when the block has succeeded.

    The yielded path keeps the suffix, since many writers choose a format by it. If the block
    raises, `path` is as it was and nothing is left beside it; errors of the system name `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        # What fails in writing, on a full disk for example, does not say where.
        if error.strerror and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def left_over(path: Path) -> bool:
    """Whether a file is what a killed process has left of one that it was writing."""
    return _TEMPORARY.match(path.name) is not None


def sweep(folder: Path, name: str = "") -> None:
    """Clears away what killed processes have left in a folder that nobody else is writing to.

    Args:
        folder: May be missing.
        name: Of the file that they were writing; of all if not given.
    """
    for path in folder.glob(".*"):
        if left_over(path) and path.name.endswith(f"-{name}" if name else ""):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def progress(*columns: ProgressColumn) -> Progress:
    """A progress bar in the error stream, with further columns; nothing if that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        *Progress.get_default_columns(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def fetch(url: str, out: Path, checksum: str | None = None, max_bytes: int = 4 << 30) -> None:
    """Copies an http(s) address or a local file to `out`, with a progress bar on a terminal.

    Args:
        url: Address, or path of a local file.
        out: Appears only once it is complete and has the checksum.
        checksum: Expected SHA-256, hexadecimal.
        max_bytes: Size to stop at.

    Raises:
        DataError: `url` cannot be read, is too large, cut short, or not what the checksum says.
    """
    if "://" in url and not url.startswith(("http://", "https://")):
        raise DataError(url, "is not an http(s) address", "give one, or the path of a file")
    digest = hashlib.sha256()
    size = 0
    try:
        with (
            _open(url) as (source, total),
            write_atomic(out) as temporary,
            temporary.open("wb") as file,
            progress(DownloadColumn()) as bar,
        ):
            task = bar.add_task("fetching", total=total)
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise DataError(url, f"larger than {max_bytes} bytes", "check the address")
                digest.update(chunk)
                file.write(chunk)
                bar.update(task, completed=size)
            if total is not None and size != total:
                raise DataError(url, f"ended after {size} of {total} bytes", "try again")
            if checksum and digest.hexdigest() != checksum:
                problem = f"has SHA-256 {digest.hexdigest()}, expected {checksum}"
                raise DataError(url, problem, "try again, or get the file from its source")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(
            url, f"cannot be fetched ({_reason(error)})", "check the address or path"
        ) from error


@contextmanager
def _open(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """The stream and its length, if the server tells it."""
    if "://" in url:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            yield response, response.length
    else:
        with open(url, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def unpack(archive: Path, root: Path, max_members: int = 20_000, max_bytes: int = 4 << 30) -> None:
    """Unpacks a .tar.xz, .tar.gz or .zip into a new folder, which appears only when complete.

    Refuses what a data archive has no need of: paths that leave `root`, links, devices, and two
    files of one name (also where only case differs, since some file systems take them as one).

    Args:
        archive: File to unpack; its format is taken from its first bytes.
        root: Folder to make.
        max_members: Members to stop at.
        max_bytes: Unpacked bytes to stop at, counted as they come: headers can lie.

    Raises:
        DataError: `root` has something in it, or the archive is refused or damaged.
    """
    mend = "get the archive from its source again"
    if root.exists() and any(root.iterdir()):
        raise DataError(root, "is not empty", "choose another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    seen = set()
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        fresh = Path(temporary, "unpacked")
        fresh.mkdir()
        try:
            for count, (name, plain, stream) in enumerate(_members(archive, max_bytes), 1):
                # Windows rules are the stricter ones: both slashes separate, drives are known.
                path = PureWindowsPath(name)
                if count > max_members:
                    raise DataError(archive, f"more than {max_members} members", mend)
                if path.anchor or ".." in path.parts:
                    raise DataError(archive, "path leads out of the folder", mend, name)
                if not plain:
                    raise DataError(archive, "neither a plain file nor a folder", mend, name)
                target = fresh.joinpath(*path.parts)
                if stream is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                key = path.as_posix().casefold()
                if key in seen:
                    raise DataError(archive, "two files of one name", mend, name)
                seen.add(key)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(stream, file, _CHUNK)
            os.rename(fresh, root)
        except _DAMAGE as error:
            problem = f"cannot be unpacked ({_reason(error)})"
            raise DataError(archive, problem, mend) from error


# RuntimeError: encrypted or unsupported zip members. ValueError: numbers and names in headers.
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError),
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
)


class _Bounded:
    """Streams that may give so many bytes together."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit, self.left = archive, limit, limit

    def of(self, stream: IO[bytes]) -> "_Bounded":
        self.stream = stream
        return self

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            problem = f"unpacks to more than {self.limit} bytes"
            raise DataError(self.archive, problem, "get the archive from its source again")
        return data


def _members(
    archive: Path, max_bytes: int
) -> Iterator[tuple[str, bool, "IO[bytes] | _Bounded | None"]]:
    """Yields name, whether it is a plain file or folder, and the content of a file."""
    with archive.open("rb") as file:
        magic = file.read(6)
    bounded = _Bounded(archive, max_bytes)
    if magic.startswith(b"PK"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                with opened.open(info) as content:
                    yield info.filename, plain, None if info.is_dir() else bounded.of(content)
        return
    if magic != b"\xfd7zXZ\0" and not magic.startswith(b"\x1f\x8b"):
        raise DataError(archive, "is not a .tar.xz, .tar.gz or .zip", "check which file it is")
    opener = lzma.open if magic.startswith(b"\xfd") else gzip.open
    with opener(archive) as raw:
        # Bounding what the tar reader reads, not what it gives, covers its long headers too.
        reader = cast(IO[bytes], bounded.of(cast(IO[bytes], raw)))
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as tar:
            for member in tar:
                plain = member.isdir() or (member.isreg() and not member.issparse())
                yield member.name, plain, tar.extractfile(member) if member.isreg() else None
