"""`vidreason data get`: downloads, verifies and installs a dataset."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from make.archives import TREE, pack, tree

from vidreason import get as getting
from vidreason.core.errors import DataError
from vidreason.core.files import data_root, load_manifest


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
def test_get_installs_the_same_files_from_any_archive_layout(
    manifest, tmp_path, rename: Callable[[str], str]
):
    packed = {rename(name): data for name, data in {**WHOLE, "code.py": b"boo"}.items()}
    pack(tmp_path / "a.tar.xz", packed)
    root = tmp_path / "data" / "set"
    getting.get("set", root)
    assert tree(tmp_path / "data") == {f"set/{name}": data for name, data in WHOLE.items()}
    (tmp_path / "a.tar.xz").unlink()
    getting.get("set", root)  # already installed: verified without the archive
    (root / "a" / "one.xml").write_bytes(b"<c/>")
    with pytest.raises(DataError, match="content has SHA-256"):
        getting.get("set", root)


def test_get_keeps_other_files_in_the_folder(manifest, tmp_path):
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
        ({"../x": b""}, r"\.\./x: path leaves the output folder"),
    ],
)
def test_get_rejects_another_release_and_leaves_nothing(manifest, tmp_path, change, problem):
    files = {name: data for name, data in {**WHOLE, **change}.items() if data is not None}
    pack(tmp_path / "other.zip", files)
    with pytest.raises(DataError, match=f"other.zip: .*{problem}"):
        getting.get("set", tmp_path / "data" / "set", str(tmp_path / "other.zip"))
    assert not list((tmp_path / "data").iterdir())


def test_get_does_not_complete_a_partial_copy(manifest, tmp_path):
    pack(tmp_path / "a.tar.xz", WHOLE)
    (tmp_path / "set" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"0 files, expected 2; get .* another folder"):
        getting.get("set", tmp_path / "set")
    assert not tree(tmp_path / "set")


def test_get_rolls_back_when_a_move_fails(manifest, tmp_path, monkeypatch):
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
def test_the_real_annotations_match_the_manifest():
    getting.verify(data_root("jaad"), load_manifest("jaad"))
