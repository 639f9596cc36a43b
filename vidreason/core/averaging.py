"""Exponential moving average of network weights, used for validation and prediction."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """Returns an exponential moving average of a network; buffers are copied, not averaged.

    Args:
        net: Network to average. Call `update_parameters(net)` on the result after each step.
        decay: Weight of the previous average in each step; 0 keeps the latest weights.
    """

    def step(averaged: Any, current: Any, steps: Tensor | int) -> None:
        # Smaller in the first steps, so that the initial weights are forgotten quickly.
        weight = min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averaged, current, 1 - weight)

    return AveragedModel(net, multi_avg_fn=step).requires_grad_(False)
