"""`IntentData`: the windows of one protocol as batches of scene graphs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import HeteroData

from vidreason.data.graphs import GraphBuilder
from vidreason.data.jaad import read_jaad, read_splits
from vidreason.data.loading import GOLDEN, EpochSampler, loader, splitmix64
from vidreason.data.places import with_place
from vidreason.data.windows import OBSERVED, Windows, make_windows, split_videos
from vidreason.errors import DataError, check_ranges
from vidreason.features import check_features
from vidreason.files import data_root
from vidreason.scene import Scene

Split = Literal["train", "val", "test"]


class IntentData(pl.LightningDataModule):
    """Windows of JAAD, cut and drawn as graphs when a stage asks for them.

    A batch is the graphs of `batch_size` windows, built at once. Order and mirroring of training
    samples are functions of (seed, epoch, index): any number of workers gives the same batches.

    Args:
        features: Groups of `vidreason.features` that the model may see.
        protocol: `benchmark`, `benchmark-clean` or `stip`.
        subset: Pedestrians with behaviour tags (`beh`) or every pedestrian (`all`); or the place
            ahead of the car (`place`, with `stip`): will anybody be in it?
        horizon: Predicted frames K; 1 for the benchmark, which asks one question.
        root: Folder of JAAD; `$VIDREASON_DATA/jaad` if empty.
        batch_size: Windows in a batch.
        train_stride: Boxes between training windows; the protocol's own if 0.
        mirror: Which windows to show with left and right swapped: half of the training windows,
            drawn anew every epoch (`random`), or, in every split, those whose target ends in the
            right half of the image (`canonical`), so that to the right is always toward the road.
        folds: Parts that the training videos are dealt into, one to be held out by each member of
            an ensemble; 1 holds out nothing.
        workers: Processes that build batches; 0 builds them in the training process.
        seed: Of order, mirroring and folds.
        predict_split: Which split `predict` takes.

    Raises:
        DataError: An option out of range.
    """

    def __init__(
        self,
        features: Sequence[str],
        protocol: Literal["benchmark", "benchmark-clean", "stip"] = "benchmark",
        subset: Literal["beh", "all", "place"] = "all",
        horizon: int = 1,
        root: str = "",
        batch_size: int = 128,
        train_stride: int = 0,
        mirror: Literal["none", "random", "canonical"] = "random",
        folds: int = 1,
        workers: int = 0,
        seed: int = 0,
        predict_split: Split = "test",
    ) -> None:
        super().__init__()
        check_features(features)
        check_ranges(
            "data",
            ("horizon", horizon, 1, 1000),
            ("batch_size", batch_size, 1, 100000),
            ("train_stride", train_stride, 0, 10000),
            ("folds", folds, 1, 100),
            ("workers", workers, 0, 1000),
            ("seed", seed, 0, 2**32 - 1),
        )
        if protocol != "stip" and horizon != 1:
            problem = f"{horizon} with protocol {protocol!r}, which asks one question"
            raise DataError("data.horizon", problem, "set it to 1")
        self.features, self.protocol, self.subset = tuple(features), protocol, subset
        self.horizon, self.observed = horizon, OBSERVED[protocol]
        self.root = Path(root) if root else data_root("jaad")
        self.batch_size, self.train_stride, self.mirror = batch_size, train_stride, mirror
        self.workers, self.seed, self.folds = workers, seed, folds
        self.predict_split = predict_split
        self.scenes: dict[str, list[Scene]] = {}
        self.windows: dict[str, Windows] = {}
        self._graphs: dict[str, _Graphs] = {}

    def setup(self, stage: str) -> None:
        """Reads the data and cuts the windows of the splits that `stage` needs."""
        needed = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": (self.predict_split,),
        }[stage]
        missing = [split for split in needed if split not in self.windows]
        if not missing:
            return
        scenes = read_jaad(self.root)
        official = {} if self.protocol == "stip" else read_splits(self.root)
        for split in missing:
            videos = set(split_videos(self.protocol, official, [s.id for s in scenes], split))
            part = [s for s in scenes if s.id in videos]
            if self.subset == "place":
                part = [with_place(s) for s in part]
            stride = self.train_stride if split == "train" else 0
            windows = make_windows(
                part, self.protocol, self.subset, self.horizon, stride=stride or None
            )
            if not len(windows):
                problem = f"no window of protocol {self.protocol!r} in split {split!r}"
                raise DataError(self.root, problem, "check the copy with `vidreason data check`")
            self.scenes[split], self.windows[split] = part, windows
            builder = GraphBuilder(part, windows, self.features)
            mirror = "none" if self.mirror == "random" and split != "train" else self.mirror
            # No fold outside training: what no member has seen, all of them may judge.
            fold = np.full(len(part), -1)
            if split == "train" and self.folds > 1:
                fold = np.random.default_rng(self.seed).permutation(len(part)) % self.folds
            self._graphs[split] = _Graphs(
                builder, torch.from_numpy(fold[windows.scene]), mirror, self.seed
            )

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew every epoch."""
        graphs = self._graphs["train"]
        return self._loader(graphs, EpochSampler(len(graphs), self.seed))

    def val_dataloader(self) -> list[DataLoader]:
        """In the order of the windows, as are the two below.

        With folds, the training windows follow: each is judged by the member that held it out.
        """
        splits = ("val", "train") if self.folds > 1 and "train" in self._graphs else ("val",)
        return [self._loader(self._graphs[split]) for split in splits]

    def test_dataloader(self) -> DataLoader:
        """The test split."""
        return self._loader(self._graphs["test"])

    def predict_dataloader(self) -> DataLoader:
        """The split `predict_split`."""
        return self._loader(self._graphs[self.predict_split])

    def _loader(self, graphs: "_Graphs", sampler: Sampler | None = None) -> DataLoader:
        return loader(graphs, self.batch_size, self.workers, sampler)


class _Graphs(Dataset[HeteroData]):
    """Graphs by the batch: torch's loader hands a whole batch of items to `__getitems__`."""

    def __init__(self, builder: GraphBuilder, fold: Tensor, mirror: str, seed: int) -> None:
        self.builder, self.fold, self.mirror, self.seed = builder, fold, mirror, seed

    def __len__(self) -> int:
        return len(self.builder)

    def __getitems__(self, items: list[int]) -> HeteroData:
        item = np.asarray(items, np.int64)
        index = item % len(self)
        mirror = {
            "none": None,
            "random": coin(self.seed, item),
            "canonical": self.builder.on_right[index],
        }[self.mirror]
        graph = self.builder(index, mirror)
        graph.fold = self.fold[torch.from_numpy(index)]
        return graph


def coin(seed: int, items: np.ndarray) -> np.ndarray:
    """A fair coin (B,) for each item, by hashing (seed, item)."""
    with np.errstate(over="ignore"):
        state = (items.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)) * GOLDEN
    return (splitmix64(state) & np.uint64(1)).astype(bool)
