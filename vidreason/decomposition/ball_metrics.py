"""Metrics of physical state: where balls will be, how fast, and what a long forecast keeps.

Velocities are differences over two frames, as in DDPAE (Hsieh et al., NeurIPS 2018), whose truth is
rounded to pixels. Here the truth is exact and every ball has one component; what the published
rule gives stands beside it, under names that end in `_published`.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from vidreason.decomposition.clip import Clip
from vidreason.decomposition.metrics import ambiguous, follow

_STRIDE = 2  # frames
_STILL = 1e-4  # box widths in two frames; slower than that has no direction
_KNOCK = 1e-3  # px per frame
_TALLIES = (
    *("position_error", "position_error_collided", "velocity_error", "velocity_cosine"),
    *("velocity_error_published", "velocity_cosine_published"),
)


def collided(velocities: Tensor) -> Tensor:
    """Balls that have hit another ball since the first frame.

    Walls turn the horizontal velocity round and gravity leaves it alone: only another ball changes
    how large it is.

    Args:
        velocities: (B, T, N, 2) px per frame, at the time of each frame; NaN where there is none.

    Returns:
        (B, T, N) bool.
    """
    fast = velocities[..., 0].abs()
    knocked = fast.diff(dim=1, prepend=fast[:, :1]).abs() > _KNOCK
    return knocked.cumsum(1) > 0


def compare(predicted: Tensor, truth: Tensor, still: float) -> tuple[Tensor, Tensor]:
    """Relative error of speed |1 - |v| / |v*||, and cosine of the angle between v and v*.

    Args:
        predicted: Velocities v, (..., 2).
        truth: Velocities v*, (..., 2).
        still: Speed below which there is no direction.

    Returns:
        Both (...); NaN where either of the two is slower than `still`.
    """
    fast, true = predicted.norm(dim=-1), truth.norm(dim=-1)
    moves = (fast >= still) & (true >= still)
    error = (1 - fast / true).abs()
    cosine = (predicted * truth).sum(-1) / (fast * true)
    return error.where(moves, torch.nan), cosine.where(moves, torch.nan)


def constant_velocity(positions: Tensor, t_in: int) -> Tensor:
    """Positions (B, L, N, 2) whose frames after `t_in` go on as the last two seen ones moved."""
    last, before = positions[:, t_in - 1 : t_in], positions[:, t_in - 2 : t_in - 1]
    ahead = torch.arange(1, positions.shape[1] - t_in + 1, device=positions.device)
    return torch.cat([positions[:, :t_in], last + (last - before) * ahead[:, None, None]], 1)


class BallMetrics(Metric):
    """Streams errors of position and velocity by horizon.

    Args:
        t_in: Number of input frames.
        t_out: Number of predicted frames, T_out.
        size: Pixels S of a side of the frames, which is a box width.
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
            clip: At least L frames, with velocities.
            placed: Positions of the components, (B, L, M, 2) px, L = t_in + T_out.
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
        # Every component is compared with the ball that it is nearest to.
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
        """Means over balls and clips.

        Returns:
            `position_error` px, constant offset removed; `position_error_collided`, of balls that
            hit another after the last input frame; `velocity_error` and `velocity_cosine`; and
            these two under the published rule, which compares each component with the nearest
            ball and leaves out clips where two have the same. Each is a scalar, and under
            `<name>_by_horizon` (T_out,), NaN for a horizon without any such ball.
            `ambiguous_published` is the share of clips left out.
        """
        found: dict[str, Tensor] = {}
        for name in _TALLIES:
            total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
            found |= {name: total.sum() / count.sum(), f"{name}_by_horizon": total / count}
        return found | {"ambiguous_published": self.dropped / self.clips}

    def _velocities(self, positions: Tensor) -> Tensor:
        """Of the predicted frames, (B, T_out, N, 2) px in two frames."""
        return positions[:, self.t_in :] - positions[:, self.t_in - _STRIDE : -_STRIDE]

    def _add(self, name: str, values: Tensor) -> None:
        """Counts what is a number of (B, T_out, N)."""
        total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
        total += values.double().nansum((0, 2))
        count += (~values.isnan()).sum((0, 2))


def _take(positions: Tensor, which: Tensor) -> Tensor:
    """Of (B, L, M, 2) those of the indices (B, N), (B, L, N, 2)."""
    pick = which[:, None, :, None].expand(-1, positions.shape[1], -1, 2)
    return positions.gather(2, pick)


def rollout(positions: Tensor, t_in: int, size: int, radius: float) -> dict[str, Tensor]:
    """What a long forecast keeps of the laws of motion.

    Args:
        positions: Of the balls, (B, L, N, 2) px.
        t_in: Number of input frames.
        size: Pixels S of a side of the box.
        radius: Of the balls, px.

    Returns:
        By predicted frame, (L - t_in,): `energy`, the sum of squared velocities over that of the
        input frames, median over clips; the shares of balls `outside`, more than half a radius into
        a wall, and `merged`, whose centre is nearer than a radius to another's.
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
