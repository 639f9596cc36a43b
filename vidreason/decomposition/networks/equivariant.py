"""EquivariantDDPAE: a DDPAE whose poses are found by networks that move with what they see.

The generative side is that of Hsieh et al. (NeurIPS 2018): components with a constant content and a
moving pose. The inference of poses is new: it never regresses coordinates from a flat code.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pyro
import torch
from pyro.distributions import MultivariateNormal, MultivariateStudentT, Normal
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional

from vidreason.core.errors import DataError, check_ranges
from vidreason.decomposition.clip import Decomposition
from vidreason.decomposition.networks.forecaster import (
    AxisForecast,
    RelationalForecast,
    distance_loss,
    errors_alike,
)
from vidreason.decomposition.networks.spatial import crop, paste

SIGMA = 0.3  # standard deviation of a pixel, as in DDPAE
_CELL = 4  # pixels between the places that the scout scores
_STRAY = 5.0  # pixels from where the scout expects a component, standard deviation
_REACH = 3  # pixels that the matched filter looks around
_DRIFT = 2.0  # pixels that the scout may be wrong by, standard deviation
_ROOT = math.sqrt(2 * math.pi)


class _Found(NamedTuple):
    """What the inference network says of N components in T frames.

    Attributes:
        content: Mean and standard deviation of the content, (B, N, D, s/4, s/4) each.
        track: Mean centres, (B, N, 2, T) px.
    """

    content: tuple[Tensor, Tensor]
    track: Tensor


class EquivariantDDPAE(nn.Module):
    """N components, each an appearance that stays and a track of positions.

    A clip of L = T + K frames x_t (K to be predicted from T); per component:

    - content z ~ N(0, 1), a map, decoded once to an object o of `window` pixels a side;
    - track: T positions a priori with constant velocity up to normal accelerations, then K
      positions, per axis around a forecast from the first T under Student's t, which lets the few
      components that lost their object neither widen the spread for all nor drown what others
      have to say; errors are mostly of one sign: a velocity misjudged stays misjudged. Forecasts,
      their spread and the accelerations are learned. A component may be forecast by itself, or
      from all;
    - x_t ~ N(1 - prod_i (1 - o_i pasted at its position), 0.3²), which is close to the brighter of
      the two where objects overlap.

    Inference, component by component, each seeing what the ones before left unexplained:

    1. *Scout.* A convolutional network scores every fourth pixel of each frame (and its two
       neighbours in time); a soft-argmax around the best score that is near the place expected from
       the two frames before gives a first track: translation-equivariant by construction.
    2. *Content.* From windows at the track: their mean over time, their mean where no other
       component was drawn, and their darkest values (an object that others only brighten shows
       itself there).
    3. *Matched filter*, repeated `sweeps` times. With everything else explained away, the
       likelihood of each place within 3 pixels is a correlation of window and object; its
       mean is the new track, from which the content is read again.

    The scout learns from the reconstruction that its own tracks give. In training, tracks are
    inferred in all L frames. The forecast learns from them in steps of its own, `forecast_loss`: it
    is small, and needs many more steps than the rest.

    Content and pose share a free constant, so the forecast sees tracks of the objects' centres of
    mass. With `whole_pixels`, of the pixels that these lie in: what is drawn on the pixel grid
    lets no finer place be seen, and MNIST's digits are centred by the pixel.

    Args:
        t_in: Input frames T, at least 3.
        t_out: Predicted frames K.
        components: N.
        size: Pixels S of a side of the frames, a multiple of 4.
        channels: Channels C of the frames.
        window: Pixels s of a side of the objects, a multiple of 4, at most `size`.
        width: Channels of the scout; the other convolutions have about as many.
        content: Channels D of the content.
        sweeps: Passes of the matched filter.
        forecaster: What forecasts tracks: `AxisForecast`, where objects pass through each other;
            `RelationalForecast`, where they may collide and more than K frames can be predicted;
            or the same without sight of the others, to compare with.
        forecast: Width of the network that forecasts tracks.
        replay: Tracks that the forecast learns from in each of its steps.
        whole_pixels: See above.
        bfloat16: Run the scout's convolutions in bfloat16; the positions stay in float32.

    Raises:
        DataError: An option out of range.
    """

    memory: Tensor
    remembered: Tensor
    cells: Tensor
    shifts: Tensor

    training_only = ("memory", "remembered")
    """Buffers that applying the network does not need."""

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
        if forecaster not in ("axis", "relational", "independent"):
            mend = "choose axis, relational or independent"
            raise DataError("model.net.forecaster", f"{forecaster!r} is none", mend)
        for name, value in (("size", size), ("window", window)):
            if value % 4:
                mend = "take a multiple"
                raise DataError(f"model.net.{name}", f"{value} is no multiple of 4", mend)
        self.t_in, self.t_out, self.components = t_in, t_out, components
        # What the forecast measures positions in: half of the room that a window has.
        self.unit = max(size - window, _CELL) / 2
        self.size, self.channels, self.window = size, channels, window
        self.sweeps, self.replay, self.depth = sweeps, replay, content
        self.whole_pixels, self.fast = whole_pixels, bfloat16

        leak = nn.LeakyReLU(0.1, inplace=True)
        self.scout = nn.Sequential(
            *(nn.Conv2d(3 * channels, width // 2, 5, 2, 2), leak),
            *(nn.Conv2d(width // 2, width, 3, 2, 1), leak),
            *(nn.Conv2d(width, width, 3, 1, 1), leak),
            *(nn.Conv2d(width, width, 3, 1, 2, dilation=2), leak),
            nn.Conv2d(width, 1, 1),
        )
        self.look = nn.Sequential(
            *(nn.Conv2d(4 * channels, 24, 4, 2, 1), leak),
            *(nn.Conv2d(24, 32, 4, 2, 1), leak),
            nn.Conv2d(32, 2 * content, 3, 1, 1),
        )
        last = nn.ConvTranspose2d(24, channels, 4, 2, 1)
        self.decoder = nn.Sequential(
            *(nn.Conv2d(content, 32, 3, 1, 1), nn.ReLU(inplace=True)),
            *(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ReLU(inplace=True)),
            last,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, 0.1)
                assert module.bias is not None
                nn.init.constant_(module.bias, -3.0 if module is last else 0.0)  # dark objects
        # The layout in which convolutions of few channels are fastest on a CPU.
        self.scout.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        # Of one component, or of all at once.
        self.scene = () if forecaster == "axis" else (components,)
        self.forecast: AxisForecast | RelationalForecast
        if forecaster == "axis":
            self.forecast = AxisForecast(t_in, t_out, forecast, whole_pixels / self.unit)
        else:
            alone = forecaster == "independent"
            self.forecast = RelationalForecast(t_in, t_out, forecast, alone)
        # Of a position inferred, and of velocity and acceleration a priori; logarithms of pixels.
        self.log_std = nn.Parameter(torch.tensor([0.05, 3.0, 1.0]).log())

        places = torch.arange(size // _CELL) * _CELL + _CELL / 2
        steps = torch.arange(-_REACH, _REACH + 1.0)
        for name, axis in (("cells", places), ("shifts", steps)):
            grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)
            self.register_buffer(name, grid, persistent=False)
        # Persistent, so that a resumed run goes on as if it had not been stopped.
        # Of each component a track, what rounding left of it, and in scenes whether it showed.
        columns = t_in + t_out + 1 + len(self.scene)
        self.register_buffer("memory", torch.zeros(16384, *self.scene, 2, columns))
        self.register_buffer("remembered", torch.tensor(0))

    def model(self, frames: Tensor, t_in: int) -> None:
        """Generative model of the frames (B, L, C, S, S) in [0, 1] for Pyro.

        Args:
            frames: Input frames and those to be predicted.
            t_in: Input frames T.
        """
        self._check(frames, self.t_in + self.t_out, t_in)
        count = (len(frames), self.components)
        with pyro.plate("batch", len(frames), dim=-1):
            shape = (*count, self.depth, self.window // 4, self.window // 4)
            standard = Normal(frames.new_zeros(shape), 1.0)
            objects = self._objects(pyro.sample("content", standard.to_event(4)))
            past = pyro.sample("past", self._past().expand([*count, 2]).to_event(2))
            future = pyro.sample("future", self._future(past, objects.detach()).to_event(2))
            mean = _cover(self._draw(objects, torch.cat([past, future], -1)).unbind(1))
            pyro.sample("frames", Normal(mean, SIGMA).to_event(4), obs=frames)

    def guide(self, frames: Tensor, t_in: int) -> None:
        """Inference network for Pyro; its tracks follow the objects through all L frames."""
        self._check(frames, self.t_in + self.t_out, t_in)
        found = self._infer(frames)[-1]
        std = self.log_std[0].exp()
        with pyro.plate("batch", len(frames), dim=-1):
            pyro.sample("content", Normal(*found.content).to_event(4))
            pyro.sample("past", Normal(found.track[..., :t_in], std).to_event(3))
            pyro.sample("future", Normal(found.track[..., t_in:], std).to_event(3))

    def elbo(self, frames: Tensor, t_in: int) -> Tensor:
        """Evidence lower bound with one sample of the latents.

        Divergences are analytic but for that of the coming positions, as in Pyro's
        `TraceMeanField_ELBO`, to whose negative it is equal for the same random numbers.

        Args:
            frames: (B, L, C, S, S) in [0, 1].
            t_in: Input frames T.

        Returns:
            (B,) nats.
        """
        self._check(frames, self.t_in + self.t_out, t_in)
        return self._elbo(frames, self._infer(frames)[-1])[0]

    def loss(self, frames: Tensor, t_in: int) -> Tensor:
        """What training minimises, nats per clip; remembers the tracks for `forecast_loss`.

        Minus the ELBO, and the error of reconstructing from the scout's tracks alone.

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
        drawn = _cover(self._draw(self._objects(first.content[0]), first.track).unbind(1))
        scouted = (drawn - frames).square().flatten(1).sum(1) / (2 * SIGMA**2)
        return (scouted - elbo).mean()

    def forecast_loss(self) -> Tensor:
        """Minus the log-probability of coming positions in tracks of the latest clips, nats.

        Means and spreads learn from each position by itself, what errors share from the whole: a
        forecast that may err by much in one direction would be slow to mend just that. Forecasts of
        whole scenes are rolled out, and learn by `distance_loss`; components that did not show
        count for nothing.
        """
        kept = max(1, min(int(self.remembered), len(self.memory)))
        count = max(1, self.replay // math.prod(self.scene))
        chosen = self.memory[torch.randint(kept, [count], device=self.memory.device)]
        shown = None
        if self.scene:
            shown = chosen[..., 0, -1] > 0
            chosen = _turned(chosen[..., :-1])
        past, future, rest = chosen.split([self.t_in, self.t_out, 1], -1)
        mean, std, shared = self.forecast(past, rest, shown)
        if shown is not None:
            loss = distance_loss(mean, std, shared, future)
            return loss.where(shown, 0).sum() / shown.sum().clamp(min=1)
        alone = errors_alike(mean, std, torch.zeros_like(shared)).log_prob(future)
        together = errors_alike(mean.detach(), std.detach(), shared).log_prob(future)
        return -(alone + together).sum(-1).mean()

    @torch.no_grad()
    def decompose(self, frames: Tensor, t_out: int) -> Decomposition:
        """Reconstruction at the posterior means, and the mean of the predicted frames.

        A component's predicted picture is its average over where it may be.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Frames to predict, at most K.
        """
        self._check(frames, self.t_in, self.t_in, t_out)
        found = self._infer(frames)[-1]
        objects = self._objects(found.content[0])
        mean, std, _ = self._forecast(found.track, objects, t_out)
        mean, std = mean[..., :t_out], std[..., :t_out]
        track = torch.cat([found.track, mean], -1)
        seen = self._draw(objects, found.track)
        coming = _blurred(objects, mean, std, self.size)
        drawn = torch.cat([seen, coming], 2)
        sides = torch.full_like(track[..., 0, :], self.window)
        return Decomposition(
            _cover(drawn.unbind(1)), drawn.transpose(1, 2), track.permute(0, 3, 1, 2), sides.mT
        )

    @torch.no_grad()
    def sample(self, frames: Tensor, t_out: int, samples: int) -> Tensor:
        """Futures of the input frames, each from its own draw of all latents.

        Args:
            frames: Input frames (B, T, C, S, S) in [0, 1].
            t_out: Frames to predict, at most K.
            samples: Draws for each clip.

        Returns:
            (samples, B, t_out, C, S, S), means of the observation.
        """
        self._check(frames, self.t_in, self.t_in, t_out)
        found = self._infer(frames)[-1]
        futures = []
        for _ in range(samples):
            objects = self._objects(torch.normal(*found.content))
            track = found.track + self.log_std[0].exp() * torch.randn_like(found.track)
            future = errors_alike(*self._forecast(track, objects, t_out)).sample()[..., :t_out]
            futures.append(_cover(self._draw(objects, future).unbind(1)))
        return torch.stack(futures)

    def _check(self, frames: Tensor, length: int, t_in: int, t_out: int = 1) -> None:
        if not frames.is_floating_point():
            raise DataError("frames", f"are {frames.dtype}", "give floats from 0 to 1")
        expected = (length, self.channels, self.size, self.size)
        most = 10_000 if self.scene else self.t_out
        if frames.shape[1:] != expected or t_in != self.t_in or not 1 <= t_out <= most:
            shape = f"{tuple(frames.shape)}, {t_in} of them seen, {t_out} to predict"
            mend = f"give (clips, {', '.join(map(str, expected))}), {self.t_in}, 1 to {most}"
            raise DataError("frames", f"shape {shape}", mend)

    def _elbo(self, frames: Tensor, found: _Found) -> tuple[Tensor, Tensor]:
        """(B,) nats, and what `memory` holds of each component, or clip."""
        content = Normal(*found.content, validate_args=False)
        objects = self._objects(content.rsample())
        # In two draws, as Pyro's two sites make them.
        past, future = (
            Normal(mean, self.log_std[0].exp(), validate_args=False).to_event(1)
            for mean in (found.track[..., : self.t_in], found.track[..., self.t_in :])
        )
        before, after = past.rsample(), future.rsample()
        track = torch.cat([before, after], -1)
        coming = self._future(before, objects.detach())
        divergence = kl_divergence(content, Normal(0.0, 1.0)).flatten(1).sum(1)
        divergence = divergence + kl_divergence(past, self._past()).flatten(1).sum(1)
        # There is no formula for this one.
        excess = future.log_prob(after) - coming.log_prob(after)
        divergence = divergence + excess.flatten(1).sum(1)
        error = _cover(self._draw(objects, track).unbind(1)) - frames
        constant = frames[0].numel() * (math.log(SIGMA) + math.log(2 * math.pi) / 2)
        likelihood = -error.square().flatten(1).sum(1) / (2 * SIGMA**2) - constant
        shown = _shown(objects.detach())
        whole, rest = self._centre(objects.detach())
        seen = torch.cat([self._normal(track.detach(), whole), rest], -1)
        if self.scene:
            flag = shown[..., None, None].expand(-1, -1, 2, -1)
            return likelihood - divergence, torch.cat([seen, flag], -1)
        return likelihood - divergence, seen[shown]

    def _infer(self, frames: Tensor) -> list[_Found]:
        """The scout's tracks and content, then those after each pass of the matched filter."""
        empty = torch.zeros_like(frames)
        drawn = [empty] * self.components
        tracks: list[Tensor] = [empty] * self.components
        contents: list[tuple[Tensor, Tensor]] = [(empty, empty)] * self.components
        objects: list[Tensor] = [empty] * self.components
        passes = []
        for sweep in range(1 + self.sweeps):
            for i in range(self.components):
                others = [c for j, c in enumerate(drawn) if j != i and c is not empty]
                taken = _cover(others) if others else empty
                rest = (frames - taken).clamp(min=0) if others else frames
                if sweep:
                    tracks[i] = self._matched(rest, objects[i], tracks[i])
                else:
                    tracks[i] = self._scouted(rest)
                contents[i] = self._content(frames, taken, tracks[i])
                objects[i] = self._objects(contents[i][0]).detach()
                if sweep < self.sweeps or i + 1 < self.components:
                    place = tracks[i].detach()[:, None]
                    drawn[i] = self._draw(objects[i][:, None], place)[:, 0]
            mean, std = (torch.stack(part, 1) for part in zip(*contents, strict=True))
            passes.append(_Found((mean, std), torch.stack(tracks, 1)))
        return passes

    def _scouted(self, rest: Tensor) -> Tensor:
        """Track (B, 2, T) of one component from what is not explained yet."""
        before = torch.cat([rest[:, :1], rest[:, :-1]], 1)
        after = torch.cat([rest[:, 1:], rest[:, -1:]], 1)
        seen = torch.cat([before, rest, after], 2).flatten(0, 1)
        with torch.autocast(rest.device.type, torch.bfloat16, enabled=self.fast):
            scores = self.scout(seen.contiguous(memory_format=torch.channels_last))
        scores = scores.float().reshape(*rest.shape[:2], -1)
        track: list[Tensor] = []
        for score in scores.unbind(1):
            if track:
                # Half of a window cannot be outside of the frame.
                expected = (2 * track[-1] - track[-2] if len(track) > 1 else track[-1]).detach()
                expected = expected.clamp(self.window * 7 / 16, self.size - self.window * 7 / 16)
                away = (self.cells - expected[:, None]).square().sum(-1)
                score = score - away / (2 * _STRAY**2)
            # Around the best only: the mean of two places is neither.
            best = self.cells[score.argmax(-1)]
            far = (self.cells - best[:, None]).abs().amax(-1) > 2.5 * _CELL
            track.append(score.masked_fill(far, -1e9).softmax(-1) @ self.cells)
        return torch.stack(track, -1)

    @torch.no_grad()
    def _matched(self, rest: Tensor, objects: Tensor, track: Tensor) -> Tensor:
        """Track (B, 2, T) from the likelihood of places around the one given.

        Up to a constant, log N(rest; object at p, 0.3²) is their correlation / 0.3².
        """
        around = track.round()
        wide = self.window + 2 * _REACH
        seen = self._windows(rest, around, wide)  # (B, T, C, W, W)
        # Rows of the window against rows of the object at each horizontal shift, by one product;
        # vertical shifts are the diagonals of what it gives.
        rows = seen.unfold(-1, self.window, 1)  # (B, T, C, W, X, s)
        rows = rows.transpose(1, 2).flatten(2, 4) @ objects.mT  # (B, C, T W X, s)
        rows = rows.unflatten(2, (track.shape[-1], wide, -1)).sum(1)  # (B, T, W, X, s)
        reach = len(self.shifts.unique())
        batch, time, row, column, entry = rows.stride()
        diagonals = rows.as_strided(
            (*rows.shape[:2], reach, reach, self.window),
            (batch, time, row, column, row + entry),
        )
        scores = diagonals.sum(-1).flatten(2) / SIGMA**2  # (B, T, Y X)
        offset = (track - around).mT[:, :, None]
        scores = scores - (self.shifts - offset).square().sum(-1) / (2 * _DRIFT**2)
        return around + (scores.softmax(-1) @ self.shifts).mT

    def _content(self, frames: Tensor, taken: Tensor, track: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a component's content from the T input frames."""
        place = track[..., : self.t_in]
        seen = self._windows(frames[:, : self.t_in], place, self.window)
        free = 1 - self._windows(taken[:, : self.t_in], place, self.window)
        share = free.mean(1)
        # A smooth minimum, whose gradient reaches more than one frame.
        darkest = -((-8 * seen).logsumexp(1) - math.log(self.t_in)) / 8
        alone = (free * seen).mean(1) / (share + 0.05)
        code = self.look(torch.cat([seen.mean(1), alone, darkest, share], 1))
        mean, raw = code.chunk(2, 1)
        return mean, functional.softplus(raw - 2) + 1e-4

    def _windows(self, frames: Tensor, track: Tensor, side: int) -> Tensor:
        """What is seen at a track (B, 2, T): (B, T, C, side, side)."""
        return crop(frames, _pose(track.mT, self.size, side)[:, :, None], side)[:, :, 0]

    def _objects(self, content: Tensor) -> Tensor:
        """Objects (..., C, s, s) in (0, 1) of contents (..., D, s/4, s/4)."""
        return self.decoder(content.flatten(0, -4)).sigmoid().unflatten(0, content.shape[:-3])

    def _draw(self, objects: Tensor, track: Tensor) -> Tensor:
        """Each object along its track (B, N, 2, L): (B, N, L, C, S, S)."""
        return paste(objects[:, :, None], _pose(track.mT, self.size, self.window), self.size)

    def _past(self) -> MultivariateNormal:
        """Prior of T positions along an axis, px: first place, velocity, accelerations."""
        _, velocity, acceleration = self.log_std.exp()
        std = torch.cat(
            [velocity.new_tensor([self.size / 3]), velocity[None], acceleration.expand(self.t_in)]
        )[: self.t_in]
        # Place 1, then velocities that each accelerate from the one before, summed up.
        lower = torch.ones(self.t_in, self.t_in, device=std.device).tril()
        lower[:, 1:] = lower[:, 1:].clone().cumsum(0)
        centre = torch.full_like(std, self.size / 2)
        return MultivariateNormal(centre, scale_tril=lower * std, validate_args=False)

    def _future(self, past: Tensor, objects: Tensor) -> MultivariateStudentT:
        """Prior of K positions (B, N, 2, K) after T, px, of components of these looks."""
        return errors_alike(*self._forecast(past, objects))

    def _forecast(
        self, past: Tensor, objects: Tensor, steps: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Means and spreads px of K or more positions, and what errors share."""
        whole, rest = self._centre(objects)
        place = self._normal(past, whole)
        mean, std, shared = self.forecast(place, rest, _shown(objects), max(steps, self.t_out))
        return mean * self.unit + self.size / 2 - whole, std * self.unit, shared

    def _centre(self, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Where the objects' centres are from their middles, (B, N, 2, 1) px, and what is left."""
        centre = _ink_centre(objects)
        if not self.whole_pixels:
            return centre, torch.zeros_like(centre)
        # Windows have an even side and lie on whole pixels, so pixels' centres are at halves.
        whole = centre.floor() + 0.5
        return whole, centre - whole

    def _normal(self, track: Tensor, centre: Tensor) -> Tensor:
        """Tracks px as the forecast sees them, about -1 to 1."""
        track = track.round() if self.whole_pixels else track
        return (track + centre - self.size / 2) / self.unit


def _blurred(objects: Tensor, mean: Tensor, std: Tensor, size: int) -> Tensor:
    """Average pictures of objects whose positions are normal, independent along both axes.

    Args:
        objects: (B, N, C, s, s).
        mean: Of the centres, (B, N, 2, T) px.
        std: The same shape.
        size: Pixels S of a side of the frames.

    Returns:
        (B, N, T, C, S, S).
    """
    side = objects.shape[-1]
    axis = torch.arange(size, device=mean.device) + 0.5
    seats = torch.arange(side, device=mean.device) - (side - 1) / 2
    # From each pixel of the object to each of the frame, (B, N, 2, T, S, s) px.
    away = axis[:, None] - seats - mean[..., None, None]
    std = std[..., None, None]

    def ramp(u: Tensor) -> Tensor:
        """E[max(0, u + e)], e ~ N(0, std²)."""
        return u * torch.special.ndtr(u / std) + std * (-(u / std).square() / 2).exp() / _ROOT

    # Linear interpolation is a difference of ramps, and so is its average.
    hats = ramp(away + 1) - 2 * ramp(away) + ramp(away - 1)
    columns, rows = hats.unbind(2)
    return rows[:, :, :, None] @ objects[:, :, None] @ columns[:, :, :, None].mT


def _pose(centre: Tensor, size: int, side: int) -> Tensor:
    """Poses (..., 3) of windows of `side` pixels around centres (..., 2) px, at their own scale."""
    scale = torch.full_like(centre[..., :1], (size - 1) / (side - 1))
    return torch.cat([scale, (size - 2 * centre) / (side - 1)], -1)


def _turned(tracks: Tensor) -> Tensor:
    """Each clip's tracks (R, N, 2, T) in one of the eight ways that a square can be laid."""
    sign = torch.randint(2, [len(tracks), 1, 2, 1], device=tracks.device) * 2 - 1
    swap = torch.rand(len(tracks), 1, 1, 1, device=tracks.device) < 0.5
    return torch.where(swap, tracks.flip(-2), tracks) * sign


def _shown(objects: Tensor) -> Tensor:
    """Which objects (B, N, C, s, s) can be seen, (B, N)."""
    return objects.flatten(2).amax(-1) > 0.5


def _cover(drawn: Sequence[Tensor]) -> Tensor:
    """1 - prod (1 - c) over the components."""
    # Not of a stack, which is a copy of frames for each component and another for its gradient.
    return 1 - functools.reduce(torch.mul, [1 - component for component in drawn])


def _ink_centre(objects: Tensor) -> Tensor:
    """Centres of mass (B, N, 2, 1) px of objects (B, N, C, s, s), from their middles."""
    side = objects.shape[-1]
    axis = torch.arange(side, device=objects.device) - (side - 1) / 2
    # What is nearly dark everywhere is the decoder's floor, not ink.
    ink = functional.threshold(objects.sum(2), 0.05, 0.0)
    weight = ink.sum((-1, -2)) + 1e-3
    moments = torch.stack([ink.sum(-2) @ axis, ink.sum(-1) @ axis], -1)
    return (moments / weight[..., None])[..., None]
