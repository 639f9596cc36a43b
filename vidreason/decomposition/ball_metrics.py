"""Metrics of physical state: position and velocity errors of balls, and stability of rollouts.

Velocities are differences over two frames, as in DDPAE (Hsieh et al., NeurIPS 2018). There, the
ground truth is rounded to pixels; here it is exact, and each ball is matched to one component.
Metrics whose names end in `_published` follow the published rule, for comparison.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from vidreason.decomposition.clip import Clip
from vidreason.decomposition.metrics import ambiguous, follow

_STRIDE = 2  # frames
_STILL = 1e-4  # box widths in two frames; below this, velocity has no direction
_KNOCK = 1e-3  # px per frame
_TALLIES = (
    *("position_error", "position_error_collided", "velocity_error", "velocity_cosine"),
    *("velocity_error_published", "velocity_cosine_published"),
)


def collided(velocities: Tensor) -> Tensor:
    """Returns which balls have hit another ball since the first frame.

    A wall only reverses the horizontal velocity, and gravity does not change it: a change in its
    magnitude is a collision with another ball.

    Args:
        velocities: Velocities at the time of each frame, (B, T, N, 2) px per frame; NaN where there
            is no ball.

    Returns:
        (B, T, N) bool.
    """
    fast = velocities[..., 0].abs()
    knocked = fast.diff(dim=1, prepend=fast[:, :1]).abs() > _KNOCK
    return knocked.cumsum(1) > 0


def compare(predicted: Tensor, truth: Tensor, still: float) -> tuple[Tensor, Tensor]:
    """Returns the relative speed error |1 - |v| / |v*|| and the cosine of the angle of v and v*.

    Args:
        predicted: Predicted velocities v, (..., 2).
        truth: True velocities v*, (..., 2).
        still: Speed below which a velocity has no direction.

    Returns:
        Both (...); NaN where either velocity is slower than `still`.
    """
    fast, true = predicted.norm(dim=-1), truth.norm(dim=-1)
    moves = (fast >= still) & (true >= still)
    error = (1 - fast / true).abs()
    cosine = (predicted * truth).sum(-1) / (fast * true)
    return error.where(moves, torch.nan), cosine.where(moves, torch.nan)


def constant_velocity(positions: Tensor, t_in: int) -> Tensor:
    """Replaces the positions after `t_in` frames by extrapolation of the last two input frames.

    Args:
        positions: (B, L, N, 2) px.
        t_in: Number of input frames.

    Returns:
        (B, L, N, 2) px.
    """
    last, before = positions[:, t_in - 1 : t_in], positions[:, t_in - 2 : t_in - 1]
    ahead = torch.arange(1, positions.shape[1] - t_in + 1, device=positions.device)
    return torch.cat([positions[:, :t_in], last + (last - before) * ahead[:, None, None]], 1)


class BallMetrics(Metric):
    """Accumulates position and velocity errors by horizon.

    Args:
        t_in: Number of input frames.
        t_out: Number of predicted frames, T_out.
        size: Frame side S in pixels, which is one box width.
    """

    full_state_update = False
    clips: Tensor
    dropped: Tensor

    def __init__(self, t_in: int, t_out: int, size: int) -> None:
        super().__init__()
        self.t_in, self.size = t_in, size
        for name in _TALLIES:
            self.add_state(f"{name}_sum", torch.zeros(t_out, dtype=torch.float64), "sum")
            self.add_state(f"{name}_count", torch.zeros(t_out, dtype=torch.int64), "sum")
        for name in ("clips", "dropped"):
            self.add_state(name, torch.tensor(0), "sum")

    def update(self, clip: Clip, placed: Tensor) -> None:
        """Adds a batch.

        Args:
            clip: Ground truth of at least L frames, with velocities.
            placed: Positions of M components, (B, L, M, 2) px with L = t_in + T_out.
        """
        assert clip.velocities is not None
        t_in, length = self.t_in, placed.shape[1]
        truth, placed = clip.positions[:, :length], placed.float()
        found = follow(placed, truth, t_in)
        error = found.error[:, t_in:]
        hit = collided(clip.velocities[:, t_in - 1 : length])[:, 1:]
        self._add("position_error", error)
        self._add("position_error_collided", error.where(hit, torch.nan))
        still = _STILL * self.size
        lost = (found.component < 0)[:, None, :, None]
        matched = _take(placed, found.component.clamp(min=0)).masked_fill(lost, torch.nan)
        true = self._velocities(truth)
        speed, cosine = compare(self._velocities(matched), true, still)
        self._add("velocity_error", speed)
        self._add("velocity_cosine", cosine)
        blank = torch.zeros(len(placed), placed.shape[2], dtype=torch.bool, device=placed.device)
        drop = ambiguous(placed, truth, t_in, blank)
        self.clips += len(placed)
        self.dropped += drop.sum()
        # The published rule compares each component with its nearest ball.
        rounded = (truth - 0.5).round()
        away = placed[:, :t_in, :, None] - rounded[:, :t_in, None]
        nearest = away.square().sum(-1).nanmean(1).nan_to_num(nan=torch.inf).argmin(-1)
        true = self._velocities(_take(rounded, nearest))
        for name, value in zip(
            ("velocity_error_published", "velocity_cosine_published"),
            compare(self._velocities(placed), true, still),
            strict=True,
        ):
            self._add(name, value[~drop])

    def compute(self) -> dict[str, Tensor]:
        """Computes means over balls and clips.

        Returns:
            `position_error` in px, with constant offsets removed; `position_error_collided`, for
            balls that have hit another since the last input frame; `velocity_error` and
            `velocity_cosine`; and the latter two by the published rule, which compares each
            component with its nearest ball and excludes clips in which two share one. Each is a
            scalar, and (T_out,) under `<name>_by_horizon`, NaN for a horizon without such balls.
            `ambiguous_published` is the fraction of clips excluded.
        """
        found: dict[str, Tensor] = {}
        for name in _TALLIES:
            total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
            found |= {name: total.sum() / count.sum(), f"{name}_by_horizon": total / count}
        return found | {"ambiguous_published": self.dropped / self.clips}

    def _velocities(self, positions: Tensor) -> Tensor:
        """Returns velocities in the predicted frames, (B, T_out, N, 2) px per two frames."""
        return positions[:, self.t_in :] - positions[:, self.t_in - _STRIDE : -_STRIDE]

    def _add(self, name: str, values: Tensor) -> None:
        """Adds values (B, T_out, N) that are not NaN."""
        total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
        total += values.double().nansum((0, 2))
        count += (~values.isnan()).sum((0, 2))


def _take(positions: Tensor, which: Tensor) -> Tensor:
    """Selects positions (B, L, N, 2) from (B, L, M, 2) by indices (B, N)."""
    pick = which[:, None, :, None].expand(-1, positions.shape[1], -1, 2)
    return positions.gather(2, pick)


def rollout(positions: Tensor, t_in: int, size: int, radius: float) -> dict[str, Tensor]:
    """Measures how far a long rollout obeys the laws of motion.

    Args:
        positions: Positions of the balls, (B, L, N, 2) px.
        t_in: Number of input frames.
        size: Side S of the box in pixels.
        radius: Radius of the balls in pixels.

    Returns:
        By predicted frame, (L - t_in,): `energy`, the sum of squared velocities relative to the
        input frames, as the median over clips; and the fractions of balls that are `outside`, more
        than half a radius into a wall, and `merged`, with centres closer than a radius.
    """
    step = positions.diff(dim=1).square().sum((-1, -2))  # (B, L - 1)
    energy = step[:, t_in - 1 :] / step[:, : t_in - 1].mean(1, keepdim=True).clamp(min=1e-9)
    ahead = positions[:, t_in:] - 0.5
    outside = (ahead < radius / 2) | (ahead > size - radius / 2)
    apart = torch.cdist(ahead, ahead) + torch.eye(ahead.shape[2]) * size
    return {
        "energy": energy.median(0).values,
        "outside": outside.any(-1).float().mean((0, 2)),
        "merged": (apart.amin(-1) < radius).float().mean((0, 2)),
    }
