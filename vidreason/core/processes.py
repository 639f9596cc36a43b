"""Distributed training that equals training on one process, up to rounding.

Each process has every nth sample of the whole batch. Loss denominators and batch statistics are
summed over all processes. Random numbers are drawn for the whole batch, identically in every
process, which then selects those of its own samples. With one process there is no overhead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the index of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def total(x: Tensor) -> Tensor:
    """Returns the sum of `x` over all processes, without gradient; with one process, `x` itself."""
    if count() > 1:
        x = x.detach().clone()
        dist.all_reduce(x)
    return x


class Rows(NamedTuple):
    """Rows of a batch in which each sample has several, in the order of a single process.

    Attributes:
        every: Number of rows of all processes.
        ours: (n,) int64, indices of the rows of this process; None means all.
    """

    every: int
    ours: Tensor | None

    def draw(self, random: Callable[..., Tensor], shape: Sequence[int], dim: int) -> Tensor:
        """Returns random numbers of `shape`; dimension `dim` has the rows of this process."""
        if self.ours is None:
            return random(shape)
        return random([*shape[:dim], self.every, *shape[dim + 1 :]]).index_select(dim, self.ours)


def rows(sizes: Tensor) -> Rows:
    """Returns the position of this process's rows among those of all processes.

    Args:
        sizes: (B,) number of rows of each sample of this process.
    """
    if count() == 1:
        return Rows(0, None)
    most = torch.tensor(len(sizes), device=sizes.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    padded = sizes.new_full((int(most),), -1)
    padded[: len(sizes)] = sizes
    parts = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(parts, padded)
    # Sample i of the whole batch is sample i // n of process i % n.
    every = torch.stack(parts, 1).flatten()
    mine = torch.arange(len(every), device=sizes.device) % count() == rank()
    mine, every = mine[every >= 0], every[every >= 0]
    return Rows(int(every.sum()), mine.repeat_interleave(every).nonzero()[:, 0])
