"""Forecasts of where components will be from where they were."""

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor, nn
from torch.nn import functional

_FREEDOM = 3.0  # degrees, of Student's t
_PULL = 10.0  # nats per unit of distance
_FASTER = 5.0  # a step of a few pixels is about as large as a position then


class AxisForecast(nn.Module):
    """K coming positions of an axis from T, both axes by the same network.

    Each axis is mirrored so that the last motion is toward +, which makes forecasts equivariant
    to mirroring, and to swapping the axes.

    Args:
        t_in: T.
        t_out: K.
        width: Of the hidden layers.
        pixel: What positions are rounded to; 0 if they are not.
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
        """Of positions (..., 2, T) and what rounding left of them (..., 2, 1).

        Args:
            past: Positions.
            rest: What rounding left of them.
            shown: Makes no difference.
            steps: Nor does this.

        Returns:
            Means and standard deviations of the coming positions, (..., 2, K), and the share of
            the variance that is common to all of them, (..., 2, 1).
        """
        sign = torch.where(past[..., -1:] < past[..., -3:-2], -1.0, 1.0)
        place = past * sign
        # Velocities of each step, and on the way from each frame to the last; of the other axis
        # only how fast it moves.
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
        """Middles and widths (..., 2 (T - 2)) of the velocities that the last frames allow.

        Two places rounded to pixels leave the velocity between them a pixel over the time; all
        pairs of the last 3, 4, ... T frames leave much less. After a bounce nothing is left.
        """
        first, second = self.pairs.unbind()
        time = (second - first).to(place.dtype)
        slope = (place[..., second] - place[..., first]) / time
        low, high = slope - self.pixel / time, slope + self.pixel / time
        # Sorted by their first frame from the last on, so that a set is all pairs up to a place.
        low = low.cummax(-1).values[..., self.ends]
        high = high.cummin(-1).values[..., self.ends]
        return torch.cat([(low + high) * _FASTER / 2, (high - low) * 10], -1)


def _spread(raw: Tensor) -> Tensor:
    """Standard deviations, at first as wide as the room, so that no track counts as lost."""
    return functional.softplus(raw) + 1e-3


def _share(head: nn.Linear, state: Tensor) -> Tensor:
    """What errors share, learned beside what the state is for, without a say in it.

    It stays away from 0, where the square root has no slope, and from 1, where nothing is left.
    """
    return 0.01 + 0.98 * head(state.detach()).sigmoid()


def errors_alike(mean: Tensor, std: Tensor, shared: Tensor) -> MultivariateStudentT:
    """Positions (..., K) under Student's t, errors of any two of which correlate by `shared`.

    Args:
        mean: (..., K).
        std: Scale of the law, (..., K).
        shared: (..., 1).
    """
    factor = std * shared.sqrt()
    own = std.square() * (1 - shared) + 1e-6
    scale = factor[..., None] * factor[..., None, :] + own.diag_embed()
    freedom = std.new_full(std.shape[:-1], _FREEDOM)
    # With validation, positive definiteness would be checked by a decomposition.
    return MultivariateStudentT(freedom, mean, torch.linalg.cholesky(scale), validate_args=False)


def distance_loss(mean: Tensor, std: Tensor, shared: Tensor, future: Tensor) -> Tensor:
    """What rolled out forecasts learn from, (...) nats for positions (..., 2, K).

    Means learn from their distance to what came: were they the means of the law alone, a spread
    that is wide far ahead would leave collisions unlearned. The law learns around the means.

    Args:
        mean: (..., 2, K).
        std: The same shape.
        shared: (..., 2, 1).
        future: What came.
    """
    missed = (mean - future).square().sum(-2).add(1e-4).sqrt().sum(-1)
    return _PULL * missed - errors_alike(mean.detach(), std, shared).log_prob(future).sum(-1)


def _length(vector: Tensor) -> Tensor:
    """(..., 1); with a gradient at 0 too."""
    return (vector.square().sum(-1, keepdim=True) + 1e-4).sqrt()


class RelationalForecast(nn.Module):
    """K coming positions of N components from T, each in sight of the others.

    What an interaction network (Battaglia et al. 2016) does with true states is done here with
    inferred ones: a network reads from each track a place, a velocity and a state beside them;
    then, frame by frame, every pair exchanges a message of where the other is and how it moves,
    and each component changes its velocity, place and state. So components can bounce off each
    other. What decides a collision is said in the message: how far away the other is, now and a
    frame later, in which direction, how fast it comes nearer.

    Beyond K frames it reads anew what it has forecast: a state carried further than ever in
    training drifts, and balls leave the box.

    Pairs are worked on as one dense array: all of a few components see each other, and gathering
    edges would cost more than it saves.

    Args:
        t_in: T.
        t_out: K.
        width: Of the state and the hidden layers.
        independent: Components do not see each other.
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
        """Of positions (..., N, 2, T) and what rounding left of them (..., N, 2, 1).

        Args:
            past: Positions.
            rest: What rounding left of them.
            shown: (..., N) bool; other components send no messages. All if not given.
            steps: Frames to forecast; K if 0.

        Returns:
            Means and standard deviations of the coming positions, (..., N, 2, K), and the share of
            the variance that is common to all of them, (..., N, 2, 1).
        """
        steps = steps or self.t_out
        mean, std, shared = self._roll(past, rest, shown, min(steps, self.t_out))
        while mean.shape[-1] < steps:
            past = torch.cat([past, mean], -1)[..., -self.t_in :]
            left = min(steps - mean.shape[-1], self.t_out)
            ahead, spread, _ = self._roll(past, rest, shown, left)
            # Errors so far remain, and new ones come beside them.
            spread = (spread.square() + std[..., -1:].square()).sqrt()
            mean, std = torch.cat([mean, ahead], -1), torch.cat([std, spread], -1)
        return mean, std, shared

    def _roll(
        self, past: Tensor, rest: Tensor, shown: Tensor | None, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most K frames from T."""
        motion = _FASTER * past.diff(dim=-1)
        seen = [motion.flatten(-2), past[..., -1], rest[..., 0]]
        out = self.read(torch.cat(seen, -1))
        place = past[..., -1] + out[..., :2] / _FASTER
        # Mean of the last two steps, and what the network knows better.
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
