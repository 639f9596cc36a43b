"""The moving average of a network's weights, which is what is judged and applied."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; its buffers are those of the last step.

    Args:
        net: Whose weights; `update_parameters` moves their average.
        decay: Per step; 0 takes the last weights.
    """

    def step(averaged: Any, current: Any, steps: Tensor | int) -> None:
        # The first steps weigh more, so that the initial weights are soon forgotten.
        weight = min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averaged, current, 1 - weight)

    return AveragedModel(net, multi_avg_fn=step).requires_grad_(False)
