"""Metrics of predicted frames and of their decomposition; `VideoMetrics` streams them.

Pixel metrics follow the field's conventions for Moving MNIST: squared and absolute errors are
sums over a frame's pixels, not means, and every value is of frames in [0, 1]. The prediction is
clamped to that range first, as DDPAE (Hsieh et al. 2018) does and OpenSTL does for SSIM and PSNR.
"""

from collections.abc import Callable
from itertools import permutations
from math import exp, perm
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from vidreason.core.errors import DataError
from vidreason.decomposition.clip import Clip, Decomposition

FLOOR = 8.6
FLOOR_BY_FRAME = (4.9, 5.3, 6.5, 7.9, 8.0, 8.9, 9.6, 10.8, 11.5, 12.0)
"""Squared error per frame that nobody can beat on 2-digit Moving MNIST, frames 11 to 20 after ten
observed ones: positions are cut to whole pixels, so the past leaves the motion uncertain. Found by
Monte Carlo on 500 clips of MNIST's test digits, 8.56 +- 0.39; `clip_baselines.bayes_mean` gives
8.68 +- 0.33 on 650 others. Both know the digits' looks, so that the true floor is no lower."""

SEPARATED = 2.0
"""Mean error in px, constant offset removed, below which a component follows a digit."""
EMPTY = 0.1
_ASSIGNMENTS = 10_000  # seven digits have 5,040
_BIN, _BINS = 0.02, 5000  # px; the last bin also takes what is beyond 100 px


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Squared error, summed over the pixels and channels of a frame.

    Args:
        prediction: (B, T, C, S, S); clamped to [0, 1], as in all metrics of frames.
        truth: (B, T, C, S, S) in [0, 1].

    Returns:
        (B, T).
    """
    return (prediction.float().clamp(0, 1) - truth).square().sum((-3, -2, -1))


def mae(prediction: Tensor, truth: Tensor) -> Tensor:
    """Absolute error, summed over the pixels and channels of a frame; shapes as in `mse`."""
    return (prediction.float().clamp(0, 1) - truth).abs().sum((-3, -2, -1))


def bce(prediction: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy in nats, summed over pixels and channels; shapes as in `mse`.

    The prediction is clamped to [1e-4, 1 - 1e-4], as DDPAE does. Grey pixels of the truth have
    entropy, so that a perfect prediction does not score 0 (86.4 with two MNIST digits).
    """
    p = prediction.float().clamp(1e-4, 1 - 1e-4)
    # Not F.binary_cross_entropy, which refuses to run under autocast on a GPU.
    return -(truth * p.log() + (1 - truth) * (1 - p).log()).sum((-3, -2, -1))


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, peak 1; shapes as in `mse`.

    The mean of these is higher than the ratio of the mean squared error. A frame without any
    error counts 100 dB, since one infinity would swallow the mean.
    """
    mean = (prediction.float().clamp(0, 1) - truth).square().mean((-3, -2, -1))
    return -10 * mean.clamp(min=1e-10).log10()


def ssim(prediction: Tensor, truth: Tensor, convention: str) -> Tensor:
    """Structural similarity of each frame (Wang et al. 2004), mean over whole windows and channels.

    Args:
        prediction: (B, T, C, S, S), S at least the window's side.
        truth: (B, T, C, S, S) in [0, 1].
        convention: `gaussian`: windows of 11 x 11, standard deviation 1.5 px, as in the paper
            (torchmetrics averages over mirrored borders too, which flatters dark ones).
            `openstl`: uniform windows of 7 x 7, sample covariance, and a data range of 2, because
            scikit-image until 0.19 takes floats to span [-1, 1]; what Moving MNIST's tables show.

    Returns:
        (B, T).

    Raises:
        DataError: The convention is neither.
    """
    if convention == "gaussian":
        window, span, sample = [exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)], 1.0, 1.0
    elif convention == "openstl":
        window, span, sample = [1.0] * 7, 2.0, 49 / 48
    else:
        raise DataError("convention", f"{convention!r} is none", "give `gaussian` or `openstl`")
    p, g = prediction.float().clamp(0, 1), truth.float()
    means = torch.stack([p, g, p * p, g * g, p * g])
    for axis in (-2, -1):
        # Not a convolution or a product of matrices: autocast and TF32 round those, and variances
        # are small differences of them.
        inside = means.shape[axis] - len(window) + 1
        total = torch.zeros_like(means.narrow(axis, 0, inside))
        for i, weight in enumerate(window):
            total.add_(means.narrow(axis, i, inside), alpha=weight / sum(window))
        means = total
    mean_p, mean_g, square_p, square_g, product = means
    variances = sample * (square_p - mean_p.square() + square_g - mean_g.square())
    covariance = sample * (product - mean_p * mean_g)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    index = (2 * mean_p * mean_g + c1) * (2 * covariance + c2)
    index = index / ((mean_p.square() + mean_g.square() + c1) * (variances + c2))
    return index.mean((-3, -2, -1))


FRAME_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "mae": mae,
    "bce": bce,
    "psnr": psnr,
    "ssim": lambda prediction, truth: ssim(prediction, truth, "openstl"),
    "ssim_gaussian": lambda prediction, truth: ssim(prediction, truth, "gaussian"),
}
"""By name, what gives (B, T) for prediction and truth (B, T, C, S, S)."""


def excess(mse_by_frame: Tensor) -> Tensor:
    """What could still be won: squared error above the floor of 2-digit Moving MNIST.

    Args:
        mse_by_frame: (T,) of frames 11 onwards, T at most 10.

    Returns:
        (T,).
    """
    return mse_by_frame - mse_by_frame.new_tensor(FLOOR_BY_FRAME[: len(mse_by_frame)])


class Followed(NamedTuple):
    """Which component follows which digit, and how well.

    Attributes:
        component: (B, N) int64 index of each digit's component; -1 where there is none.
        error: (B, T, N) px from the digit to its component, less the pair's constant offset:
            their mean difference over the matching frames. NaN where there is no digit or no
            component, and for digits that the matching frames do not show.
        raw: (B, T, N) px, offset included.
    """

    component: Tensor
    error: Tensor
    raw: Tensor


def follow(predicted: Tensor, truth: Tensor, t_in: int) -> Followed:
    """Matches components to digits one to one, by how they move over the first frames.

    The pair's constant offset is left out, because nothing tells a model where in its window to
    draw the digit. So digits that move in parallel can be exchanged, at no cost in `error`.

    All assignments are tried at once: four digits have 24, and trying these for a whole batch
    costs less than a call per clip of an algorithm that scales better.

    Args:
        predicted: (B, T, M, 2) px, the components' positions.
        truth: (B, T, N, 2) px, the digits' positions; NaN where there is none.
        t_in: Frames to match on, and to take the offset from; the input frames, as a rule.

    Raises:
        DataError: Too many digits and components to try all assignments.
    """
    digits, components = truth.shape[2], predicted.shape[2]
    if perm(max(digits, components), digits) > _ASSIGNMENTS:
        problem = f"{digits}, and {components} components, are too many to be matched"
        raise DataError("digits", problem, "score clips of fewer digits")
    if digits > components:
        predicted = F.pad(predicted, (0, 0, 0, digits - components), value=torch.nan)
    present = ~truth.isnan().any(-1)[:, :, None]  # (B, T, 1, N)
    present = present & present[:, :t_in].any(1, keepdim=True)  # else there is nothing to match on
    gap = predicted[:, :, :, None] - truth[:, :, None]  # (B, T, M, N, 2)
    gap = gap.where(present[..., None], 0)  # what is still NaN is a component's fault
    count = present[:, :t_in].sum(1, keepdim=True)
    offset = gap[:, :t_in].sum(1, keepdim=True) / count.clamp(min=1)[..., None]
    error = (gap - offset).norm(dim=-1).where(present, 0)  # (B, T, M, N)
    cost = error[:, :t_in].sum(1) / count[:, 0].clamp(min=1)  # (B, M, N)
    # Any digit had better go without than one that could have been followed.
    cost = cost.nan_to_num(nan=1e4)
    choices = torch.tensor(list(permutations(range(cost.shape[1]), digits)), device=truth.device)
    total = cost[:, choices, torch.arange(digits, device=truth.device)].sum(-1)  # (B, choices)
    component = choices[total.argmin(1)]  # (B, N)
    pick = component[:, None, None].expand(-1, truth.shape[1], -1, -1)
    pairs = torch.stack([error, gap.norm(dim=-1)]).where(present, torch.nan)
    error, raw = (field.gather(2, pick)[:, :, 0] for field in pairs)
    absent = (component >= components) | ~present[:, :, 0].any(1)
    return Followed(component.masked_fill(absent, -1), error, raw)


def empty(components: Tensor, t_in: int) -> Tensor:
    """Components that draw nothing: no pixel of the input frames reaches 0.1.

    The brightest pixel decides and not their sum, so that a thin stroke is not taken for nothing.

    Args:
        components: (B, L, M, C, S, S) in [0, 1].
        t_in: Number of input frames.

    Returns:
        (B, M) bool.
    """
    return components[:, :t_in].amax((1, 3, 4, 5)) < EMPTY


def ambiguous(predicted: Tensor, truth: Tensor, t_in: int, empty: Tensor) -> Tensor:
    """Clips in which two components have the same nearest digit.

    Nearest is the least mean squared distance over the input frames, offset included: DDPAE's rule,
    whose velocity metrics leave these clips out. Empty components have no nearest digit.

    Args:
        predicted: (B, T, M, 2) px.
        truth: (B, T, N, 2) px; NaN where there is no digit.
        t_in: Number of input frames.
        empty: (B, M) bool.

    Returns:
        (B,) bool.
    """
    square = (predicted[:, :t_in, :, None] - truth[:, :t_in, None]).square().sum(-1)
    nearest = square.nanmean(1).nan_to_num(nan=torch.inf).argmin(-1)  # (B, M)
    shown = ~truth[:, :t_in, :, 0].isnan().all(1)  # (B, N)
    claims = F.one_hot(nearest, truth.shape[2]) * shown[:, None] * ~empty[..., None]
    return (claims.sum(1) > 1).any(-1)


class VideoMetrics(Metric):
    """Streams all metrics of this module: its memory does not grow with the number of clips.

    Args:
        t_in: Number of input frames.
        t_out: Number of predicted frames, T_out.
    """

    full_state_update = False
    clips: Tensor
    frames: Tensor
    digits: Tensor
    error: Tensor
    raw: Tensor
    judged: Tensor
    separated: Tensor
    ambiguous: Tensor
    empty: Tensor
    components: Tensor
    histogram: Tensor

    def __init__(self, t_in: int, t_out: int) -> None:
        super().__init__()
        self.t_in, self.t_out = t_in, t_out
        sums = {
            "frames": (len(FRAME_METRICS), t_out),
            "error": (t_in + t_out,),
            "raw": (t_in + t_out,),
        }
        counts = {
            "digits": (t_in + t_out,),
            "histogram": (_BINS,),
            **dict.fromkeys(
                ("clips", "judged", "separated", "ambiguous", "empty", "components"), ()
            ),
        }
        for name, shape in sums.items():
            self.add_state(name, torch.zeros(shape), "sum")
        for name, shape in counts.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), "sum")

    def update(
        self, clip: Clip, prediction: Tensor, decomposition: Decomposition | None = None
    ) -> None:
        """Adds a batch.

        Args:
            clip: At least t_in + t_out frames.
            prediction: (B, T_out, C, S, S) in [0, 1].
            decomposition: L = t_in + t_out frames, if the predictor takes clips apart.
        """
        t_in, length = self.t_in, self.t_in + self.t_out
        truth = clip.frames[:, t_in:length].float() / 255
        for row, metric in zip(self.frames, FRAME_METRICS.values(), strict=True):
            row += metric(prediction, truth).sum(0)
        self.clips += len(prediction)
        if decomposition is None:
            return
        positions = clip.positions[:, :length]
        placed = decomposition.positions.float()
        found = follow(placed, positions, t_in)
        known = ~found.error.isnan()
        self.digits += known.sum((0, 2))
        self.error += found.error.nansum((0, 2))
        self.raw += found.raw.nansum((0, 2))
        # Frames without the digit say nothing; a digit without a component is lost by infinity.
        shown = ~positions[:, :t_in].isnan().any(-1)  # (B, T_in, N)
        lost = found.error[:, :t_in].nan_to_num(nan=torch.inf).where(shown, 0).sum(1)
        lost = lost / shown.sum(1).clamp(min=1)  # (B, N)
        some = shown.any(1).any(1)
        self.judged += some.sum()
        self.separated += ((lost < SEPARATED).all(1) & some).sum()
        mean = (lost.sum(1) / shown.any(1).sum(1))[some]
        self.histogram += torch.bincount((mean / _BIN).clamp(max=_BINS - 1).long(), minlength=_BINS)
        blank = empty(decomposition.components, t_in)
        self.empty += blank.sum()
        self.components += blank.numel()
        self.ambiguous += ambiguous(placed, positions, t_in, blank).sum()

    def compute(self) -> dict[str, Tensor]:
        """Means over all clips.

        Returns:
            By its name in `FRAME_METRICS` each metric's mean, a scalar, and under `<name>_by_frame`
            (T_out,). With decompositions, and positions to compare with, also in px with the
            constant offset removed: `position_error` and `position_error_by_frame` of the predicted
            frames and `position_error_input`; offset included: `position_error_raw` of the
            predicted frames; `separation`, the median over clips of the mean error in the input
            frames (to 0.01 px); the shares of clips `separated` (every digit followed to less than
            2 px, by a component of its own) and `ambiguous`; and `empty`, the share of components.
        """
        found: dict[str, Tensor] = {}
        for name, row in zip(FRAME_METRICS, self.frames / self.clips, strict=True):
            found |= {name: row.mean(), f"{name}_by_frame": row}
        if not self.judged:
            return found
        past, future = slice(self.t_in), slice(self.t_in, None)
        middle = (self.histogram.cumsum(0) * 2 >= self.judged).int().argmax()
        return found | {
            "position_error": self.error[future].sum() / self.digits[future].sum(),
            "position_error_by_frame": self.error[future] / self.digits[future],
            "position_error_input": self.error[past].sum() / self.digits[past].sum(),
            "position_error_raw": self.raw[future].sum() / self.digits[future].sum(),
            "separation": (middle + 0.5) * _BIN,
            "separated": self.separated / self.judged,
            "ambiguous": self.ambiguous / self.judged,
            "empty": self.empty / self.components,
        }
