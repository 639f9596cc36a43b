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

from vidreason.core.errors import DataError, check_ranges
from vidreason.core.loading import GOLDEN, EpochSampler, loader, splitmix64
from vidreason.intent.datasets import dataset_root, read_split, split_windows
from vidreason.intent.features import check_features
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import OBSERVED, Windows
from vidreason.perception.store import with_store
from vidreason.scenes.scene import KINDS, OBJECTS, ORIENTATION, Scene

Split = Literal["train", "val", "test"]


class IntentData(pl.LightningDataModule):
    """Windows of a driving dataset, cut and drawn as graphs when a stage asks for them.

    A batch is the graphs of `batch_size` windows, built at once. Order and mirroring of training
    samples are functions of (seed, epoch, index): any number of workers gives the same batches.

    Args:
        features: Groups of `vidreason.intent.features` that the model may see.
        protocol: `benchmark`, `benchmark-clean` or `stip`.
        subset: Pedestrians with behaviour tags (`beh`) or every pedestrian (`all`); or the place
            ahead of the car (`place`, with `stip`): will anybody be in it?
        horizon: Predicted frames K; 1 for the benchmark, which asks one question.
        observed: Observed boxes T of `stip`; 0 for its own 30. The benchmark observes 16.
        dataset: `jaad`, `pie`, `stip` (its centre camera at 2 frames per second), or `boxes`, which
            are tables of one's own.
        root: Folder of the dataset; its own in `$VIDREASON_DATA` if empty.
        store: Folder that `vidreason prepare` has put the dataset's videos into: the segmented
            objects become tracks, and annotated people get the features of their masks.
        image_features: Width of those features, which the model then sees; 0 for none.
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
        observed: int = 0,
        dataset: Literal["jaad", "pie", "stip", "stip-all-views", "stip-20fps", "boxes"] = "jaad",
        root: str = "",
        store: str = "",
        image_features: int = 0,
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
            ("observed", observed, 0, 1000),
            ("image_features", image_features, 0, 4096),
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
        if image_features and not store:
            mend = "give data.store, a folder made by `vidreason prepare`"
            raise DataError("data.image_features", f"{image_features} without a store", mend)
        self.horizon, self.observed = horizon, observed or OBSERVED[protocol]
        self.dataset, self.root = dataset, root
        self.store, self.image_features = store, image_features
        self.batch_size, self.train_stride, self.mirror = batch_size, train_stride, mirror
        self.workers, self.seed, self.folds = workers, seed, folds
        self.predict_split = predict_split
        self.scenes: dict[str, list[Scene]] = {}
        self.windows: dict[str, Windows] = {}
        self._graphs: dict[str, Graphs] = {}

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
        # Not before: who applies a model to a video of their own has no folder of the dataset.
        root = dataset_root(self.dataset, self.root)
        for split in missing:
            part = read_split(self.dataset, root, self.protocol, split, self.subset)
            if self.store:
                part = [with_store(scene, Path(self.store)) for scene in part]
            windows = split_windows(
                self.dataset,
                part,
                self.protocol,
                self.subset,
                self.horizon,
                self.train_stride if split == "train" else 0,
                self.observed,
            )
            if not len(windows):
                problem = f"no window of protocol {self.protocol!r} in split {split!r}"
                raise DataError(root, problem, "check the copy with `vidreason data check`")
            self.scenes[split], self.windows[split] = part, windows
            self._check(part)
            self._graphs[split] = self.graphs(part, windows, split == "train")

    def graphs(self, scenes: Sequence[Scene], windows: Windows, training: bool = False) -> "Graphs":
        """Graphs of any windows of T observed boxes, as the model gets to see them.

        Args:
            scenes: What `windows` were made of.
            windows: Of the protocol.
            training: Mirrored at random where that is asked for, and with folds.

        Raises:
            DataError: The scenes lack what the features show.
        """
        builder = GraphBuilder(scenes, windows, self.features, bool(self.image_features))
        mirror = "none" if self.mirror == "random" and not training else self.mirror
        # No fold outside training: what no member has seen, all of them may judge.
        fold = np.full(len(scenes), -1)
        if training and self.folds > 1:
            fold = np.random.default_rng(self.seed).permutation(len(scenes)) % self.folds
        return Graphs(builder, torch.from_numpy(fold[windows.scene]), mirror, self.seed)

    def _check(self, scenes: Sequence[Scene]) -> None:
        """Refuses features that these scenes have nothing of."""
        objects = [KINDS.index(name) for name in OBJECTS]
        have = {
            "objects": any(np.isin(scene.kind, objects).any() for scene in scenes),
            "odometry": any(scene.odometry for scene in scenes),
            "orientation": any(
                np.any(scene.cues.get(ORIENTATION[0], np.int8(-1)) >= 0) for scene in scenes
            ),
            "ego": any((scene.ego_action >= 0).any() for scene in scenes),
            "traffic": any(
                (flag >= 0).any() for scene in scenes for flag in scene.signals.values()
            ),
        }
        for name, there in have.items():
            if name in self.features and not there:
                problem, mend = (
                    f"{name!r}, of which {self.dataset} has nothing here",
                    "leave it out",
                )
                mend += ", or give data.store" * (name == "objects")
                raise DataError("data.features", problem, mend)
        for scene in scenes if self.image_features else ():
            if scene.image is not None and scene.image.shape[1] != self.image_features:
                problem = f"{self.image_features}, but {scene.id} has {scene.image.shape[1]}"
                raise DataError("data.image_features", problem, "set it to that")

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

    def _loader(self, graphs: "Graphs", sampler: Sampler | None = None) -> DataLoader:
        return loader(graphs, self.batch_size, self.workers, sampler)


class Graphs(Dataset[HeteroData]):
    """Graphs by the batch: torch's loader hands a whole batch of items to `__getitems__`.

    Args:
        builder: Of the windows.
        fold: (W,) that each window's video was dealt to; -1 for none.
        mirror: As in `IntentData`.
        seed: Of mirroring at random.
    """

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
