"""`IntentData`: serves the windows of one protocol as batches of scene graphs."""

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
    """Data module that cuts the windows of a driving dataset and serves them as scene graphs.

    A batch is the graphs of `batch_size` windows, built at once. The order and the mirroring of
    training samples are functions of (seed, epoch, index), so that any number of workers gives the
    same batches.

    Args:
        features: Feature groups that the model sees: `box`, `neighbours`, `ego`, `traffic`,
            `orientation`, `objects`, `odometry`.
        protocol: Evaluation protocol: `benchmark`, `benchmark-clean` or `stip`.
        subset: Targets: pedestrians with behaviour tags (`beh`), every pedestrian (`all`), or the
            place ahead of the car (`place`, with `stip`), labelled by whether a person is in it.
        horizon: Predicted frames K; 1 for the benchmark, which has a single label per window.
        observed: Observed boxes T of `stip`; 0 selects the default of 30. The benchmark has 16.
        dataset: `jaad`, `pie`, `stip` (centre camera at 2 frames per second), `stip-all-views`,
            `stip-20fps`, or `boxes` for your own tables.
        root: Dataset folder; defaults to the dataset's folder in `$VIDREASON_DATA`.
        store: Folder written by `vidreason prepare` for the videos of the dataset. Its segmented
            objects become tracks, and annotated pedestrians get the image features of their masks.
        image_features: Number of image features per person; 0 for none.
        batch_size: Windows per batch.
        train_stride: Boxes between training windows; 0 selects the default of the protocol.
        mirror: Windows to flip horizontally: half of the training windows, redrawn every epoch
            (`random`); in every split, those whose target ends in the right half of the image
            (`canonical`), so that the road is always on the right; or `none`.
        folds: Number of parts that the training videos are split into, one held out by each member
            of an ensemble; 1 holds out nothing.
        workers: Number of processes that build batches; 0 builds them in the training process.
        seed: Seed of order, mirroring and folds.
        predict_split: Split that `predict` reads.

    Raises:
        DataError: If an option is out of range.
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
            problem = f"{horizon} with protocol {protocol!r}, which predicts one label"
            raise DataError("data.horizon", problem, "set it to 1")
        self.features, self.protocol, self.subset = tuple(features), protocol, subset
        if image_features and not store:
            fix = "give data.store, a folder written by `vidreason prepare`"
            raise DataError("data.image_features", f"{image_features} without a store", fix)
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
        """Reads the splits that `stage` needs and cuts their windows."""
        needed = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": (self.predict_split,),
        }[stage]
        missing = [split for split in needed if split not in self.windows]
        if not missing:
            return
        # Resolved here, not in `__init__`: applying a model to another video needs no dataset
        # folder.
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
                fix = "use another split, or a smaller data.horizon or data.observed"
                if self.dataset == "jaad":
                    fix = "check the copy with `vidreason data check jaad`"
                raise DataError(root, problem, fix)
            self.scenes[split], self.windows[split] = part, windows
            self._check(part)
            self._graphs[split] = self.graphs(part, windows, split == "train")

    def graphs(self, scenes: Sequence[Scene], windows: Windows, training: bool = False) -> "Graphs":
        """Returns the scene graphs of any windows of T observed boxes, as the model sees them.

        Args:
            scenes: Videos that `windows` were made from.
            windows: Windows of the protocol.
            training: Whether to use random mirroring (if `mirror` is `random`) and folds.

        Raises:
            DataError: If image features are set and a scene has none.
        """
        builder = GraphBuilder(scenes, windows, self.features, bool(self.image_features))
        mirror = "none" if self.mirror == "random" and not training else self.mirror
        # No folds outside training: every member may predict what none was trained on.
        fold = np.full(len(scenes), -1)
        if training and self.folds > 1:
            fold = np.random.default_rng(self.seed).permutation(len(scenes)) % self.folds
        return Graphs(builder, torch.from_numpy(fold[windows.scene]), mirror, self.seed)

    def _check(self, scenes: Sequence[Scene]) -> None:
        """Raises an error for features that no scene has."""
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
                problem = f"{name!r} is not available in any loaded video of {self.dataset}"
                fix = "leave it out" + ", or give data.store" * (name == "objects")
                raise DataError("data.features", problem, fix)
        for scene in scenes if self.image_features else ():
            width = self.image_features if scene.image is None else scene.image.shape[1]
            if width != self.image_features:
                problem = f"{self.image_features}, but {scene.id} has {width}"
                raise DataError("data.image_features", problem, f"set it to {width}")

    def train_dataloader(self) -> DataLoader:
        """Returns the training windows, reshuffled every epoch."""
        graphs = self._graphs["train"]
        return self._loader(graphs, EpochSampler(len(graphs), self.seed))

    def val_dataloader(self) -> list[DataLoader]:
        """Returns the validation windows and, with folds, the training windows, in order.

        Training windows are evaluated out-of-fold, by the member that held them out.
        """
        splits = ("val", "train") if self.folds > 1 and "train" in self._graphs else ("val",)
        return [self._loader(self._graphs[split]) for split in splits]

    def test_dataloader(self) -> DataLoader:
        """Returns the test windows, in order."""
        return self._loader(self._graphs["test"])

    def predict_dataloader(self) -> DataLoader:
        """Returns the windows of `predict_split`, in order."""
        return self._loader(self._graphs[self.predict_split])

    def _loader(self, graphs: "Graphs", sampler: Sampler | None = None) -> DataLoader:
        return loader(graphs, self.batch_size, self.workers, sampler)


class Graphs(Dataset[HeteroData]):
    """Dataset of scene graphs that builds a whole batch at once in `__getitems__`.

    Args:
        builder: Builder of the graphs of W windows.
        fold: (W,) int, fold of each window's video; -1 for none.
        mirror: Windows to flip horizontally, as in `IntentData`.
        seed: Seed of random mirroring.
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
    """Returns a fair coin toss (B,) bool for each of `items` (B,), a hash of (seed, item)."""
    with np.errstate(over="ignore"):
        state = (items.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)) * GOLDEN
    return (splitmix64(state) & np.uint64(1)).astype(bool)
