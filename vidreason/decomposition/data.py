"""`MovingMNISTData`: data module of moving digits, generated on the fly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vidreason.core.errors import DataError, check_choice, check_ranges
from vidreason.core.files import data_root
from vidreason.core.loading import EpochSampler, loader
from vidreason.decomposition.clip import Clip
from vidreason.decomposition.digits import MovingDigits, read_official
from vidreason.decomposition.mnist import SIDE, drawn_digits, read_digits

Split = Literal["train", "val", "test"]
# Validation and test clips are the same in every run; training seeds are below 2**32.
SEEDS = {"val": 1 << 40, "test": 2 << 40}
_DRAWN = {"train": (4_000, 1), "val": (500, 2), "test": (500, 3)}  # number of digits and seed


class ClipData(pl.LightningDataModule):
    """Data module with an endless stream of training clips and fixed validation and test sets.

    Subclasses implement `make`.

    Args:
        clips: Number of clips by split; for `train`, per epoch.
        length: Frames of a clip, input and predicted.
        batch_size: Clips in a batch.
        workers: Data loader processes.
        predict_split: Split that `predict` uses.

    Raises:
        DataError: An option is out of range.
    """

    def __init__(
        self,
        clips: dict[str, int],
        length: int,
        batch_size: int,
        workers: int,
        predict_split: Split,
    ) -> None:
        super().__init__()
        check_ranges(
            "data",
            ("length", length, 2, 10_000),
            ("batch_size", batch_size, 1, 100_000),
            *((f"{'epoch' if k == 'train' else k}_clips", n, 1, 10**9) for k, n in clips.items()),
            ("workers", workers, 0, 1000),
        )
        check_choice("data.predict_split", predict_split, ("train", "val", "test"))
        self.clips, self.length, self.batch_size = clips, length, batch_size
        self.workers, self.predict_split = workers, predict_split
        self.sets: dict[str, Dataset[Clip]] = {}

    def make(self, split: Split) -> Dataset[Clip]:
        """Returns the clips of a split, which `__getitems__` collates into batches."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Creates the splits that `stage` needs."""
        needed: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": (self.predict_split,),
        }
        for split in needed[stage]:
            if split not in self.sets:
                self.sets[split] = self.make(split)

    def train_dataloader(self) -> DataLoader:
        """Returns new clips each epoch, unshuffled because they are independent."""
        return self._loader("train", EpochSampler(self.clips["train"]))

    def val_dataloader(self) -> DataLoader:
        """Returns the validation split, always in the same order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the test split, always in the same order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Returns the split `predict_split`, always in the same order."""
        return self._loader(self.predict_split)

    def _loader(self, split: str, sampler: Sampler | None = None) -> DataLoader:
        return loader(self.sets[split], self.batch_size, self.workers, sampler)


class MovingMNISTData(ClipData):
    """Moving MNIST with an endless stream of training clips and fixed validation and test sets.

    Training clip i of epoch e is clip e * `epoch_clips` + i of the stream of `seed`, regardless of
    the batch size and the number of workers. Validation clips show digits held out from training,
    test clips those of MNIST's test images. Clips are generated on the fly and not stored.

    Args:
        root: MNIST folder; `$VIDREASON_DATA/mnist` if empty.
        digits: Possible numbers of digits per clip, equally likely.
        size: Frame side S in pixels.
        length: Frames of a clip, input and predicted.
        channels: Number of identical channels C.
        batch_size: Clips in a batch.
        epoch_clips: Training clips per epoch.
        val_clips: Validation clips.
        test_clips: Test clips.
        test_file: The benchmark's `mnist_test_seq.npy`, to use as the test set instead.
        source: `mnist`, or `drawn` for digits drawn with fonts, which need no files.
        workers: Data loader processes; 0 generates batches in the training process, which costs
            less than transferring frames between processes.
        seed: Random seed of the training clips.
        predict_split: Split that `predict` uses.

    Raises:
        DataError: An option is out of range, or `test_file` contradicts the others or is missing.
    """

    def __init__(
        self,
        root: str = "",
        digits: Sequence[int] = (2,),
        size: int = 64,
        length: int = 20,
        channels: int = 1,
        batch_size: int = 64,
        epoch_clips: int = 10_000,
        val_clips: int = 1_000,
        test_clips: int = 10_000,
        test_file: str = "",
        source: Literal["mnist", "drawn"] = "mnist",
        workers: int = 0,
        seed: int = 0,
        predict_split: Split = "test",
    ) -> None:
        clips = {"train": epoch_clips, "val": val_clips, "test": test_clips}
        super().__init__(clips, length, batch_size, workers, predict_split)
        check_ranges(
            "data",
            *(("digits", count, 1, 16) for count in digits or (0,)),
            ("size", size, SIDE, 1024),
            ("channels", channels, 1, 16),
            ("seed", seed, 0, 2**32 - 1),
        )
        check_choice("data.source", source, ("mnist", "drawn"))
        if test_file and (tuple(digits), size, length, channels) != ((2,), 64, 20, 1):
            problem = "has 2 digits, 64 pixels, 20 frames and 1 channel, unlike the options"
            raise DataError("data.test_file", problem, "correct the options or leave it empty")
        if test_file and not Path(test_file).is_file():
            raise DataError("data.test_file", f"{test_file} is not a file", "correct the path")
        self.root, self.source = root, source
        self.options = {"counts": digits, "size": size, "length": length, "channels": channels}
        self.test_file, self.seed = test_file, seed

    def make(self, split: Split) -> Dataset[Clip]:
        """Returns the clips of a split, from its digits or from the benchmark's file."""
        if split == "test" and self.test_file:
            return _Official(read_official(Path(self.test_file)))
        if self.source == "drawn":
            images, labels = drawn_digits(*_DRAWN[split])
        else:
            root = Path(self.root) if self.root else data_root("mnist")
            images, labels = read_digits(root, split)
        seed = SEEDS.get(split, self.seed)
        made = MovingDigits(images, labels, seed=seed, **self.options)  # type: ignore[arg-type]
        return _Clips(made, self.clips[split])


class _Clips(Dataset[Clip]):
    """Generated clips; the data loader passes the numbers of a whole batch to `__getitems__`."""

    def __init__(self, made: MovingDigits, clips: int) -> None:
        self.made, self.clips = made, clips

    def __len__(self) -> int:
        return self.clips

    def __getitems__(self, index: list[int]) -> Clip:
        return self.made.clips(np.asarray(index, np.int64))


class _Official(Dataset[Clip]):
    """The benchmark's test clips, without positions or labels, which are not known."""

    def __init__(self, clips: np.ndarray) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return self.clips.shape[1]

    def __getitems__(self, index: list[int]) -> Clip:
        frames = torch.from_numpy(self.clips[:, index].swapaxes(0, 1).copy())[:, :, None]
        unknown = torch.full((len(index), frames.shape[1], 2, 2), torch.nan)
        return Clip(frames, unknown, torch.full((len(index), 2), -1), torch.tensor(index))
