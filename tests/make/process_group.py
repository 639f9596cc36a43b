"""One process of a distributed group; imports little, since every process has to."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from vidreason.core import processes


def draw(rank: int, folder: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """Joins a group of two processes and draws random numbers for the rows of this one.

    Args:
        rank: Index of this process; its samples are every second, starting there.
        folder: Empty folder shared by both; each writes its result to `RANK.pt`.
        sizes: Number of rows of each sample of the whole batch.

    Returns:
        Number of rows of both processes, (2, n, 3) random numbers, and 1 + 2 as a sum over both.
    """
    meet = f"file://{folder / 'meet'}"
    dist.init_process_group(
        "gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    try:
        mine = torch.tensor(sizes[rank::2])
        found = processes.rows(mine)
        torch.manual_seed(0)
        drawn = found.draw(torch.rand, (2, int(mine.sum()), 3), 1)
        total = processes.total(torch.tensor(rank + 1.0))
        result = {"every": found.every, "drawn": drawn, "total": float(total)}
        torch.save(result, folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return result
