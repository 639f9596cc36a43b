"""Unpacking of archives, including hostile and damaged ones."""

import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Iterator

import pytest
from make.archives import TREE, pack, tree, write_tar

from vidreason.core.errors import DataError
from vidreason.core.files import unpack


@pytest.mark.parametrize("name", ["x.tar.xz", "x.tar.gz", "x.zip"])
def test_unpacks_each_format_regardless_of_the_suffix(tmp_path, name):
    archive = pack(tmp_path / name, TREE).rename(tmp_path / "archive")
    unpack(archive, tmp_path / "new" / "root")
    assert tree(tmp_path / "new") == {f"root/{name}": data for name, data in TREE.items()}


def test_unpacks_folders_long_names_and_global_headers(tmp_path):
    # Archives from GitHub start with a global header that contains the commit.
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
    "parent, backslash": ["a\\..\\..\\x"],
    "drive": ["C:x"],
    "share": ["\\\\host\\share\\x"],
    "duplicate": ["x", "y", "x"],
    "duplicate, other spelling": ["x", "./x"],
    "case": ["readme", "README"],
    "file and folder": ["x", "x/y"],
}


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
@pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_rejects_paths_that_leave_the_folder_or_collide(tmp_path, suffix, names):
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
def test_rejects_links_and_devices_in_tar(tmp_path, kind):
    member = tarfile.TarInfo("x")
    member.type, member.linkname = kind, "a"
    members = [(tarfile.TarInfo("a"), b""), (member, b"")]
    with pytest.raises(DataError, match="x: is not a regular file or folder"):
        unpack(write_tar(tmp_path / "a.gz", members), tmp_path / "root")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gz"]


def test_rejects_links_in_zip(tmp_path):
    link = zipfile.ZipInfo("x")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="x: is not a regular file or folder"):
        unpack(tmp_path / "a.zip", tmp_path / "root")


@pytest.mark.parametrize("name", ["a.tar.xz", "a.zip"])
def test_limits_are_inclusive(tmp_path, name):
    archive = pack(tmp_path / name, {"x": bytes(1 << 20), "y": b""})
    # The size of a tar includes headers and padding, since these can be arbitrarily large.
    size = 1 << 20 if name == "a.zip" else len(lzma.decompress(archive.read_bytes()))
    with pytest.raises(DataError, match=f"more than {size - 1} bytes"):
        unpack(archive, tmp_path / "root", max_bytes=size - 1)
    with pytest.raises(DataError, match="more than 1 members"):
        unpack(archive, tmp_path / "root", max_members=1)
    unpack(archive, tmp_path / "root", max_members=2, max_bytes=size)
    assert len(tree(tmp_path / "root")) == 2


def test_a_large_tar_header_counts_towards_the_limit(tmp_path):
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
def test_a_damaged_archive_is_rejected_or_the_damage_is_harmless(tmp_path, name):
    whole = pack(tmp_path / name, TREE).read_bytes()
    rejected = 0
    for number, data in enumerate(damage(whole)):
        archive, root = tmp_path / f"{number}.archive", tmp_path / str(number)
        archive.write_bytes(data)
        try:
            unpack(archive, root)
        except DataError as error:
            rejected += 1
            assert not root.exists() and "\n" not in str(error)
    assert rejected > 20
    assert not list(tmp_path.glob(".*"))


def test_a_truncated_tar_inside_valid_compression_is_rejected(tmp_path):
    with lzma.open(pack(tmp_path / "a.xz", TREE)) as file:
        plain = file.read()
    (tmp_path / "cut.gz").write_bytes(gzip.compress(plain[:2600]))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "cut.gz", tmp_path / "root")


def test_rejects_other_file_formats(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"\x7fELF and more")
    with pytest.raises(DataError, match=r"is not a \.tar\.xz, \.tar\.gz or \.zip archive; check"):
        unpack(tmp_path / "a.zip", tmp_path / "root")


def test_unpack_does_not_touch_a_folder_with_content(tmp_path):
    archive = pack(tmp_path / "a.zip", TREE)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").touch()
    with pytest.raises(DataError, match="is not empty"):
        unpack(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {"mine": b""}
