"""Writes small archives, and reads folders back for comparison."""

import io
import tarfile
import zipfile
from pathlib import Path

TREE = {"a/one.xml": b"<a/>", "a/two.xml": b"<b/>" * 1000, "b/list.txt": b"one\ntwo\n"}
"""Content of an archive with the layout of a dataset."""


def tree(root: Path) -> dict[str, bytes]:
    """Returns the content of every file under `root`, by relative path."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Writes a tar archive; the suffix of `path` selects the compression."""
    with tarfile.open(path, "w:" + path.suffix[1:]) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Writes files into a .zip, .xz or .gz archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    return write_tar(path, [(tarfile.TarInfo(name), data) for name, data in files.items()])
