"""Reading checkpoints: choice, damage, foreign code, other models."""

import io
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from make.command import refused, run
from torch import nn

from vidreason.core.errors import DataError
from vidreason.runs.folder import CheckpointFiles, newest_checkpoint


def test_checkpoints_can_be_chosen(folder, tmp_path):
    other = shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "other.ckpt")
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt: no such checkpoint" in refused("test", "--run", folder)
    for choice in ("last", other):
        code, out, _ = run("test", "--run", folder, "--ckpt_path", choice)
        assert code == 0 and "test/auc" in out


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_no_checkpoint_runs_code(folder, trap, monkeypatch):
    # This variable overrides torch's default; only an explicit `weights_only` helps.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = folder / "checkpoints" / "best.ckpt"
    good = torch.load(path, weights_only=True)
    torch.save({**good, "evil": Evil(trap)}, path)
    assert "more than tensors" in refused("test", "--run", folder)
    path.write_bytes(pickle.dumps(Evil(trap)))
    assert "best.ckpt: is damaged or not a checkpoint" in refused("test", "--run", folder)
    named = {"_class_path": "trap.Net", "_instantiator": "trap.Net", "class_path": "trap.Net"}
    torch.save({**good, "hyper_parameters": named}, path)
    assert run("test", "--run", folder, "--ckpt_path", path)[0] == 0
    assert not trap.exists() and "trap" not in sys.modules


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """One wrong bit in the first weight of the network, which torch alone does not notice."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weight = max(archive.infolist(), key=lambda f: f.file_size if "/data/" in f.filename else 0)
        stored = archive.read(weight)
    place = data.index(stored)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def foreign(data: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}}, buffer)
    return buffer.getvalue()


def inside(member: str) -> Callable[[bytes], bytes]:
    """One wrong bit in a member of the archive, or in its list of members."""

    def wrong(data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            info = next((i for i in archive.infolist() if i.filename.endswith(member)), None)
            place = archive.start_dir + 20 if info is None else info.header_offset + 100
        return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]

    return wrong


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "is damaged"),
        (flip, "wrong checksum"),
        (foreign, "is not a checkpoint of vidreason"),
        (inside("data.pkl"), "is damaged"),
        (inside("no member"), "is damaged"),
        (lambda data: data[:0], "is damaged"),
        (lambda data: data[:1], "is damaged"),
        (lambda data: data[:-1], "is damaged"),
        (lambda data: b"text", "is damaged"),
    ],
)
def test_damaged_checkpoint_is_reported_and_skipped(damage, words, folder, capsys):
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    assert newest_checkpoint(folder) == path.with_name("previous.ckpt")
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {path}: ") and words in said and said.count("\n") == 1
    path.with_name("previous.ckpt").write_bytes(b"")
    with pytest.raises(DataError, match="and so is previous.ckpt; restore it") as error:
        newest_checkpoint(folder)
    assert words in str(error.value) and str(error.value).startswith(f"{path}: ")
    path.with_name("previous.ckpt").unlink()
    with pytest.raises(DataError, match="there is no other"):
        newest_checkpoint(folder)


def test_damaged_checkpoint_is_one_line(folder):
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(b"text")
    path.with_name("previous.ckpt").write_bytes(b"")
    assert f"{path}: is damaged" in refused("fit", "--run", folder, "--resume")
    assert f"{path}: is damaged" in refused("predict", "--run", folder, "--ckpt_path", path)


def test_checkpoint_of_another_model_is_refused(folder):
    assert "model.net.hidden=4, not 5" in refused("test", "--run", folder, "--model.net.hidden", 5)
    assert "data.features=" in refused("test", "--run", folder, "--data.features", "[box]")
    path = folder / "checkpoints" / "best.ckpt"
    good = torch.load(path, weights_only=True)
    state = good["state_dict"]
    for changed, words in (
        ({**state, "net.first.bias": torch.zeros(7)}, "weight net.first.bias is (7,)"),
        ({**state, "net.more": torch.zeros(7)}, "weight net.more is (7,), the model's is missing"),
        ({k: v for k, v in state.items() if k != "threshold"}, "weight threshold is missing"),
        ({**state, "net.first.bias": torch.full((4,), torch.nan)}, "net.first.bias is not finite"),
    ):
        torch.save({**good, "state_dict": changed}, path)
        assert words in refused("test", "--run", folder)


def test_checkpoint_that_is_not_finite_replaces_nothing(tmp_path):
    model = pl.LightningModule()
    model.weight = nn.Parameter(torch.ones(2))
    files = CheckpointFiles(model, {}, set())
    path = tmp_path / "a" / "last.ckpt"
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2"}
    files.save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    model.weight.data[1] = torch.inf
    with pytest.raises(DataError, match="weight weight is not finite"):
        files.save_checkpoint({**checkpoint, "state_dict": model.state_dict()}, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["last.ckpt"]
    assert torch.equal(files.load_checkpoint(path)["state_dict"]["weight"], torch.ones(2))
