"""DDPAE: video as a few objects, each with a constant appearance and a moving pose.

Hsieh, Liu, Huang, Fei-Fei and Niebles, "Learning to Decompose and Disentangle Representations for
Video Prediction", NeurIPS 2018.
"""

import math
from collections.abc import Callable

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional

from vidreason.core.errors import DataError, check_ranges
from vidreason.decomposition.clip import Decomposition
from vidreason.decomposition.networks.spatial import compose, crop, paste

Draw = Callable[[str, Tensor, Tensor], Tensor]
"""Chooses the value of a latent, given its name and its posterior mean and standard deviation."""

SIGMA = 0.3
"""Standard deviation of a pixel's observation noise."""

_FLOOR = 1e-6  # of standard deviations: softplus underflows to 0, which has no finite logarithm


class DDPAE(nn.Module):
    """Published DDPAE model and inference network.

    The generative model of a clip of L = T + K frames x_t, of which K are predicted from T, has for
    each of N components:

    - Content z ~ N(0, 1), drawn once and decoded once to an object of half the frame's side.
    - Initial pose ~ N((s0, 0, 0), (0.2, 1, 1)²) and increments b_t ~ N(0, 0.1²), t = 1 ... L.
    - Raw pose r_t = initial pose + b_1 + ... + b_t; scale s_t = r_t[0] clamped to s0 ± 1;
      (x_t, y_t) = tanh(r_t[1:]) (s_t - 1/2).
    - x_t ~ N(min(1, sum of the objects pasted at their poses), 0.3²).

    Posteriors are Gaussian. An LSTM over time reads the frames' features and the hidden states of
    the previous component (zeros for the first) and gives b_1 ... b_T. One over components reads
    its first states and gives the initial pose. A third continues without frames and gives b_{T+1}
    ... b_L. A fourth reads the windows that the poses crop from the input frames and gives z.

    The mathematics is that of the published code, with fewer operations: each object is decoded
    once, pasting and cropping are matrix products, LSTMs are one call per component, and the KL
    divergences are analytic. (The running variances of the decoder's batch normalization come from
    L times fewer, otherwise equal, samples.)

    Without `disentangle` there is one code per component *and frame*, c_t ~ N(0, 1), from which a
    whole frame is decoded: no constant content, no pose, no window. Its posteriors are read from
    the same LSTMs. This is our reading of the paper's ablation, whose code was not published.

    Args:
        components: Number of components N.
        size: Frame side S in pixels, a power of two from 16.
        channels: Channels C of the frames.
        hidden: Width H of the LSTMs.
        scale_prior: Prior mean s0 of the scale, above 1; a window is S / s0 pixels wide.
        content: Width of z.
        feature: Width of a frame's features.
        width: Channels of the outermost convolutions, doubled in each layer.
        independent_components: Whether prediction ignores the previous component.
        disentangle: Whether content and pose are separate latents, see above.

    Raises:
        DataError: An option is out of range.
    """

    initial_prior: Tensor

    def __init__(
        self,
        components: int = 2,
        size: int = 64,
        channels: int = 1,
        hidden: int = 64,
        scale_prior: float = 2.0,
        content: int = 128,
        feature: int = 256,
        width: int = 8,
        independent_components: bool = False,
        disentangle: bool = True,
    ) -> None:
        super().__init__()
        check_ranges(
            "model.net",
            ("components", components, 1, 100),
            ("channels", channels, 1, 100),
            ("hidden", hidden, 1, 4096),
            ("content", content, 1, 4096),
            ("feature", feature, 1, 4096),
            ("width", width, 1, 256),
        )
        if not 16 <= size <= 1024 or size & (size - 1):
            problem = f"must be a power of two between 16 and 1024, got {size}"
            raise DataError("model.net.size", problem, "correct the option")
        if not 1 < scale_prior <= size / 4:
            most = f"{size // 4} (a quarter of the size)"
            problem = f"must be above 1 and at most {most}, got {scale_prior}"
            raise DataError("model.net.scale_prior", problem, "correct the option")
        self.components, self.size, self.channels, self.hidden = components, size, channels, hidden
        self.scale_prior, self.disentangle = scale_prior, disentangle
        # Side of the decoded image: an object, or a whole frame.
        self.side = size // 2 if disentangle else size

        self.features = _encoder(channels, size, feature, width)
        self.encoder = nn.LSTM(feature + hidden, hidden, batch_first=True)
        seen = hidden if independent_components else 2 * hidden
        self.predictor = nn.LSTM(seen, hidden, batch_first=True)
        if disentangle:
            # Heads return means, then standard deviations before softplus.
            self.beta = nn.Linear(hidden, 2 * 3)
            self.starter = nn.LSTM(hidden, hidden, batch_first=True)
            self.initial_pose = nn.Linear(hidden, 2 * 3)
            self.appearance = _encoder(channels, self.side, content, width, _Unshuffled)
            self.gatherer = nn.LSTM(content, hidden, batch_first=True)
        self.content = nn.Linear(hidden, 2 * content)
        self.decoder = _decoder(content, self.side, channels, width)
        prior = torch.tensor([[scale_prior, 0.0, 0.0], [0.2, 1.0, 1.0]])
        self.register_buffer("initial_prior", prior, persistent=False)
        self.apply(_initialise)
        # Convolutions with few channels are a third faster on a CPU in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def model(self, frames: Tensor, t_in: int) -> None:
        """Generative model, for Pyro.

        Args:
            frames: Input frames and those to predict, (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.
        """
        with pyro.plate("batch", len(frames), dim=-1):
            latents = []
            for name, *shape in self._sites(t_in, frames.shape[1] - t_in):
                prior = Normal(*self._prior(name)).expand([len(frames), *shape])
                latents.append(pyro.sample(name, prior.to_event(len(shape))))
            mean = _clip(self._render(latents))
            pyro.sample("frames", Normal(mean, SIGMA).to_event(4), obs=frames)

    def guide(self, frames: Tensor, t_in: int) -> None:
        """Inference network, for Pyro; it sees the first `t_in` frames of (B, L, C, S, S)."""

        def draw(name: str, mean: Tensor, std: Tensor) -> Tensor:
            return pyro.sample(name, Normal(mean, std).to_event(mean.dim() - 1))

        with pyro.plate("batch", len(frames), dim=-1):
            seen = frames[:, :t_in]
            self._latents(seen, self._states(seen, frames.shape[1] - t_in), draw)

    def elbo(self, frames: Tensor, t_in: int) -> Tensor:
        """Returns the evidence lower bound, with one sample of the latents.

        KL divergences are analytic. The value is the negative of Pyro's `TraceMeanField_ELBO` for
        the same random numbers.

        Args:
            frames: (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.

        Returns:
            (B,) nats.
        """
        divergence = frames.new_zeros(len(frames))

        def draw(name: str, mean: Tensor, std: Tensor) -> Tensor:
            nonlocal divergence
            posterior = Normal(mean, std, validate_args=False)
            prior = Normal(*self._prior(name), validate_args=False)
            divergence = divergence + kl_divergence(posterior, prior).flatten(1).sum(1)
            return posterior.rsample()

        seen = frames[:, :t_in]
        latents = self._latents(seen, self._states(seen, frames.shape[1] - t_in), draw)
        return self._log_likelihood(self._render(latents), frames) - divergence

    def loss(self, frames: Tensor, t_in: int) -> Tensor:
        """Returns the training loss: the negative mean of `elbo`, in nats per clip."""
        return -self.elbo(frames, t_in).mean()

    @torch.no_grad()
    def decompose(self, frames: Tensor, t_out: int) -> Decomposition:
        """Reconstructs and predicts frames with all latents at their posterior means.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Number of frames to predict, K.
        """
        latents = self._latents(frames, self._states(frames, t_out), lambda _, mean, std: mean)
        if self.disentangle:
            pose = self._pose(torch.cat(latents[:2], 1), latents[2])
            components = paste(self._objects(latents[3])[:, None], pose, self.size)
            scale, *shift = pose.unbind(-1)
            # With aligned corners, -1 and 1 are the centres of the first and the last pixel.
            centre = torch.stack([(1 - x / scale) * (self.size - 1) / 2 + 0.5 for x in shift], -1)
            sides = self.size / scale
        else:
            components = self._objects(torch.cat(latents, 1))
            ink = components.sum(-3)
            axis = torch.arange(self.size, dtype=ink.dtype, device=ink.device) + 0.5
            marginals = torch.stack([ink.sum(-2), ink.sum(-1)], -2)
            centre = marginals @ axis / marginals.sum(-1)
            sides = torch.full_like(centre[..., 0], self.size)
        return Decomposition(components.sum(2).clamp(max=1), components, centre, sides)

    @torch.no_grad()
    def sample(self, frames: Tensor, t_out: int, samples: int) -> Tensor:
        """Samples futures of the input frames, each from its own draw of all latents.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Number of frames to predict, K.
            samples: Draws for each clip.

        Returns:
            (samples, B, K, C, S, S), means of the observation in [0, 1].
        """
        states = self._states(frames, t_out)
        futures = []
        for _ in range(samples):
            latents = self._latents(frames, states, lambda _, mean, std: torch.normal(mean, std))
            futures.append(self._render(latents)[:, -t_out:].clamp(max=1))
        return torch.stack(futures)

    def _sites(self, t_in: int, t_out: int) -> list[tuple[str, *tuple[int, ...]]]:
        """Returns names and shapes of a clip's latents, in the order of `_latents`."""
        wide, count = self.content.out_features // 2, self.components
        if not self.disentangle:
            return [("input_code", t_in, count, wide), ("pred_code", t_out, count, wide)]
        return [
            ("input_beta", t_in, count, 3),
            ("pred_beta", t_out, count, 3),
            ("initial_pose", count, 3),
            ("content", count, wide),
        ]

    def _prior(self, name: str) -> tuple[Tensor, Tensor]:
        """Returns the prior mean and standard deviation of a latent."""
        if name == "initial_pose":
            return self.initial_prior[0], self.initial_prior[1]
        std = 0.1 if name.endswith("beta") else 1.0
        return self.initial_prior.new_tensor(0.0), self.initial_prior.new_tensor(std)

    def _states(self, frames: Tensor, t_out: int) -> tuple[Tensor, Tensor]:
        """Returns hidden states for the T input frames, (B, T, N, H), and for the K next ones."""
        if not frames.is_floating_point():
            raise DataError("frames", f"dtype is {frames.dtype}", "pass floats in [0, 1]")
        expected = (self.channels, self.size, self.size)
        if frames.dim() != 5 or frames.shape[2:] != expected or min(frames.shape[1], t_out) < 1:
            problem = f"shape {tuple(frames.shape)}, {t_out} to predict"
            sides = ", ".join(map(str, expected))
            fix = f"pass (clips, frames, {sides}) and predict at least 1"
            raise DataError("frames", problem, fix)
        features = self.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        states, cells = self._encode(features)
        return states, self._predict(states[:, -1], cells, t_out)

    def _encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states (B, T, N, H) and last cells (B, N, H) from features (B, T, F)."""
        states, cells = [features.new_zeros(*features.shape[:2], self.hidden)], []
        for _ in range(self.components):
            state, (_, cell) = self.encoder(torch.cat([features, states[-1]], -1))
            states.append(state)
            cells.append(cell[0])
        return torch.stack(states[1:], 2), torch.stack(cells, 1)

    def _predict(self, state: Tensor, cell: Tensor, steps: int) -> Tensor:
        """Returns states (B, K, N, H) of the next frames from the last ones (B, N, H).

        The published cell takes its own output and that of the previous component as input. Its
        own output is its state, so half of the input weights add to the recurrent weights.
        """
        own, recurrent, *biases = self.predictor.all_weights[0]
        sums, other = recurrent + own[:, : self.hidden], own[:, self.hidden :]
        states = [state.new_zeros(len(state), steps, self.hidden)]
        if not other.numel():  # independent components
            other = torch.zeros_like(sums)
        weights = [other, sums, *biases]
        for h, c in zip(state.unbind(1), cell.unbind(1), strict=True):
            start = (h[None].contiguous(), c[None].contiguous())
            # Weights, with biases; 1 layer; no dropout; not bidirectional; batch first.
            found = torch.lstm(states[-1], start, weights, True, 1, 0.0, self.training, False, True)
            states.append(found[0])
        return torch.stack(states[1:], 2)

    def _latents(self, frames: Tensor, states: tuple[Tensor, Tensor], draw: Draw) -> list[Tensor]:
        """Returns values of all latents given the input frames, in the order of `_sites`."""
        seen, coming = states
        if not self.disentangle:
            past = draw("input_code", *_gaussian(self.content(seen)))
            return [past, draw("pred_code", *_gaussian(self.content(coming)))]
        past = draw("input_beta", *_gaussian(self.beta(seen)))
        future = draw("pred_beta", *_gaussian(self.beta(coming)))
        first = draw("initial_pose", *_gaussian(self.initial_pose(self.starter(seen[:, 0])[0])))
        summary = self._gather(frames, self._pose(past, first))
        return [past, future, first, draw("content", *_gaussian(self.content(summary)))]

    def _gather(self, frames: Tensor, pose: Tensor) -> Tensor:
        """Returns summaries (B, N, H) over time of the windows at poses (B, T, N, 3)."""
        windows = crop(frames, pose, self.side).transpose(1, 2)  # (B, N, T, C, s, s)
        looks = self.appearance(windows.flatten(0, 2)).unflatten(0, (-1, frames.shape[1]))
        return self.gatherer(looks)[0][:, -1].unflatten(0, windows.shape[:2])

    def _pose(self, beta: Tensor, first: Tensor) -> Tensor:
        """Returns poses (B, L, N, 3) from increments (B, L, N, 3) and initial poses (B, N, 3)."""
        raw = first[:, None] + beta.cumsum(1)
        scale = raw[..., :1].clamp(self.scale_prior - 1, self.scale_prior + 1)
        return torch.cat([scale, raw[..., 1:].tanh() * (scale - 0.5)], -1)

    def _objects(self, code: Tensor) -> Tensor:
        """Decodes codes (..., D) to (..., C, s, s) in (0, 1)."""
        return self.decoder(code.flatten(0, -2)[..., None, None]).unflatten(0, code.shape[:-1])

    def _render(self, latents: list[Tensor]) -> Tensor:
        """Returns the sum of the components, (B, L, C, S, S), which may exceed 1."""
        if not self.disentangle:
            return self._objects(torch.cat(latents, 1)).sum(2)
        past, future, first, content = latents
        pose = self._pose(torch.cat([past, future], 1), first)
        return compose(self._objects(content), pose, self.size)

    def _log_likelihood(self, drawn: Tensor, frames: Tensor) -> Tensor:
        """Returns `log_likelihood` given the sum of the components."""
        return log_likelihood(_clip(drawn), frames)


def log_likelihood(mean: Tensor, frames: Tensor) -> Tensor:
    """Returns the log-probability of each clip under N(mean, 0.3²), (B,) nats.

    Args:
        mean: (B, L, C, S, S) in [0, 1].
        frames: (B, L, C, S, S) in [0, 1].
    """
    constant = frames[0].numel() * (math.log(SIGMA) + math.log(2 * math.pi) / 2)
    error = functional.mse_loss(mean, frames, reduction="none").flatten(1).sum(1)
    return -error / (2 * SIGMA**2) - constant


def _clip(drawn: Tensor) -> Tensor:
    """Returns min(1, drawn) with a one-pass gradient, where that of `clamp` takes three."""
    return functional.hardtanh(drawn, -1, 1)


def _gaussian(head: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation from the output of a head."""
    mean, raw = head.chunk(2, -1)
    return mean, functional.softplus(raw) + _FLOOR


def _encoder(
    channels: int, side: int, out: int, width: int, first: type[nn.Conv2d] = nn.Conv2d
) -> nn.Sequential:
    """Halves the side down to 4 while doubling the channels; the last layer is global."""
    layers = [first(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    while (side := side // 2) > 4:
        layers += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width *= 2
    return nn.Sequential(*layers, _Whole(width, out, 4, bias=False))


class _Unshuffled(nn.Conv2d):
    """Computes a 4 x 4 convolution of stride 2 as a 2 x 2 one of the space-to-depth image.

    On a CPU, the gradient with respect to four channels is faster than that with respect to one.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2))
        kernel = kernel.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)  # (out, 4 C, 2, 2)
        x = functional.pixel_unshuffle(functional.pad(x, (1, 1, 1, 1)), 2)
        layout = torch.channels_last
        return functional.conv2d(
            x.contiguous(memory_format=layout), kernel.contiguous(memory_format=layout)
        )


class _Whole(nn.Conv2d):
    """Computes a convolution as large as its input as a matrix product, (M, out)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return functional.linear(x.permute(0, 2, 3, 1).flatten(1), weight)


def _decoder(code: int, side: int, channels: int, width: int) -> nn.Sequential:
    """Mirrors `_encoder`."""
    layers: list[nn.Module] = []
    seen, wide, stride, padding = code, width * side // 8, 1, 0
    while wide >= width:
        layers += [
            nn.ConvTranspose2d(seen, wide, 4, stride, padding, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        ]
        seen, wide, stride, padding = wide, wide // 2, 2, 1
    last = nn.ConvTranspose2d(seen, channels, 4, stride, padding, bias=False)
    return nn.Sequential(*layers, last, nn.Sigmoid())


def _initialise(module: nn.Module) -> None:
    """Initializes weights as published; LSTMs keep PyTorch's default."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
