"""EquivariantDDPAE: a DDPAE whose inference network is equivariant to translation.

The generative side is that of `networks.ddpae` (Hsieh et al., NeurIPS 2018). The inference of poses
is new: it never regresses coordinates from a flat code.
"""

import math
from typing import Literal, NamedTuple

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional

from vidreason.core.errors import DataError, check_choice, check_ranges
from vidreason.decomposition.clip import Decomposition
from vidreason.decomposition.networks.convolutions import convolutions
from vidreason.decomposition.networks.ddpae import SIGMA, log_likelihood
from vidreason.decomposition.networks.drawing import (
    centre_of_mass,
    draw,
    draw_expected,
    render,
    screen,
    visible,
)
from vidreason.decomposition.networks.forecaster import (
    AxisForecast,
    RelationalForecast,
    acceleration_prior,
    axis_loss,
    errors_alike,
    scene_loss,
)
from vidreason.decomposition.networks.localization import (
    CELL,
    REACH,
    appearance,
    grid,
    matched_filter,
    soft_argmax,
)


class _Posterior(NamedTuple):
    """Output of the inference network for N components in T frames."""

    content: tuple[Tensor, Tensor]  # mean and standard deviation, (B, N, D, s/4, s/4) each
    track: Tensor  # mean window centres, (B, N, 2, T) px


class EquivariantDDPAE(nn.Module):
    """Decomposes clips into N components, each with a constant appearance and a track.

    The generative model of a clip of L = T + K frames x_t, of which K are predicted from T, has for
    each component:

    - Content z ~ N(0, 1): a feature map, decoded once to an object o of `window` pixels a side.
    - Track: T positions with constant velocity up to normally distributed accelerations, then K
      with a Student's t distribution, per axis, around a forecast from the first T. Heavy tails
      keep the few components that lost their object from widening the spread for all and from
      dominating the loss. Errors within a forecast are correlated: a misjudged velocity stays
      misjudged. The forecast, its spread and the accelerations are learned.
    - x_t ~ N(1 - prod_i (1 - o_i pasted at its position), 0.3²), which is close to the brighter of
      two objects where they overlap.

    Inference runs component by component; each sees what those before left unexplained:

    1. *Scout.* A convolutional network scores every fourth pixel of each frame, given its two
       neighbours in time. A soft-argmax around the best score near the position extrapolated from
       the two frames before gives a first track, which is translation-equivariant by construction.
    2. *Content.* Read from windows along the track: their mean over time, their mean where no other
       component was drawn, and their darkest values.
    3. *Matched filter*, repeated `sweeps` times. With everything else explained away, the
       likelihood of each position within 3 pixels is a correlation of window and object. The
       posterior mean is the new track, from which the content is read again.

    The scout is trained through the reconstruction from its own tracks. In training, tracks are
    inferred in all L frames. The forecast is trained on them in separate steps, `forecast_loss`,
    because it is small and needs many more steps than the rest.

    Content and pose share a free offset, so the forecast sees tracks of the objects' centres of
    mass, rounded to whole pixels if `whole_pixels` is set: what is drawn on the pixel grid has no
    finer position, and MNIST's digits are centred by the pixel.

    Args:
        t_in: Input frames T, at least 3.
        t_out: Predicted frames K.
        components: Number of components N.
        size: Frame side S in pixels, a multiple of 4.
        channels: Channels C of the frames.
        window: Object side s in pixels, a multiple of 4, at most `size`.
        width: Channels of the scout; the other convolutions have about as many.
        content: Channels D of the content.
        sweeps: Passes of the matched filter.
        forecaster: Network that forecasts tracks: `axis` (`AxisForecast`) for objects that pass
            through each other, `relational` (`RelationalForecast`) for objects that may collide,
            also beyond K frames, or `independent`, the latter without interactions.
        forecast: Width of the network that forecasts tracks.
        replay: Tracks in each training step of the forecast.
        whole_pixels: Round the forecast's tracks to whole pixels.
        bfloat16: Run the scout's convolutions in bfloat16; the positions stay in float32.

    Raises:
        DataError: An option is out of range.
    """

    memory: Tensor
    remembered: Tensor
    cells: Tensor
    shifts: Tensor

    training_only = ("memory", "remembered")
    """Buffers that are not needed to apply the network."""

    def __init__(
        self,
        t_in: int = 10,
        t_out: int = 10,
        components: int = 2,
        size: int = 64,
        channels: int = 1,
        window: int = 32,
        width: int = 24,
        content: int = 8,
        sweeps: int = 2,
        forecaster: Literal["axis", "relational", "independent"] = "axis",
        forecast: int = 256,
        replay: int = 256,
        whole_pixels: bool = True,
        bfloat16: bool = True,
    ) -> None:
        super().__init__()
        check_ranges(
            "model.net",
            ("t_in", t_in, 3, 1000),
            ("t_out", t_out, 1, 1000),
            ("components", components, 1, 100),
            ("size", size, 16, 1024),
            ("channels", channels, 1, 100),
            ("window", window, 8, size),
            ("width", width, 2, 1024),
            ("content", content, 1, 1024),
            ("sweeps", sweeps, 0, 100),
            ("forecast", forecast, 1, 4096),
            ("replay", replay, 1, 16384),
        )
        check_choice("model.net.forecaster", forecaster, ("axis", "relational", "independent"))
        for name, value in (("size", size), ("window", window)):
            if value % 4:
                problem = f"must be a multiple of 4, got {value}"
                raise DataError(f"model.net.{name}", problem, "correct the option")
        self.t_in, self.t_out, self.components = t_in, t_out, components
        # The forecast's unit of length: half of the range in which a window can move.
        self.unit = max(size - window, CELL) / 2
        self.size, self.channels, self.window = size, channels, window
        self.sweeps, self.replay, self.depth = sweeps, replay, content
        self.whole_pixels, self.fast = whole_pixels, bfloat16

        self.scout, self.look, self.decoder = convolutions(channels, width, content)
        # A track is forecast alone, or with all others of its clip.
        self.scene = () if forecaster == "axis" else (components,)
        self.forecast: AxisForecast | RelationalForecast
        if forecaster == "axis":
            self.forecast = AxisForecast(t_in, t_out, forecast, whole_pixels / self.unit)
        else:
            alone = forecaster == "independent"
            self.forecast = RelationalForecast(t_in, t_out, forecast, alone)
        # log px: inferred position; velocity and acceleration of the prior.
        self.log_std = nn.Parameter(torch.tensor([0.05, 3.0, 1.0]).log())

        centres = torch.arange(size // CELL) * CELL + CELL / 2
        self.register_buffer("cells", grid(centres), persistent=False)
        self.register_buffer("shifts", grid(torch.arange(-REACH, REACH + 1.0)), persistent=False)
        # Persistent, so that a resumed run continues as if it had not been interrupted. Each row
        # has a component's track, its rounding remainder, and in scenes whether it is visible.
        columns = t_in + t_out + 1 + len(self.scene)
        self.register_buffer("memory", torch.zeros(16384, *self.scene, 2, columns))
        self.register_buffer("remembered", torch.tensor(0))

    def model(self, frames: Tensor, t_in: int) -> None:
        """Generative model, for Pyro.

        Args:
            frames: Input frames and those to predict, (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.
        """
        self._check(frames, self.t_in + self.t_out, t_in)
        count = (len(frames), self.components)
        motion = acceleration_prior(self.t_in, self.size, *self.log_std[1:].exp())
        with pyro.plate("batch", len(frames), dim=-1):
            shape = (*count, self.depth, self.window // 4, self.window // 4)
            standard = Normal(frames.new_zeros(shape), 1.0)
            objects = self._objects(pyro.sample("content", standard.to_event(4)))
            past = pyro.sample("past", motion.expand([*count, 2]).to_event(2))
            forecast = errors_alike(*self._forecast(past, objects.detach()))
            future = pyro.sample("future", forecast.to_event(2))
            mean = render(objects, torch.cat([past, future], -1), self.size)
            pyro.sample("frames", Normal(mean, SIGMA).to_event(4), obs=frames)

    def guide(self, frames: Tensor, t_in: int) -> None:
        """Inference network, for Pyro; it infers the tracks in all L frames."""
        self._check(frames, self.t_in + self.t_out, t_in)
        found = self._infer(frames)[-1]
        std = self.log_std[0].exp()
        with pyro.plate("batch", len(frames), dim=-1):
            pyro.sample("content", Normal(*found.content).to_event(4))
            pyro.sample("past", Normal(found.track[..., :t_in], std).to_event(3))
            pyro.sample("future", Normal(found.track[..., t_in:], std).to_event(3))

    def elbo(self, frames: Tensor, t_in: int) -> Tensor:
        """Returns the evidence lower bound, with one sample of the latents.

        KL divergences are analytic except that of the predicted positions, as in Pyro's
        `TraceMeanField_ELBO`, whose negative this equals for the same random numbers.

        Args:
            frames: (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.

        Returns:
            (B,) nats.
        """
        self._check(frames, self.t_in + self.t_out, t_in)
        return self._elbo(frames, self._infer(frames)[-1])[0]

    def loss(self, frames: Tensor, t_in: int) -> Tensor:
        """Returns the training loss in nats per clip, and stores the tracks for `forecast_loss`.

        It is the negative ELBO plus the error of the reconstruction from the scout's tracks alone.

        Args:
            frames: (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.
        """
        self._check(frames, self.t_in + self.t_out, t_in)
        passes = self._infer(frames)
        elbo, tracks = self._elbo(frames, passes[-1])
        slots = torch.arange(len(tracks), device=tracks.device) + self.remembered
        self.memory[slots % len(self.memory)] = tracks[: len(self.memory)]
        self.remembered += len(tracks)
        if not self.sweeps:
            return -elbo.mean()
        first = passes[0]
        error = render(self._objects(first.content[0]), first.track, self.size) - frames
        scouted = error.square().flatten(1).sum(1) / (2 * SIGMA**2)
        return (scouted - elbo).mean()

    def forecast_loss(self) -> Tensor:
        """Returns the forecast's loss on a random choice of the latest tracks, in nats per track.

        See `axis_loss` and `scene_loss`.
        """
        kept = max(1, min(int(self.remembered), len(self.memory)))
        count = max(1, self.replay // math.prod(self.scene))
        rows = self.memory[torch.randint(kept, [count], device=self.memory.device)]
        if isinstance(self.forecast, RelationalForecast):
            return scene_loss(self.forecast, rows)
        return axis_loss(self.forecast, rows)

    @torch.no_grad()
    def decompose(self, frames: Tensor, t_out: int) -> Decomposition:
        """Reconstructs the input at the posterior means and predicts the mean of the next frames.

        The predicted image of a component is its average over the distribution of its position.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Frames to predict, at most K; at most 10,000 with a relational forecaster.
        """
        self._check(frames, self.t_in, self.t_in, t_out)
        found = self._infer(frames)[-1]
        objects = self._objects(found.content[0])
        forecast = self._forecast(found.track, objects, t_out)
        mean, std = (part[..., :t_out] for part in forecast[:2])
        track = torch.cat([found.track, mean], -1)
        reconstructed = draw(objects, found.track, self.size)
        predicted = draw_expected(objects, mean, std, self.size)
        drawn = torch.cat([reconstructed, predicted], 2)
        sides = torch.full_like(track[..., 0, :], self.window)
        return Decomposition(
            screen(drawn.unbind(1)), drawn.transpose(1, 2), track.permute(0, 3, 1, 2), sides.mT
        )

    @torch.no_grad()
    def sample(self, frames: Tensor, t_out: int, samples: int) -> Tensor:
        """Samples futures of the input frames, each from its own draw of all latents.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Frames to predict, as in `decompose`.
            samples: Draws for each clip.

        Returns:
            (samples, B, t_out, C, S, S), means of the observation in [0, 1].
        """
        self._check(frames, self.t_in, self.t_in, t_out)
        found = self._infer(frames)[-1]
        futures = []
        for _ in range(samples):
            objects = self._objects(torch.normal(*found.content))
            track = found.track + self.log_std[0].exp() * torch.randn_like(found.track)
            future = errors_alike(*self._forecast(track, objects, t_out)).sample()[..., :t_out]
            futures.append(render(objects, future, self.size))
        return torch.stack(futures)

    def _check(self, frames: Tensor, length: int, t_in: int, t_out: int = 1) -> None:
        if not frames.is_floating_point():
            raise DataError("frames", f"dtype is {frames.dtype}", "pass floats in [0, 1]")
        expected = (length, self.channels, self.size, self.size)
        most = 10_000 if self.scene else self.t_out
        if frames.shape[1:] != expected or t_in != self.t_in or not 1 <= t_out <= most:
            shape = f"{tuple(frames.shape)}, {t_in} of them input, {t_out} to predict"
            fix = f"pass (clips, {', '.join(map(str, expected))}), {self.t_in}, 1 to {most}"
            raise DataError("frames", f"shape {shape}", fix)

    def _elbo(self, frames: Tensor, found: _Posterior) -> tuple[Tensor, Tensor]:
        """Returns the ELBO, (B,) nats, and the rows of `memory` for the inferred tracks."""
        content = Normal(*found.content, validate_args=False)
        objects = self._objects(content.rsample())
        # In two draws, like the two sites in Pyro's guide.
        past, future = (
            Normal(mean, self.log_std[0].exp(), validate_args=False).to_event(1)
            for mean in (found.track[..., : self.t_in], found.track[..., self.t_in :])
        )
        before, after = past.rsample(), future.rsample()
        track = torch.cat([before, after], -1)
        prior = errors_alike(*self._forecast(before, objects.detach()))
        divergence = kl_divergence(content, Normal(0.0, 1.0)).flatten(1).sum(1)
        motion = acceleration_prior(self.t_in, self.size, *self.log_std[1:].exp())
        divergence = divergence + kl_divergence(past, motion).flatten(1).sum(1)
        # The divergence from Student's t has no closed form.
        excess = future.log_prob(after) - prior.log_prob(after)
        divergence = divergence + excess.flatten(1).sum(1)
        likelihood = log_likelihood(render(objects, track, self.size), frames)
        shown = visible(objects.detach())
        whole, rest = self._centre(objects.detach())
        rows = torch.cat([self._normalized(track.detach(), whole), rest], -1)
        if self.scene:
            flag = shown[..., None, None].expand(-1, -1, 2, -1)
            return likelihood - divergence, torch.cat([rows, flag], -1)
        return likelihood - divergence, rows[shown]

    def _infer(self, frames: Tensor) -> list[_Posterior]:
        """Returns the posterior from the scout, then that after each matched-filter pass."""
        empty = torch.zeros_like(frames)
        drawn = [empty] * self.components
        tracks: list[Tensor] = [empty] * self.components
        contents: list[tuple[Tensor, Tensor]] = [(empty, empty)] * self.components
        objects: list[Tensor] = [empty] * self.components
        passes = []
        for sweep in range(1 + self.sweeps):
            for i in range(self.components):
                others = [c for j, c in enumerate(drawn) if j != i and c is not empty]
                explained = screen(others) if others else empty
                rest = (frames - explained).clamp(min=0) if others else frames
                if sweep:
                    tracks[i] = matched_filter(rest, objects[i], tracks[i], self.shifts)
                else:
                    tracks[i] = self._scouted(rest)
                contents[i] = self._content(frames, explained, tracks[i])
                objects[i] = self._objects(contents[i][0]).detach()
                if sweep < self.sweeps or i + 1 < self.components:
                    track = tracks[i].detach()[:, None]
                    drawn[i] = draw(objects[i][:, None], track, self.size)[:, 0]
            mean, std = (torch.stack(part, 1) for part in zip(*contents, strict=True))
            passes.append(_Posterior((mean, std), torch.stack(tracks, 1)))
        return passes

    def _scouted(self, rest: Tensor) -> Tensor:
        """Returns the first track (B, 2, T) of a component from the unexplained frames."""
        before = torch.cat([rest[:, :1], rest[:, :-1]], 1)
        after = torch.cat([rest[:, 1:], rest[:, -1:]], 1)
        seen = torch.cat([before, rest, after], 2).flatten(0, 1)
        with torch.autocast(rest.device.type, torch.bfloat16, enabled=self.fast):
            scores = self.scout(seen.contiguous(memory_format=torch.channels_last))
        scores = scores.float().reshape(*rest.shape[:2], -1)
        return soft_argmax(scores, self.cells, self.size, self.window)

    def _content(self, frames: Tensor, explained: Tensor, track: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of a component's content from T input frames."""
        t_in = self.t_in
        code = self.look(
            appearance(frames[:, :t_in], explained[:, :t_in], track[..., :t_in], self.window)
        )
        mean, raw = code.chunk(2, 1)
        return mean, functional.softplus(raw - 2) + 1e-4

    def _objects(self, content: Tensor) -> Tensor:
        """Decodes contents (..., D, s/4, s/4) to objects (..., C, s, s) in (0, 1)."""
        return self.decoder(content.flatten(0, -4)).sigmoid().unflatten(0, content.shape[:-3])

    def _forecast(
        self, past: Tensor, objects: Tensor, steps: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns means and spreads, px, of at least K positions, and the shared variance."""
        whole, rest = self._centre(objects)
        place = self._normalized(past, whole)
        mean, std, shared = self.forecast(place, rest, visible(objects), max(steps, self.t_out))
        return mean * self.unit + self.size / 2 - whole, std * self.unit, shared

    def _centre(self, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the objects' centres of mass from their middles, (B, N, 2, 1) px, in two parts.

        With `whole_pixels` these are the centre of a pixel and the remainder; else the second is 0.
        """
        centre = centre_of_mass(objects)
        if not self.whole_pixels:
            return centre, torch.zeros_like(centre)
        # Windows have an even side and lie on whole pixels, so pixel centres are at halves.
        whole = centre.floor() + 0.5
        return whole, centre - whole

    def _normalized(self, track: Tensor, centre: Tensor) -> Tensor:
        """Converts tracks from px to the forecast's coordinates, about -1 to 1."""
        track = track.round() if self.whole_pixels else track
        return (track + centre - self.size / 2) / self.unit
