"""What data modules share: whole batches, epochs, and randomness that is a function of numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from vidreason.core import processes


class EpochSampler(Sampler[int]):
    """Item `epoch * samples + index` carries the epoch along, by which data can differ.

    Of several processes each gets every nth item; what does not divide by n is left out.

    Args:
        samples: In an epoch.
        seed: Of their order, which is a permutation per (seed, epoch); None keeps them in order.
    """

    def __init__(self, samples: int, seed: int | None = None) -> None:
        self.samples, self.seed, self.epoch = samples, seed, 0

    def __len__(self) -> int:
        return self.samples // processes.count()

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
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
    """A loader of batches that `data.__getitems__` makes whole."""
    return DataLoader(
        data, batch_size=batch_size, sampler=sampler, num_workers=workers, collate_fn=_whole
    )


def _whole(batch: Any) -> Any:
    return batch


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""What SplitMix64 adds to its state each time."""


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Random bits, uint64, from states (Steele, Lea and Flood, OOPSLA 2014).

    The nth state from a seed is seed + n * GOLDEN, so that this is as good as a hash of (seed, n):
    a generator for each sample would cost more than the sample.
    """
    with np.errstate(over="ignore"):
        z = state + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
