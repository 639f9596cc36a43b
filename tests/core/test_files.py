"""Package data, atomic writing and downloading."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from make.archives import tree

from vidreason.core.errors import DataError
from vidreason.core.files import (
    data_root,
    fetch,
    load_manifest,
    sha256,
    share,
    sweep,
    write_atomic,
)

EMPTY = hashlib.sha256(b"").hexdigest()


def test_package_data_is_found_by_relative_path():
    assert load_manifest("jaad")["name"] == "jaad"
    with pytest.raises(
        DataError, match="datasets/nope.yaml: is not shipped with this version; check"
    ):
        share("datasets/nope.yaml")


def test_data_root_requires_the_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    assert data_root("jaad") == tmp_path / "jaad"
    monkeypatch.delenv("VIDREASON_DATA")
    with pytest.raises(DataError, match="VIDREASON_DATA is not set"):
        data_root("jaad")


# --- Writing.


def test_a_write_replaces_the_file_and_keeps_its_suffix(tmp_path):
    path = tmp_path / "new" / "table.parquet"
    for text in ("first", "second"):
        with write_atomic(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == ".parquet"
            temporary.write_text(text)
        assert tree(tmp_path) == {"new/table.parquet": text.encode()}


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace

    def logged(number):
        steps.append(Path(os.readlink(f"/proc/self/fd/{number}")).name.partition("-")[2])
        fsync(number)

    monkeypatch.setattr(os, "fsync", logged)
    monkeypatch.setattr(os, "replace", lambda *a: (steps.append("replace"), replace(*a)))
    with write_atomic(tmp_path / "file") as temporary:
        temporary.write_text("text")
    assert steps == ["file", "replace", tmp_path.name.partition("-")[2]]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), write_atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert tree(tmp_path) == {"file": b"old"}


def test_a_write_error_names_the_file(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    for given, named in (((), path), ((".",), path), ((str(other),), other)):
        with pytest.raises(OSError) as caught, write_atomic(path) as temporary:
            where = [str(temporary) if one == "." else one for one in given]
            raise OSError(28, "No space left on device", *where)
        assert caught.value.filename == str(named)
    with pytest.raises(FileNotFoundError) as missing, write_atomic(path):
        other.read_bytes()
    assert str(missing.value.filename) == str(other)


def test_sweep_deletes_only_temporary_files(tmp_path):
    left = [".0123abcd-last.ckpt", ".ffffffff-a[1].arrow"]
    keep = ["last.ckpt", ".hidden-file", ".0123abc-last.ckpt", ".lock"]
    for name in left + keep:
        (tmp_path / name).touch()
    sweep(tmp_path, "a[1].arrow")
    assert set(tree(tmp_path)) == {left[0], *keep}
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert set(tree(tmp_path)) == set(keep)


def test_a_killed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from vidreason.core.files import write_atomic
with write_atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_files_have_the_usual_permissions(tmp_path):
    with write_atomic(tmp_path / "atomic") as temporary:
        temporary.touch()
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- Downloading.


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing":
                self.send_error(404)
            elif self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/whole")
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", "12" if self.path == "/short" else "5")
                self.end_headers()
                self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_fetches_urls_and_local_files(server, tmp_path):
    fetch(server + "/whole", tmp_path / "a")
    fetch(server + "/moved", tmp_path / "b", checksum=sha256(tmp_path / "a"))
    fetch(str(tmp_path / "a"), tmp_path / "c", checksum=sha256(tmp_path / "a"), max_bytes=5)
    assert tree(tmp_path) == dict.fromkeys("abc", b"hello")


@pytest.mark.parametrize(
    ("path", "options", "problem"),
    [
        ("/missing", {}, "404"),
        ("/short", {}, r"ended after 5 of 12 bytes|IncompleteRead"),
        ("/whole", {"checksum": EMPTY}, "expected " + EMPTY),
        ("/whole", {"max_bytes": 4}, "larger than 4 bytes"),
    ],
)
def test_a_failed_fetch_names_the_reason_and_leaves_nothing(
    server, tmp_path, path, options, problem
):
    with pytest.raises(DataError, match=problem) as caught:
        fetch(server + path, tmp_path / "out", **options)
    assert caught.value.source == server + path
    assert not tree(tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "http://", "/no/file", ""])
def test_fetch_rejects_other_schemes_and_missing_files(tmp_path, url):
    with pytest.raises(DataError):
        fetch(url, tmp_path / "out")
    assert not tree(tmp_path)
