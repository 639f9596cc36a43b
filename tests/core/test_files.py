import gzip
import hashlib
import http.server
import io
import lzma
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vidreason import get as getting
from vidreason.core.errors import DataError
from vidreason.core.files import (
    data_root,
    fetch,
    load_manifest,
    sha256,
    share,
    sweep,
    unpack,
    write_atomic,
)

EMPTY = hashlib.sha256(b"").hexdigest()
TREE = {"a/one.xml": b"<a/>", "a/two.xml": b"<b/>" * 1000, "b/list.txt": b"one\ntwo\n"}


def tree(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:" + path.suffix[1:]) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    return write_tar(path, [(tarfile.TarInfo(name), data) for name, data in files.items()])


# What ships with the package


def test_shipped_files_are_found_by_relative_path():
    assert load_manifest("jaad")["name"] == "jaad"
    with pytest.raises(DataError, match="datasets/nope.yaml: does not ship"):
        share("datasets/nope.yaml")


def test_data_root_needs_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    assert data_root("jaad") == tmp_path / "jaad"
    monkeypatch.delenv("VIDREASON_DATA")
    with pytest.raises(DataError, match="VIDREASON_DATA is not set"):
        data_root("jaad")


# Writing


def test_a_write_replaces_the_file_and_keeps_its_suffix(tmp_path):
    path = tmp_path / "new" / "table.parquet"
    for text in ("first", "second"):
        with write_atomic(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == ".parquet"
            temporary.write_text(text)
        assert tree(tmp_path) == {"new/table.parquet": text.encode()}


def test_content_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
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
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), write_atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert tree(tmp_path) == {"file": b"old"}


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    for given, named in (((), path), ((".",), path), ((str(other),), other)):
        with pytest.raises(OSError) as caught, write_atomic(path) as temporary:
            where = [str(temporary) if one == "." else one for one in given]
            raise OSError(28, "No space left on device", *where)
        assert caught.value.filename == str(named)
    with pytest.raises(FileNotFoundError) as missing, write_atomic(path):
        other.read_bytes()
    assert str(missing.value.filename) == str(other)


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    left = [".0123abcd-last.ckpt", ".ffffffff-a[1].arrow"]
    keep = ["last.ckpt", ".hidden-file", ".0123abc-last.ckpt", ".lock"]
    for name in left + keep:
        (tmp_path / name).touch()
    sweep(tmp_path, "a[1].arrow")
    assert set(tree(tmp_path)) == {left[0], *keep}
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert set(tree(tmp_path)) == set(keep)


def test_a_killed_write_leaves_the_old_file(tmp_path):
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


def test_files_get_the_usual_permissions(tmp_path):
    with write_atomic(tmp_path / "atomic") as temporary:
        temporary.touch()
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Fetching


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


def test_fetches_addresses_and_files(server, tmp_path):
    fetch(server + "/whole", tmp_path / "a")
    fetch(server + "/moved", tmp_path / "b", checksum=sha256(tmp_path / "a"))
    fetch(str(tmp_path / "a"), tmp_path / "c", checksum=sha256(tmp_path / "a"), max_bytes=5)
    assert tree(tmp_path) == dict.fromkeys("abc", b"hello")


@pytest.mark.parametrize(
    ("address", "options", "problem"),
    [
        ("/missing", {}, "404"),
        ("/short", {}, r"ended after 5 of 12 bytes|IncompleteRead"),
        ("/whole", {"checksum": EMPTY}, "expected " + EMPTY),
        ("/whole", {"max_bytes": 4}, "larger than 4 bytes"),
    ],
)
def test_a_failed_fetch_says_why_and_leaves_nothing(server, tmp_path, address, options, problem):
    with pytest.raises(DataError, match=problem) as caught:
        fetch(server + address, tmp_path / "out", **options)
    assert caught.value.source == server + address
    assert not tree(tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "http://", "/no/file", ""])
def test_fetch_refuses_other_schemes_and_missing_files(tmp_path, url):
    with pytest.raises(DataError):
        fetch(url, tmp_path / "out")
    assert not tree(tmp_path)


# Unpacking


@pytest.mark.parametrize("name", ["x.tar.xz", "x.tar.gz", "x.zip"])
def test_unpacks_each_format_whatever_its_name(tmp_path, name):
    archive = pack(tmp_path / name, TREE).rename(tmp_path / "archive")
    unpack(archive, tmp_path / "new" / "root")
    assert tree(tmp_path / "new") == {f"root/{name}": data for name, data in TREE.items()}


def test_unpacks_folders_long_names_and_global_headers(tmp_path):
    # The archives of GitHub begin with a global header that holds the commit.
    folder = tarfile.TarInfo("./empty")
    folder.type = tarfile.DIRTYPE
    long = "d" * 90 + "/" + "f" * 120
    with tarfile.open(tmp_path / "a.gz", "w:gz", pax_headers={"comment": "0" * 40}) as tar:
        tar.addfile(folder)
        tar.addfile(tarfile.TarInfo(long))
    unpack(tmp_path / "a.gz", tmp_path / "root")
    assert (tmp_path / "root" / "empty").is_dir()
    assert tree(tmp_path / "root") == {long: b""}


HOSTILE = {
    "absolute": ["/etc/x"],
    "parent": ["a/../../x"],
    "parent, other slash": ["a\\..\\..\\x"],
    "drive": ["C:x"],
    "share": ["\\\\host\\share\\x"],
    "twice": ["x", "y", "x"],
    "twice, by another path": ["x", "./x"],
    "case": ["readme", "README"],
    "file and folder": ["x", "x/y"],
}


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
@pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_paths_that_leave_or_collide(tmp_path, suffix, names):
    if suffix == ".zip":
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as opened:
            for name in names:
                opened.writestr(name, b"")
    else:
        archive = write_tar(tmp_path / "a.gz", [(tarfile.TarInfo(name), b"") for name in names])
    with pytest.raises(DataError, match="a.(gz|zip): ") as caught:
        unpack(archive, tmp_path / "in" / "root")
    assert "\n" not in str(caught.value)
    assert set(tmp_path.rglob("*")) == {archive, tmp_path / "in"}


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_refuses_links_and_devices_in_tar(tmp_path, kind):
    member = tarfile.TarInfo("x")
    member.type, member.linkname = kind, "a"
    members = [(tarfile.TarInfo("a"), b""), (member, b"")]
    with pytest.raises(DataError, match="x: neither a plain file nor a folder"):
        unpack(write_tar(tmp_path / "a.gz", members), tmp_path / "root")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gz"]


def test_refuses_links_in_zip(tmp_path):
    link = zipfile.ZipInfo("x")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="x: neither a plain file nor a folder"):
        unpack(tmp_path / "a.zip", tmp_path / "root")


@pytest.mark.parametrize("name", ["a.tar.xz", "a.zip"])
def test_limits_hold_at_the_limit_and_one_past_it(tmp_path, name):
    archive = pack(tmp_path / name, {"x": bytes(1 << 20), "y": b""})
    # A tar is counted with its headers and padding, since these can be as large as one likes.
    size = 1 << 20 if name == "a.zip" else len(lzma.decompress(archive.read_bytes()))
    with pytest.raises(DataError, match=f"more than {size - 1} bytes"):
        unpack(archive, tmp_path / "root", max_bytes=size - 1)
    with pytest.raises(DataError, match="more than 1 members"):
        unpack(archive, tmp_path / "root", max_members=1)
    unpack(archive, tmp_path / "root", max_members=2, max_bytes=size)
    assert len(tree(tmp_path / "root")) == 2


def test_a_large_tar_header_is_bounded_too(tmp_path):
    member = tarfile.TarInfo("x")
    member.pax_headers = {"comment": "0" * (8 << 20)}
    with tarfile.open(tmp_path / "a.gz", "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(DataError, match="more than 4194304 bytes"):
        unpack(tmp_path / "a.gz", tmp_path / "root", max_bytes=4 << 20)


def damage(data: bytes) -> Iterator[bytes]:
    for cut in range(0, len(data) - 1, max(1, len(data) // 20)):
        yield data[:cut]
        yield data[:cut] + bytes([data[cut] ^ 0x55]) + data[cut + 1 :]


@pytest.mark.parametrize("name", ["a.tar.xz", "a.tar.gz", "a.zip"])
def test_a_damaged_archive_is_refused_or_its_damage_is_harmless(tmp_path, name):
    whole = pack(tmp_path / name, TREE).read_bytes()
    refused = 0
    for number, data in enumerate(damage(whole)):
        archive, root = tmp_path / f"{number}.archive", tmp_path / str(number)
        archive.write_bytes(data)
        try:
            unpack(archive, root)
        except DataError as error:
            refused += 1
            assert not root.exists() and "\n" not in str(error)
    assert refused > 20
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_tar_inside_sound_compression_is_refused(tmp_path):
    with lzma.open(pack(tmp_path / "a.xz", TREE)) as file:
        plain = file.read()
    (tmp_path / "cut.gz").write_bytes(gzip.compress(plain[:2600]))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "cut.gz", tmp_path / "root")


def test_what_is_no_archive_is_named_so(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"\x7fELF and more")
    with pytest.raises(DataError, match=r"is not a \.tar\.xz, \.tar\.gz or \.zip; check"):
        unpack(tmp_path / "a.zip", tmp_path / "root")


def test_unpack_leaves_a_folder_in_use_alone(tmp_path):
    archive = pack(tmp_path / "a.zip", TREE)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").touch()
    with pytest.raises(DataError, match="is not empty"):
        unpack(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {"mine": b""}


# Getting a dataset


@pytest.fixture
def manifest(monkeypatch, tmp_path) -> dict:
    lines = sorted(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in TREE.items())
    pinned = {
        "source": str(tmp_path / "a.tar.xz"),
        "max_bytes": 1 << 20,
        "take": ["a", "b", "LICENSE"],
        "files": {"a/*.xml": 2, "b/*.txt": 1},
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
    monkeypatch.setattr(getting, "load_manifest", lambda name: pinned)
    return pinned


WHOLE = {**TREE, "LICENSE": b"free"}


@pytest.mark.parametrize(
    "rename", [lambda name: name, lambda name: "Set-7712f55/" + name], ids=["flat", "github"]
)
def test_get_takes_the_same_files_from_any_packing(
    manifest, tmp_path, rename: Callable[[str], str]
):
    packed = {rename(name): data for name, data in {**WHOLE, "code.py": b"boo"}.items()}
    pack(tmp_path / "a.tar.xz", packed)
    root = tmp_path / "data" / "set"
    getting.get("set", root)
    assert tree(tmp_path / "data") == {f"set/{name}": data for name, data in WHOLE.items()}
    (tmp_path / "a.tar.xz").unlink()
    getting.get("set", root)  # there already: verified without the archive
    (root / "a" / "one.xml").write_bytes(b"<c/>")
    with pytest.raises(DataError, match="content has SHA-256"):
        getting.get("set", root)


def test_get_leaves_what_else_is_in_the_folder(manifest, tmp_path):
    pack(tmp_path / "a.tar.xz", WHOLE)
    root = tmp_path / "set"
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "1.mp4").touch()
    getting.get("set", root)
    assert tree(root) == {**WHOLE, "clips/1.mp4": b""}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"a/one.xml": b"<x/>"}, "content has SHA-256"),
        ({"a/three.xml": b""}, r"a/\*.xml: 3 files, expected 2"),
        ({"a/one.xml": None}, r"a/\*.xml: 1 files, expected 2"),
        ({"LICENSE": None}, "no folder with a, b, LICENSE"),
        ({"../x": b""}, r"\.\./x: path leads out"),
    ],
)
def test_get_refuses_another_release_and_leaves_nothing(manifest, tmp_path, change, problem):
    files = {name: data for name, data in {**WHOLE, **change}.items() if data is not None}
    pack(tmp_path / "other.zip", files)
    with pytest.raises(DataError, match=f"other.zip: .*{problem}"):
        getting.get("set", tmp_path / "data" / "set", str(tmp_path / "other.zip"))
    assert not list((tmp_path / "data").iterdir())


def test_get_does_not_mend_a_partial_copy(manifest, tmp_path):
    pack(tmp_path / "a.tar.xz", WHOLE)
    (tmp_path / "set" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"0 files, expected 2; get .* another folder"):
        getting.get("set", tmp_path / "set")
    assert not tree(tmp_path / "set")


def test_get_takes_everything_back_when_a_move_fails(manifest, tmp_path, monkeypatch):
    pack(tmp_path / "a.tar.xz", WHOLE)
    root = tmp_path / "set"

    def rename(source, target, real=os.rename):
        if Path(target) == root / "b":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        getting.get("set", root)
    assert not list(root.iterdir())


@pytest.mark.skipif("VIDREASON_DATA" not in os.environ, reason="VIDREASON_DATA is not set")
def test_the_real_annotations_are_the_pinned_ones():
    getting.verify(data_root("jaad"), load_manifest("jaad"))
