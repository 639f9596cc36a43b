"""DDPAE computed step by step as published, the reference of the fast implementation.

Every frame decodes its own objects, spatial transformers sample a grid, recurrences run cell by
cell, and the predictor's input is its own output and that of the previous component.
"""

from typing import Any

import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from vidreason.decomposition.networks.ddpae import DDPAE, SIGMA


class PlainDDPAE(DDPAE):
    """Has the same weights (`load_state_dict`) and results as `DDPAE`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.to(memory_format=torch.contiguous_format)
        for network in [self.features] + ([self.appearance] if self.disentangle else []):
            for i, m in enumerate(network):
                if isinstance(m, nn.Conv2d):
                    options = (4, m.stride, m.padding)
                    network[i] = nn.Conv2d(m.in_channels, m.out_channels, *options, bias=False)

    def _encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        features = features.flatten(2)
        batch, steps, _ = features.shape
        before = [features.new_zeros(batch, self.hidden)] * steps
        states, cells = [], []
        for _ in range(self.components):
            h = c = features.new_zeros(batch, self.hidden)
            own = []
            for t in range(steps):
                seen = torch.cat([features[:, t], before[t]], 1)
                h, c = torch.lstm_cell(seen, (h, c), *self.encoder.all_weights[0])
                own.append(h)
            before = own
            states.append(torch.stack(own, 1))
            cells.append(c)
        return torch.stack(states, 2), torch.stack(cells, 1)

    def _predict(self, state: Tensor, cell: Tensor, steps: int) -> Tensor:
        before = [torch.zeros_like(state[:, 0])] * steps
        states = []
        for i in range(self.components):
            h, c = state[:, i], cell[:, i]
            own = []
            for t in range(steps):
                seen = torch.cat([h, before[t]], 1)[:, : self.predictor.input_size]
                h, c = torch.lstm_cell(seen, (h, c), *self.predictor.all_weights[0])
                own.append(h)
            before = own
            states.append(torch.stack(own, 1))
        return torch.stack(states, 2)

    def _gather(self, frames: Tensor, pose: Tensor) -> Tensor:
        batch, steps, count, _ = pose.shape
        frames = torch.stack([frames] * count, 2).flatten(0, 2)
        scale, x, y = pose.flatten(0, 2).unbind(-1)
        windows = resample(frames, 1 / scale, -x / scale, -y / scale, self.side)
        features = self.appearance(windows).view(batch, steps, count, -1)
        summaries = []
        for i in range(count):
            h = c = features.new_zeros(batch, self.hidden)
            for t in range(steps):
                h, c = torch.lstm_cell(features[:, t, i], (h, c), *self.gatherer.all_weights[0])
            summaries.append(h)
        return torch.stack(summaries, 1)

    def _pose(self, beta: Tensor, first: Tensor) -> Tensor:
        poses, raw = [], first
        for t in range(beta.shape[1]):
            raw = raw + beta[:, t]
            scale = raw[..., :1].clamp(self.scale_prior - 1, self.scale_prior + 1)
            poses.append(torch.cat([scale, torch.tanh(raw[..., 1:]) * (scale - 0.5)], -1))
        return torch.stack(poses, 1)

    def _render(self, latents: list[Tensor]) -> Tensor:
        if not self.disentangle:
            return super()._render(latents)
        past, future, first, content = latents
        pose = self._pose(torch.cat([past, future], 1), first)
        content = torch.stack([content] * pose.shape[1], 1)
        objects = self.decoder(content.flatten(0, 2)[..., None, None])
        scale, x, y = pose.flatten(0, 2).unbind(-1)
        drawn = resample(objects, scale, x, y, self.size)
        return drawn.unflatten(0, pose.shape[:3]).sum(2)

    def _log_likelihood(self, drawn: Tensor, frames: Tensor) -> Tensor:
        return Normal(drawn.clamp(max=1), SIGMA).log_prob(frames).flatten(1).sum(1)


def resample(images: Tensor, scale: Tensor, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Spatial transformer of PyTorch, from (M, C, h, h) and (M,) each to (M, C, size, size)."""
    zero = torch.zeros_like(scale)
    theta = torch.stack([scale, zero, x, zero, scale, y], -1).view(-1, 2, 3)
    grid = affine_grid(theta, [*images.shape[:2], size, size], align_corners=True)
    return grid_sample(images, grid, align_corners=True)
