"""A tiny network with its data; as a script, this file is `vidreason` with that network."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import HeteroData

from vidreason import cli

# Configurations may name only classes of vidreason, so this module takes a name in it.
sys.modules["vidreason.tiny"] = sys.modules[__name__]


def batch(items: Sequence[int], observed: int, horizon: int, seed: int = 0) -> HeteroData:
    """Returns random graphs whose label shows in the first column of the target."""
    rng = np.random.default_rng((seed, *items))
    count = rng.integers(1, 4, len(items))
    graph = HeteroData()
    person = graph["person"]
    person.x = torch.from_numpy(rng.normal(size=(count.sum(), observed, 3)).astype(np.float32))
    person.valid = torch.ones(person.x.shape[:2], dtype=torch.bool)
    person.ptr = torch.from_numpy(np.concatenate([[0], count.cumsum()]))
    label = torch.tensor([i % 2 for i in items], dtype=torch.float32)
    person.x[person.ptr[:-1], :, 0] += label[:, None]
    graph.y = torch.full((len(items), observed + horizon), torch.nan)
    graph.y[:, observed:] = label[:, None]
    graph.window, graph.fold = torch.tensor(items), torch.full((len(items),), -1)
    graph.tags = torch.empty(len(items), 0)
    return graph


class TinyNet(nn.Module):
    def __init__(
        self, features: list[str], observed: int, horizon: int, hidden: int = 4, break_at: int = -1
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.first, self.last = nn.Linear(3, hidden), nn.Linear(hidden, observed + horizon)
        self.steps, self.break_at = 0, break_at

    def forward(self, graph: HeteroData) -> Tensor:
        if self.training:
            self.steps += 1
        x = self.first(graph["person"].x[graph["person"].ptr[:-1], :, :3]).tanh().mean(1)
        return self.last(self.drop(x)) * (torch.nan if self.steps == self.break_at else 1)


class Shuffled(Sampler[int]):
    epoch = 0

    def __len__(self) -> int:
        return 48

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(self.epoch).permutation(48).tolist())


class Graphs(Dataset[HeteroData]):
    def __init__(self, observed: int, horizon: int) -> None:
        self.shape = observed, horizon

    def __len__(self) -> int:
        return 48

    def __getitems__(self, items: list[int]) -> HeteroData:
        time.sleep(float(os.environ.get("TINY_DELAY", "0")))
        return batch(items, *self.shape)


class TinyData(pl.LightningDataModule):
    def __init__(
        self,
        features: list[str],
        protocol: str = "benchmark",
        horizon: int = 1,
        observed: int = 0,
        seed: int = 0,
        root: str = "",
    ) -> None:
        super().__init__()
        self.graphs = Graphs(16, horizon)
        label = np.full((48, 16 + horizon), -1)
        label[:, 16:] = np.arange(48)[:, None] % 2
        self.windows = {"train": SimpleNamespace(label=label)}

    def loader(self, sampler: Sampler | None = None) -> DataLoader:
        return DataLoader(self.graphs, batch_size=8, sampler=sampler, collate_fn=lambda g: g)

    def train_dataloader(self) -> DataLoader:
        return self.loader(Shuffled())

    def val_dataloader(self) -> DataLoader:
        return self.loader()

    test_dataloader = predict_dataloader = val_dataloader


for _class in (TinyNet, TinyData):
    _class.__module__ = "vidreason.tiny"

CONFIG = {
    "seed_everything": 3,
    "model": {
        "class_path": "IntentTask",
        "init_args": {"net": {"class_path": "TinyNet", "init_args": {"hidden": 4}}, "lr": 0.01},
    },
    "data": {"class_path": "TinyData", "init_args": {"features": ["box", "ego"]}},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "logger": False},
}


def on_jaad(root: Path, **options: object) -> dict:
    """Returns the configuration of the tiny network on a dataset folder."""
    data = {"features": ["box"], "root": str(root), "subset": "all", "batch_size": 8, **options}
    return {**CONFIG, "data": {"class_path": "IntentData", "init_args": data}}


def write(path: Path, config: object) -> Path:
    """Writes a configuration, or text."""
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return path


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    """Returns the weights in a checkpoint of a run."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
