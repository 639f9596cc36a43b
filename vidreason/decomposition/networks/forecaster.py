"""Priors of tracks: motion in the input frames, and forecasts of the positions that follow."""

import torch
from pyro.distributions import MultivariateNormal, MultivariateStudentT
from torch import Tensor, nn
from torch.nn import functional

_FREEDOM = 3.0  # degrees of freedom of Student's t
_PULL = 10.0  # nats per unit of distance
_FASTER = 5.0  # scales steps of a few pixels to about the size of positions


def acceleration_prior(
    t_in: int, size: int, velocity: Tensor, acceleration: Tensor
) -> MultivariateNormal:
    """Returns the prior of T positions along an axis, px, with a random acceleration in each frame.

    Args:
        t_in: Input frames T.
        size: Frame side S in pixels; the first position is around the middle of the frame.
        velocity: Standard deviation of the first velocity, px per frame, scalar.
        acceleration: Standard deviation of each acceleration, px per frame², scalar.
    """
    std = torch.cat([velocity.new_tensor([size / 3]), velocity[None], acceleration.expand(t_in)])[
        :t_in
    ]
    # The first position plus the sum of velocities, each accelerated from the one before.
    lower = torch.ones(t_in, t_in, device=std.device).tril()
    lower[:, 1:] = lower[:, 1:].clone().cumsum(0)
    centre = torch.full_like(std, size / 2)
    return MultivariateNormal(centre, scale_tril=lower * std, validate_args=False)


class AxisForecast(nn.Module):
    """Forecasts K positions along an axis from T, with the same network for both axes.

    Each axis is mirrored so that the last step is positive, which makes forecasts equivariant to
    mirroring and to swapping the axes.

    Args:
        t_in: Input frames T.
        t_out: Predicted frames K.
        width: Width of the hidden layers.
        pixel: Step to which positions are rounded; 0 if they are not.
    """

    ago: Tensor
    pairs: Tensor
    ends: Tensor

    def __init__(self, t_in: int, t_out: int, width: int, pixel: float) -> None:
        super().__init__()
        self.t_in, self.t_out, self.pixel = t_in, t_out, pixel
        self.net = nn.Sequential(
            *(nn.Linear(3 * (t_in - 1) + 4 * (t_in - 2) + 5, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU()),
        )
        self.head, self.common = nn.Linear(width, 2 * t_out), nn.Linear(width, 1)
        self.register_buffer("ago", torch.arange(t_in - 1, 0, -1.0), persistent=False)
        pairs = torch.triu_indices(t_in, t_in, 1).flip(-1)
        self.register_buffer("pairs", pairs, persistent=False)
        ends = [k * (k + 1) // 2 - 1 for k in range(2, t_in)]
        self.register_buffer("ends", torch.tensor(ends), persistent=False)

    def forward(
        self, past: Tensor, rest: Tensor, shown: Tensor | None = None, steps: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts the next K positions.

        Args:
            past: Positions, (..., 2, T).
            rest: Remainder of rounding them, (..., 2, 1).
            shown: Ignored; components are forecast independently.
            steps: Ignored; there are always K steps.

        Returns:
            Means and standard deviations of the positions, (..., 2, K), and the fraction of the
            variance that is common to all of them, (..., 2, 1).
        """
        sign = torch.where(past[..., -1:] < past[..., -3:-2], -1.0, 1.0)
        place = past * sign
        # Velocity of each step and average velocity from each frame to the last; of the other axis
        # only the speed.
        step = _FASTER * place.diff(dim=-1)
        way = _FASTER * (place[..., -1:] - place[..., :-1]) / self.ago
        other = step.flip(-2).abs().sort(-1).values
        ends = [place[..., -1:], place[..., :1]]
        ends += [place.amax(-1, keepdim=True), place.amin(-1, keepdim=True), rest * sign]
        bounds = self._bounds(place)
        seen = [step, way, other, bounds, bounds.flip(-2).abs(), *ends]
        state = self.net(torch.cat(seen, -1))
        ahead, raw = self.head(state).chunk(2, -1)
        return sign * (place[..., -1:] + ahead), _spread(raw), _share(self.common, state)

    def _bounds(self, place: Tensor) -> Tensor:
        """Returns middles and widths (..., 2 (T - 2)) of the intervals that velocity can lie in.

        Two positions rounded to pixels determine the velocity between them to within a pixel per
        elapsed time; all pairs of the last 3, 4, ... T frames determine it much better. After a
        bounce the interval is empty.
        """
        first, second = self.pairs.unbind()
        time = (second - first).to(place.dtype)
        slope = (place[..., second] - place[..., first]) / time
        low, high = slope - self.pixel / time, slope + self.pixel / time
        # Pairs are sorted by their first frame, latest first, so that each set is a prefix.
        low = low.cummax(-1).values[..., self.ends]
        high = high.cummin(-1).values[..., self.ends]
        return torch.cat([(low + high) * _FASTER / 2, (high - low) * 10], -1)


def _spread(raw: Tensor) -> Tensor:
    """Returns standard deviations, initially as wide as the box so that no track is an outlier."""
    return functional.softplus(raw) + 1e-3


def _share(head: nn.Linear, state: Tensor) -> Tensor:
    """Returns the shared fraction of the variance, read from the state without training it.

    It stays away from 0, where the square root has no finite slope, and from 1, where positions
    would have no variance of their own.
    """
    return 0.01 + 0.98 * head(state.detach()).sigmoid()


def errors_alike(mean: Tensor, std: Tensor, shared: Tensor) -> MultivariateStudentT:
    """Returns Student's t over K positions in which any two errors have correlation `shared`.

    Args:
        mean: (..., K).
        std: Scale of the distribution, (..., K).
        shared: Correlation in (0, 1), (..., 1).
    """
    factor = std * shared.sqrt()
    own = std.square() * (1 - shared) + 1e-6
    scale = factor[..., None] * factor[..., None, :] + own.diag_embed()
    freedom = std.new_full(std.shape[:-1], _FREEDOM)
    # Validation would check positive definiteness by another decomposition.
    return MultivariateStudentT(freedom, mean, torch.linalg.cholesky(scale), validate_args=False)


def distance_loss(mean: Tensor, std: Tensor, shared: Tensor, future: Tensor) -> Tensor:
    """Returns the loss of rolled out forecasts, (...) nats.

    Means are trained by their distance to the true positions: trained as the means of the
    distribution, they would not learn collisions, because its spread is wide far ahead. The
    distribution is trained around the detached means.

    Args:
        mean: (..., 2, K).
        std: (..., 2, K).
        shared: (..., 2, 1).
        future: True positions, (..., 2, K).
    """
    missed = (mean - future).square().sum(-2).add(1e-4).sqrt().sum(-1)
    return _PULL * missed - errors_alike(mean.detach(), std, shared).log_prob(future).sum(-1)


def _length(vector: Tensor) -> Tensor:
    """Returns the norm, (..., 1), smoothed so that it has a gradient at 0."""
    return (vector.square().sum(-1, keepdim=True) + 1e-4).sqrt()


class RelationalForecast(nn.Module):
    """Forecasts K positions of N components from T, with interactions between components.

    This is an interaction network (Battaglia et al., NeurIPS 2016) on inferred instead of true
    states. A network reads a position, a velocity and a hidden state from each track. Then, frame
    by frame, every pair exchanges a message about the other's relative position and motion, and
    each component updates its velocity, position and state, so that components can bounce off
    each other. The message contains what decides a collision: the distance now and a frame later,
    the direction, and the closing speed.

    Beyond K frames the network starts again from its own forecast: a hidden state carried further
    than in training drifts, and balls leave the box.

    Pairs are one dense array: the few components all see each other, and gathering edges would
    cost more than it saves.

    Args:
        t_in: Input frames T.
        t_out: Predicted frames K.
        width: Width of the state and the hidden layers.
        independent: Whether to forecast components without interactions.
    """

    def __init__(self, t_in: int, t_out: int, width: int, independent: bool = False) -> None:
        super().__init__()
        self.t_in, self.t_out, self.independent = t_in, t_out, independent
        self.read = nn.Sequential(
            *(nn.Linear(2 * (t_in - 1) + 4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, 4 + width),
        )
        self.send = nn.Sequential(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width))
        self.step = nn.Sequential(
            *(nn.Linear(4 + 2 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, 4 + width),
        )
        self.spread = nn.Linear(width, 2)
        self.common = nn.Linear(width, 2)

    def forward(
        self, past: Tensor, rest: Tensor, shown: Tensor | None = None, steps: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts the next positions.

        Args:
            past: Positions, (..., N, 2, T).
            rest: Remainder of rounding them, (..., N, 2, 1).
            shown: Components that send messages, (..., N) bool; all by default.
            steps: Frames to forecast; K if 0.

        Returns:
            Means and standard deviations of the positions, (..., N, 2, steps), and the fraction of
            the variance that is common to all of them, (..., N, 2, 1).
        """
        steps = steps or self.t_out
        mean, std, shared = self._roll(past, rest, shown, min(steps, self.t_out))
        while mean.shape[-1] < steps:
            past = torch.cat([past, mean], -1)[..., -self.t_in :]
            left = min(steps - mean.shape[-1], self.t_out)
            ahead, spread, _ = self._roll(past, rest, shown, left)
            # The error so far persists, and independent new errors add to it.
            spread = (spread.square() + std[..., -1:].square()).sqrt()
            mean, std = torch.cat([mean, ahead], -1), torch.cat([std, spread], -1)
        return mean, std, shared

    def _roll(
        self, past: Tensor, rest: Tensor, shown: Tensor | None, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts at most K frames without starting again."""
        motion = _FASTER * past.diff(dim=-1)
        seen = [motion.flatten(-2), past[..., -1], rest[..., 0]]
        out = self.read(torch.cat(seen, -1))
        place = past[..., -1] + out[..., :2] / _FASTER
        # Mean of the last two steps, plus a learned correction.
        velocity = motion[..., -2:].mean(-1) + out[..., 2:4]
        state, places, spreads = out[..., 4:], [], []
        shared = _share(self.common, state)[..., None]
        count = past.shape[-3]
        heard = ~torch.eye(count, dtype=torch.bool, device=past.device)
        if shown is not None:
            heard = heard & shown[..., None, :]
        for _ in range(steps):
            if self.independent:
                messages = torch.zeros_like(state)
            else:
                away = place[..., None, :, :] - place[..., :, None, :]  # (..., to, from, 2)
                against = velocity[..., None, :, :] - velocity[..., :, None, :]
                now, then = _length(away), _length(away + against / _FASTER)
                toward = away / now
                closing = (against * toward).sum(-1, keepdim=True)
                seen = [away, against, toward, now, then, closing]
                sent = self.send(torch.cat(seen, -1))
                messages = (sent * heard[..., None]).sum(-2)
            out = self.step(torch.cat([place, velocity, messages, state], -1))
            place = place + (velocity + out[..., :2]) / _FASTER
            velocity = velocity + out[..., 2:4]
            state = state + out[..., 4:]
            places.append(place)
            spreads.append(self.spread(state))
        return torch.stack(places, -1), _spread(torch.stack(spreads, -1)), shared


def axis_loss(forecast: AxisForecast, rows: Tensor) -> Tensor:
    """Returns the negative log-probability of the future positions, nats per track.

    Means and spreads are trained on each position by itself, and only the correlation of errors on
    the whole track: a forecast allowed large errors in one common direction would be slow to
    correct exactly those.

    Args:
        forecast: The forecast.
        rows: T past positions, K future ones and the remainder of rounding, (M, 2, T + K + 1).
    """
    past, future, rest = rows.split([forecast.t_in, forecast.t_out, 1], -1)
    mean, std, shared = forecast(past, rest)
    alone = errors_alike(mean, std, torch.zeros_like(shared)).log_prob(future)
    together = errors_alike(mean.detach(), std.detach(), shared).log_prob(future)
    return -(alone + together).sum(-1).mean()


def scene_loss(forecast: RelationalForecast, rows: Tensor) -> Tensor:
    """Returns the mean `distance_loss` of visible components, nats per track.

    Scenes are reflected and transposed at random.

    Args:
        forecast: The forecast.
        rows: As for `axis_loss`, then whether the component is visible, (M, N, 2, T + K + 2).
    """
    shown = rows[..., 0, -1] > 0
    past, future, rest = reflected(rows[..., :-1]).split([forecast.t_in, forecast.t_out, 1], -1)
    mean, std, shared = forecast(past, rest, shown)
    loss = distance_loss(mean, std, shared, future)
    return loss.where(shown, 0).sum() / shown.sum().clamp(min=1)


def reflected(tracks: Tensor) -> Tensor:
    """Applies one of the eight symmetries of a square, drawn per clip, to tracks (M, N, 2, T)."""
    sign = torch.randint(2, [len(tracks), 1, 2, 1], device=tracks.device) * 2 - 1
    swap = torch.rand(len(tracks), 1, 1, 1, device=tracks.device) < 0.5
    return torch.where(swap, tracks.flip(-2), tracks) * sign
