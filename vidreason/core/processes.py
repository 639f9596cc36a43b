"""Training on several processes that together compute what one process would.

Each process has every nth sample of a batch. Sums that a loss divides by, and statistics of a
batch, are of all of them; random numbers are drawn for all, alike in every process, and each takes
those of its own samples. With one process nothing of this costs anything.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def total(x: Tensor) -> Tensor:
    """Sum of `x` over the processes; no gradient passes."""
    if count() > 1:
        x = x.detach().clone()
        dist.all_reduce(x)
    return x


class Rows(NamedTuple):
    """Rows of samples, in the order in which one process would have them.

    Attributes:
        every: Rows of all processes.
        ours: Which of them are of this one; None if all.
    """

    every: int
    ours: Tensor | None

    def draw(self, random: Callable[..., Tensor], shape: Sequence[int], dim: int) -> Tensor:
        """Random numbers of `shape`, with our rows along `dim`."""
        if self.ours is None:
            return random(shape)
        return random([*shape[:dim], self.every, *shape[dim + 1 :]]).index_select(dim, self.ours)


def rows(sizes: Tensor) -> Rows:
    """The rows of this process, of whose samples (B,) the sizes are given."""
    if count() == 1:
        return Rows(0, None)
    most = torch.tensor(len(sizes), device=sizes.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    padded = sizes.new_full((int(most),), -1)
    padded[: len(sizes)] = sizes
    parts = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(parts, padded)
    # Sample i of all is the (i // n)th of process i % n.
    every = torch.stack(parts, 1).flatten()
    mine = torch.arange(len(every), device=sizes.device) % count() == rank()
    mine, every = mine[every >= 0], every[every >= 0]
    return Rows(int(every.sum()), mine.repeat_interleave(every).nonzero()[:, 0])
