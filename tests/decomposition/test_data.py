"""The stream of training clips, the fixed sets, and the files they are made from."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from make.idx import mnist

from vidreason.core.errors import DataError
from vidreason.decomposition import digits as moving
from vidreason.decomposition.data import MovingMNISTData

pytestmark = pytest.mark.usefixtures("few_digits")


def drawn(stage="fit", **options):
    data = MovingMNISTData(
        **{"source": "drawn", "batch_size": 7, "epoch_clips": 20, "val_clips": 10, **options}
    )
    data.setup(stage)
    return data


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def joined(batches):
    return {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("frames", "positions", "labels", "index")
    }


def same(one, other):
    for name, column in joined(one).items():
        torch.testing.assert_close(
            column, joined(other)[name], rtol=0, atol=0, equal_nan=True, msg=name
        )


def images(batches):
    return {clip.tobytes() for clip in joined(batches)["frames"].numpy()}


# The stream of training clips


def test_clips_do_not_depend_on_batches_and_workers():
    batches = epoch(drawn(digits=(1, 2)), 3)
    assert [len(batch.index) for batch in batches] == [7, 7, 6]
    same(batches, epoch(drawn(digits=(1, 2), batch_size=20), 3))
    same(batches, epoch(drawn(digits=(1, 2), workers=2), 3))


def test_each_epoch_continues_after_the_previous():
    data = drawn()
    assert joined(epoch(data, 2))["index"].tolist() == list(range(40, 60))
    same(epoch(data, 0) + epoch(data, 1), epoch(drawn(epoch_clips=40), 0))
    assert len(images(epoch(data, 0) + epoch(data, 1) + epoch(data, 2))) == 60


def test_seed_changes_training_clips_only():
    one, other = drawn(seed=0), drawn(seed=1)
    assert not images(epoch(one)) & images(epoch(other))
    same(one.val_dataloader(), other.val_dataloader())
    same(
        drawn("test", test_clips=10).test_dataloader(),
        drawn("test", test_clips=10, seed=1).test_dataloader(),
    )


def test_splits_share_neither_motion_nor_digits():
    data = drawn(epoch_clips=100, val_clips=100, test_clips=100)
    data.setup("test")
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    seen = [joined(list(loader)) for loader in loaders]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            same_place = (one["positions"] == other["positions"]).flatten(1).all(1)
            assert not same_place.any()
    digits = [{image.tobytes() for image in data.sets[s].made.images} for s in data.sets]
    assert not digits[0] & digits[1] and not digits[0] & digits[2] and not digits[1] & digits[2]


def test_smaller_set_is_a_prefix_of_a_larger_one():
    small, large = drawn(val_clips=10), drawn(val_clips=30)
    first = {name: column[:10] for name, column in joined(large.val_dataloader()).items()}
    for name, column in joined(small.val_dataloader()).items():
        assert torch.equal(column, first[name])


def test_trainer_sets_the_epoch():
    class Watch(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def training_step(self, batch):
            self.seen += batch.index.tolist()
            return self.weight.sum()

    watch = Watch()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(watch, datamodule=MovingMNISTData(source="drawn", batch_size=8, epoch_clips=20))
    assert watch.seen == list(range(40))


def test_predict_uses_the_chosen_split():
    for split in ("train", "val", "test"):
        data = drawn("predict", predict_split=split, test_clips=10)
        data.setup({"train": "fit", "val": "validate", "test": "test"}[split])
        loader = getattr(data, f"{split}_dataloader")()
        same(data.predict_dataloader(), loader)


def test_memory_does_not_grow_with_the_number_of_clips():
    data = drawn("test", test_clips=500, batch_size=12)
    tracemalloc.start()
    for _ in data.test_dataloader():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 12 * 20 * 64 * 64  # a tenth of the set


def test_options_reach_the_clips():
    data = drawn(digits=(1, 3), size=40, length=6, channels=3, val_clips=30, batch_size=30)
    (batch,) = data.val_dataloader()
    assert batch.frames.shape == (30, 6, 3, 40, 40)
    assert batch.positions.shape == (30, 6, 3, 2) and batch.labels.shape == (30, 3)
    assert set((batch.labels >= 0).sum(1).tolist()) == {1, 3}


# Files


def test_digits_come_from_their_split(tmp_path, monkeypatch):
    items = mnist(tmp_path / "mnist")
    monkeypatch.setenv("VIDREASON_DATA", str(tmp_path))
    data = MovingMNISTData(digits=(1,), batch_size=40, epoch_clips=40, val_clips=40, test_clips=40)
    for stage in ("fit", "test"):
        data.setup(stage)
    for loader, name, part in (
        (data.train_dataloader(), "train", slice(0, 20)),
        (data.val_dataloader(), "train", slice(20, None)),
        (data.test_dataloader(), "t10k", slice(None)),
    ):
        known = {x.tobytes() for x in items[f"{name}-images-idx3-ubyte"][part]}
        (batch,) = loader
        for frames, position in zip(batch.frames, batch.positions, strict=True):
            x, y = (position[0, 0] - 14).int().tolist()
            assert frames[0, 0, y : y + 28, x : x + 28].numpy().tobytes() in known
    other = MovingMNISTData(root=str(tmp_path / "mnist"), val_clips=40, digits=(1,))
    other.setup("validate")
    same(other.val_dataloader(), data.val_dataloader())


def test_benchmark_file_replaces_the_test_split(tmp_path, monkeypatch):
    official = np.random.default_rng(0).integers(0, 256, (20, 9, 64, 64), np.uint8)
    path = tmp_path / "official.npy"
    np.save(path, official)
    checksum = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(moving, "OFFICIAL", (official.shape, checksum))
    for workers in (0, 1):
        data = drawn("test", test_file=str(path), batch_size=4, workers=workers)
        found = joined(data.test_dataloader())
        np.testing.assert_array_equal(found["frames"][:, :, 0], official.swapaxes(0, 1))
        assert found["positions"].isnan().all() and found["positions"].shape == (9, 20, 2, 2)
        assert (found["labels"] == -1).all() and found["labels"].shape == (9, 2)
        assert found["index"].tolist() == list(range(9))
    np.save(path, official[:19])
    with pytest.raises(DataError, match="with time first"):
        drawn("test", test_file=str(path))


@pytest.mark.parametrize(
    ("options", "name", "problem"),
    [
        ({"digits": ()}, "digits", "must be between 1 and 16, got 0"),
        ({"digits": (2, 0)}, "digits", "must be between 1 and 16, got 0"),
        ({"size": 27}, "size", "must be between 28 and 1024, got 27"),
        ({"length": 1}, "length", "must be between 2 and 10000, got 1"),
        ({"channels": 0}, "channels", "must be between 1 and 16, got 0"),
        ({"batch_size": 0}, "batch_size", "must be between 1 and 100000, got 0"),
        ({"epoch_clips": 0}, "epoch_clips", "must be between 1 and .*, got 0"),
        ({"val_clips": -1}, "val_clips", "must be between 1 and .*, got -1"),
        ({"test_clips": 0}, "test_clips", "must be between 1 and .*, got 0"),
        ({"workers": -1}, "workers", "must be between 0 and 1000, got -1"),
        ({"seed": -1}, "seed", "must be between 0 and 4294967295, got -1"),
        ({"seed": 2**32}, "seed", "must be between 0 and .*, got 4294967296"),
        ({"source": "svhn"}, "source", "must be one of mnist, drawn, got 'svhn'"),
        ({"predict_split": "dev"}, "predict_split", "must be one of train, val, test, got 'dev'"),
        (
            {"test_file": "x", "digits": (1, 2)},
            "test_file",
            "has 2 digits, .* unlike the options",
        ),
        ({"test_file": "x", "channels": 3}, "test_file", ".*unlike the options"),
    ],
)
def test_invalid_options_are_rejected(options, name, problem):
    with pytest.raises(DataError, match=f"^data.{name}: {problem}"):
        MovingMNISTData(**options)


def test_missing_files_are_rejected(tmp_path, monkeypatch):
    monkeypatch.delenv("VIDREASON_DATA", raising=False)
    with pytest.raises(DataError, match="VIDREASON_DATA is not set"):
        MovingMNISTData().setup("fit")
    with pytest.raises(DataError, match="no such file; .*data.source to drawn"):
        MovingMNISTData(root=str(tmp_path)).setup("fit")
    with pytest.raises(DataError, match="data.test_file: .*x.npy is not a file"):
        MovingMNISTData(test_file=str(tmp_path / "x.npy"))


# The fixed sets of real digits

CARD = Path(__file__).parents[2] / "datasets" / "mnist" / "README.md"


@pytest.mark.parametrize("split", ["val", "test"])
def test_fixed_sets_of_real_digits(real_digits, split):
    """The set has the digest in its dataset card, and the error of baselines known for 1,000 clips.

    Bounds are the range over 500 to 2,000 clips of the benchmark.
    """
    data = MovingMNISTData(root=str(real_digits), predict_split=split)
    data.setup("predict")
    digest, black, last, entropy, count = hashlib.sha256(), 0.0, 0.0, 0.0, 0
    for batch in data.predict_dataloader():
        digest.update(batch.frames.numpy())
        if count >= 1_000:
            continue
        frames = batch.frames[:, :, 0].float() / 255
        future = frames[:, 10:]
        black += float(future.square().sum()) / 10
        last += float((future - frames[:, 9:10]).square().sum()) / 10
        grey = torch.nn.functional.binary_cross_entropy(future, future, reduction="sum")
        entropy += float(grey) / 10
        count += len(frames)
    (row,) = (line for line in CARD.read_text("utf-8").splitlines() if line[2:].startswith(split))
    assert digest.hexdigest() in row
    low = 165 if split == "val" else 171  # the digits differ
    assert low < black / count < 188
    assert low + 110 < last / count < 308
    assert 86 < entropy / count < 87.5
