"""Shared by the data modules: epoch sampler, batch loader, and counter-based random numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from vidreason.core import processes


class EpochSampler(Sampler[int]):
    """Yields `epoch * samples + index`, so that samples can depend on the epoch.

    Each of n processes gets every nth item; the remainder of a division by n is dropped.

    Args:
        samples: Number of samples in an epoch.
        seed: Seed of the shuffling, a permutation for each (seed, epoch); None does not shuffle.
    """

    def __init__(self, samples: int, seed: int | None = None) -> None:
        self.samples, self.seed, self.epoch = samples, seed, 0

    def __len__(self) -> int:
        return self.samples // processes.count()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.samples)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        ours = order[processes.rank() :: processes.count()][: len(self)]
        return iter((self.epoch * self.samples + ours).tolist())


def loader(
    data: Dataset, batch_size: int, workers: int, sampler: Sampler | None = None
) -> DataLoader:
    """Returns a loader for a dataset whose `__getitems__` returns complete batches."""
    return DataLoader(
        data, batch_size=batch_size, sampler=sampler, num_workers=workers, collate_fn=_whole
    )


def _whole(batch: Any) -> Any:
    return batch


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Increment of the state of SplitMix64."""


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Returns 64 random bits for each state, uint64 (Steele, Lea and Flood, OOPSLA 2014).

    The nth state from a seed is seed + n * GOLDEN, so this serves as a hash of (seed, n). Creating
    a generator for each sample would cost more than the sample.
    """
    with np.errstate(over="ignore"):
        z = state + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
