"""Package data, atomic writing, downloading and unpacking: files are complete or absent."""

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
    """Returns the path of a file shipped with the package, such as `configs/intent/stip.yaml`.

    Raises:
        DataError: No such file is shipped.
    """
    package = Path(__file__).parents[1]
    # A wheel contains these folders; in a checkout they are next to the package.
    for base in (package / "share", package.parent):
        if (base / relative).exists():
            return base / relative
    raise DataError(relative, "is not shipped with this version", "check the name")


def load_manifest(dataset: str) -> dict[str, Any]:
    """Reads `datasets/<dataset>/manifest.yaml`: source and expected content of a dataset."""
    return cast(
        dict[str, Any], yaml.safe_load(share(f"datasets/{dataset}/manifest.yaml").read_bytes())
    )


def data_root(dataset: str) -> Path:
    """Returns the folder of a dataset in `$VIDREASON_DATA`.

    Raises:
        DataError: The variable is not set.
    """
    if parent := os.environ.get("VIDREASON_DATA"):
        return Path(parent) / dataset
    raise DataError(
        "--root",
        "is not given and VIDREASON_DATA is not set",
        f"set VIDREASON_DATA to the folder that contains `{dataset}/`, "
        "or pass `--root DIR` (`--data.root DIR` in training)",
    )


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` when the block succeeds.

    The temporary path keeps the suffix, since many writers choose the format by it. If the block
    raises, `path` is unchanged and the temporary file is removed. An `OSError` names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        # Errors during a write, on a full disk for example, do not name the file.
        if error.strerror and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def left_over(path: Path) -> bool:
    """Returns whether a file is a temporary file of `write_atomic`, left by a killed process."""
    return _TEMPORARY.match(path.name) is not None


def sweep(folder: Path, name: str = "") -> None:
    """Deletes temporary files that killed processes have left behind.

    Args:
        folder: Folder that no running process writes to; may be missing.
        name: Name of the file that was being written; any if empty.
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
    """Returns a progress bar on standard error with extra columns; hidden if not a terminal."""
    console = Console(stderr=True)
    return Progress(
        *Progress.get_default_columns(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def fetch(url: str, out: Path, checksum: str | None = None, max_bytes: int = 4 << 30) -> None:
    """Downloads an http(s) URL, or copies a local file, with a progress bar on a terminal.

    Args:
        url: URL, or path of a local file.
        out: Output file; appears only once complete and verified.
        checksum: Expected SHA-256 in hexadecimal; None skips the check.
        max_bytes: Maximum size.

    Raises:
        DataError: The source is unreadable, too large or truncated, or has another checksum.
    """
    if "://" in url and not url.startswith(("http://", "https://")):
        raise DataError(url, "is not an http(s) URL", "give one, or the path of a local file")
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
                    raise DataError(url, f"is larger than {max_bytes} bytes", "check the URL")
                digest.update(chunk)
                file.write(chunk)
                bar.update(task, completed=size)
            if total is not None and size != total:
                raise DataError(url, f"ended after {size} of {total} bytes", "try again")
            if checksum and digest.hexdigest() != checksum:
                problem = f"has SHA-256 {digest.hexdigest()}, expected {checksum}"
                raise DataError(url, problem, "try again, or download the file from its source")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(
            url, f"cannot be fetched ({_reason(error)})", "check the URL or path"
        ) from error


@contextmanager
def _open(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Yields an open stream and its length in bytes, None if the server does not say."""
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

    Rejects what no data archive needs: paths that leave `root`, links, devices, and duplicate
    names, including those that differ only in case, since some file systems ignore case.

    Args:
        archive: Archive; its format is detected from its first bytes.
        root: Output folder; must be empty or missing.
        max_members: Maximum number of members.
        max_bytes: Maximum unpacked size, counted while unpacking since headers can lie.

    Raises:
        DataError: `root` is not empty, or the archive is rejected or damaged.
    """
    fix = "download the archive from its source again"
    if root.exists() and any(root.iterdir()):
        raise DataError(root, "is not empty", "choose another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    seen = set()
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        fresh = Path(temporary, "unpacked")
        fresh.mkdir()
        try:
            for count, (name, plain, stream) in enumerate(_members(archive, max_bytes), 1):
                # Windows rules are stricter: both slashes are separators, and drives count.
                path = PureWindowsPath(name)
                if count > max_members:
                    raise DataError(archive, f"has more than {max_members} members", fix)
                if path.anchor or ".." in path.parts:
                    raise DataError(archive, "path leaves the output folder", fix, name)
                if not plain:
                    raise DataError(archive, "is not a regular file or folder", fix, name)
                target = fresh.joinpath(*path.parts)
                if stream is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                key = path.as_posix().casefold()
                if key in seen:
                    raise DataError(archive, "duplicate file name", fix, name)
                seen.add(key)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(stream, file, _CHUNK)
            os.rename(fresh, root)
        except _DAMAGE as error:
            problem = f"cannot be unpacked ({_reason(error)})"
            raise DataError(archive, problem, fix) from error


# RuntimeError: encrypted or unsupported zip members. ValueError: bad numbers, names in headers.
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError),
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
)


class _Bounded:
    """Limits the number of bytes read from several streams in total."""

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
            raise DataError(self.archive, problem, "download the archive from its source again")
        return data


def _members(
    archive: Path, max_bytes: int
) -> Iterator[tuple[str, bool, "IO[bytes] | _Bounded | None"]]:
    """Yields the name of each member, whether it is a regular file or folder, and its content."""
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
        raise DataError(archive, "is not a .tar.xz, .tar.gz or .zip archive", "check the file")
    opener = lzma.open if magic.startswith(b"\xfd") else gzip.open
    with opener(archive) as raw:
        # Limiting what the tar reader consumes, not what it returns, also covers long headers.
        reader = cast(IO[bytes], bounded.of(cast(IO[bytes], raw)))
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as tar:
            for member in tar:
                plain = member.isdir() or (member.isreg() and not member.issparse())
                yield member.name, plain, tar.extractfile(member) if member.isreg() else None
