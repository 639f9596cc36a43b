"""Metrics of predicted frames and of decompositions; `VideoMetrics` accumulates them over batches.

Pixel metrics follow the conventions for Moving MNIST: squared and absolute errors are sums over the
pixels of a frame, not means, for frames in [0, 1]. Predictions are clamped to this range first, as
in DDPAE (Hsieh et al., NeurIPS 2018), and in OpenSTL for SSIM and PSNR.
"""

from collections.abc import Callable
from itertools import permutations
from math import exp, perm
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from vidreason.core.errors import DataError, check_choice
from vidreason.decomposition.clip import Clip, Decomposition

FLOOR = 8.6
FLOOR_BY_FRAME = (4.9, 5.3, 6.5, 7.9, 8.0, 8.9, 9.6, 10.8, 11.5, 12.0)
"""Lower bound of the squared error per frame on 2-digit Moving MNIST, for frames 11 to 20 after ten
input frames: positions are truncated to pixels, so the past leaves the motion uncertain. Estimated
by Monte Carlo on 500 clips of MNIST's test digits as 8.56 +- 0.39; `baselines.bayes_mean` gives
8.68 +- 0.33 on 650 others. Both know the digits' appearance, so the true bound is no lower."""

SEPARATED = 2.0
"""Mean error in px, constant offset removed, below which a component tracks a digit."""
EMPTY = 0.1
"""Brightness, in [0, 1], that no pixel of an empty component reaches in the input frames."""
_ASSIGNMENTS = 10_000  # seven digits have 5,040
_BIN, _BINS = 0.02, 5000  # px; the last bin includes everything beyond 100 px


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Computes the squared error, summed over the pixels and channels of a frame.

    Args:
        prediction: (B, T, C, S, S); clamped to [0, 1], as for all pixel metrics.
        truth: (B, T, C, S, S) in [0, 1].

    Returns:
        (B, T).
    """
    return (prediction.float().clamp(0, 1) - truth).square().sum((-3, -2, -1))


def mae(prediction: Tensor, truth: Tensor) -> Tensor:
    """Computes the absolute error, summed over pixels and channels; shapes as in `mse`."""
    return (prediction.float().clamp(0, 1) - truth).abs().sum((-3, -2, -1))


def bce(prediction: Tensor, truth: Tensor) -> Tensor:
    """Computes binary cross-entropy in nats, summed over pixels and channels; shapes as in `mse`.

    Predictions are clamped to [1e-4, 1 - 1e-4], as in DDPAE. Grey pixels of the truth have entropy,
    so a perfect prediction does not score 0 (but 86.4 with two MNIST digits).
    """
    p = prediction.float().clamp(1e-4, 1 - 1e-4)
    # Not F.binary_cross_entropy, which refuses to run under autocast on a GPU.
    return -(truth * p.log() + (1 - truth) * (1 - p).log()).sum((-3, -2, -1))


def psnr(prediction: Tensor, truth: Tensor) -> Tensor:
    """Computes the peak signal-to-noise ratio of each frame in dB, peak 1; shapes as in `mse`.

    The mean over frames is higher than the ratio for the mean squared error. A frame without error
    counts 100 dB, because an infinity would make the mean infinite.
    """
    mean = (prediction.float().clamp(0, 1) - truth).square().mean((-3, -2, -1))
    return -10 * mean.clamp(min=1e-10).log10()


def ssim(prediction: Tensor, truth: Tensor, convention: str) -> Tensor:
    """Computes structural similarity (Wang et al. 2004), averaged over whole windows and channels.

    Args:
        prediction: (B, T, C, S, S) with S at least the side of a window.
        truth: (B, T, C, S, S) in [0, 1].
        convention: `gaussian` has windows of 11 x 11 with standard deviation 1.5 px, as in the
            paper (torchmetrics also averages over mirrored borders, which raises the score of dark
            ones). `openstl`, used in published Moving MNIST results, has uniform windows of 7 x 7,
            sample covariance, and a data range of 2, because scikit-image up to 0.19 assumes that
            floats span [-1, 1].

    Returns:
        (B, T).

    Raises:
        DataError: The convention is unknown.
    """
    check_choice("convention", convention, ("gaussian", "openstl"))
    if convention == "gaussian":
        window, span, sample = [exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)], 1.0, 1.0
    else:
        window, span, sample = [1.0] * 7, 2.0, 49 / 48
    p, g = prediction.float().clamp(0, 1), truth.float()
    means = torch.stack([p, g, p * p, g * g, p * g])
    for axis in (-2, -1):
        # Not a convolution or matrix product: autocast and TF32 round these, and variances are
        # small differences of them.
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
"""Functions of prediction and truth (B, T, C, S, S) that return (B, T), by name."""


def excess(mse_by_frame: Tensor) -> Tensor:
    """Returns the squared error above the lower bound for 2-digit Moving MNIST.

    Args:
        mse_by_frame: Squared error of frames 11, 12, ..., (T,) with T at most 10.

    Returns:
        (T,).
    """
    return mse_by_frame - mse_by_frame.new_tensor(FLOOR_BY_FRAME[: len(mse_by_frame)])


class Followed(NamedTuple):
    """Matching of components to digits.

    Attributes:
        component: Index of each digit's component, (B, N) int64; -1 where there is none.
        error: Distance between digit and component without the pair's constant offset, which is
            their mean difference over the matching frames, (B, T, N) px. NaN where there is no
            digit or no component, and for digits that are absent from the matching frames.
        raw: Distance including the offset, (B, T, N) px.
    """

    component: Tensor
    error: Tensor
    raw: Tensor


def follow(predicted: Tensor, truth: Tensor, t_in: int) -> Followed:
    """Matches components to digits one to one, by their motion in the first frames.

    The constant offset of a pair is removed, because the position of a digit inside the window is
    arbitrary. Digits that move in parallel can therefore be exchanged, at no cost in `error`.

    All assignments are tried at once. Four digits have 24, and trying them for a whole batch is
    faster than one call per clip of an algorithm that scales better.

    Args:
        predicted: Positions of the components, (B, T, M, 2) px.
        truth: Positions of the digits, (B, T, N, 2) px; NaN where there is no digit.
        t_in: Number of frames for matching and for the offset, normally the input frames.

    Raises:
        DataError: There are too many digits and components to try all assignments.
    """
    digits, components = truth.shape[2], predicted.shape[2]
    if perm(max(digits, components), digits) > _ASSIGNMENTS:
        problem = f"{digits} digits and {components} components are too many to match"
        raise DataError("digits", problem, "evaluate clips with fewer digits")
    if digits > components:
        predicted = F.pad(predicted, (0, 0, 0, digits - components), value=torch.nan)
    present = ~truth.isnan().any(-1)[:, :, None]  # (B, T, 1, N)
    present = present & present[:, :t_in].any(1, keepdim=True)  # else nothing to match
    gap = predicted[:, :, :, None] - truth[:, :, None]  # (B, T, M, N, 2)
    gap = gap.where(present[..., None], 0)  # any NaN left is from a component
    count = present[:, :t_in].sum(1, keepdim=True)
    offset = gap[:, :t_in].sum(1, keepdim=True) / count.clamp(min=1)[..., None]
    error = (gap - offset).norm(dim=-1).where(present, 0)  # (B, T, M, N)
    cost = error[:, :t_in].sum(1) / count[:, 0].clamp(min=1)  # (B, M, N)
    # A missing component costs more than any that could track the digit.
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
    """Returns which components draw nothing: no pixel of the input frames reaches 0.1.

    The criterion is the brightest pixel, not the sum, so that a thin stroke is not empty.

    Args:
        components: (B, L, M, C, S, S) in [0, 1].
        t_in: Number of input frames.

    Returns:
        (B, M) bool.
    """
    return components[:, :t_in].amax((1, 3, 4, 5)) < EMPTY


def ambiguous(predicted: Tensor, truth: Tensor, t_in: int, empty: Tensor) -> Tensor:
    """Returns in which clips two components have the same nearest digit.

    The nearest digit has the least mean squared distance over the input frames, offset included.
    This is the rule of DDPAE, whose velocity metrics exclude these clips. Empty components have no
    nearest digit.

    Args:
        predicted: Positions of the components, (B, T, M, 2) px.
        truth: Positions of the digits, (B, T, N, 2) px; NaN where there is no digit.
        t_in: Number of input frames.
        empty: Components that draw nothing, (B, M) bool.

    Returns:
        (B,) bool.
    """
    square = (predicted[:, :t_in, :, None] - truth[:, :t_in, None]).square().sum(-1)
    nearest = square.nanmean(1).nan_to_num(nan=torch.inf).argmin(-1)  # (B, M)
    shown = ~truth[:, :t_in, :, 0].isnan().all(1)  # (B, N)
    claims = F.one_hot(nearest, truth.shape[2]) * shown[:, None] * ~empty[..., None]
    return (claims.sum(1) > 1).any(-1)


class VideoMetrics(Metric):
    """Accumulates all metrics of this module, with memory independent of the number of clips.

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
    evaluated: Tensor
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
                ("clips", "evaluated", "separated", "ambiguous", "empty", "components"), ()
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
            clip: Ground truth of at least t_in + t_out frames.
            prediction: Predicted frames, (B, T_out, C, S, S) in [0, 1].
            decomposition: Decomposition over t_in + t_out frames, if the model returns one.
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
        # Frames without a digit do not count; a digit without a component has infinite error.
        shown = ~positions[:, :t_in].isnan().any(-1)  # (B, T_in, N)
        lost = found.error[:, :t_in].nan_to_num(nan=torch.inf).where(shown, 0).sum(1)
        lost = lost / shown.sum(1).clamp(min=1)  # (B, N)
        some = shown.any(1).any(1)
        self.evaluated += some.sum()
        self.separated += ((lost < SEPARATED).all(1) & some).sum()
        mean = (lost.sum(1) / shown.any(1).sum(1))[some]
        self.histogram += torch.bincount((mean / _BIN).clamp(max=_BINS - 1).long(), minlength=_BINS)
        blank = empty(decomposition.components, t_in)
        self.empty += blank.sum()
        self.components += blank.numel()
        self.ambiguous += ambiguous(placed, positions, t_in, blank).sum()

    def compute(self) -> dict[str, Tensor]:
        """Computes means over all clips.

        Returns:
            The mean of each metric in `FRAME_METRICS`, a scalar under its name and (T_out,) under
            `<name>_by_frame`. With decompositions and true positions also, in px without constant
            offsets, `position_error` and `position_error_by_frame` in the predicted frames and
            `position_error_input`; `position_error_raw`, the error in the predicted frames with
            offsets; `separation`, the median over clips of the mean error in the input frames (to
            0.01 px); the fractions of clips that are `separated` (each digit is tracked to less
            than 2 px by its own component) and `ambiguous`; and the fraction of components that
            are `empty`.
        """
        found: dict[str, Tensor] = {}
        for name, row in zip(FRAME_METRICS, self.frames / self.clips, strict=True):
            found |= {name: row.mean(), f"{name}_by_frame": row}
        if not self.evaluated:
            return found
        past, future = slice(self.t_in), slice(self.t_in, None)
        middle = (self.histogram.cumsum(0) * 2 >= self.evaluated).int().argmax()
        return found | {
            "position_error": self.error[future].sum() / self.digits[future].sum(),
            "position_error_by_frame": self.error[future] / self.digits[future],
            "position_error_input": self.error[past].sum() / self.digits[past].sum(),
            "position_error_raw": self.raw[future].sum() / self.digits[future].sum(),
            "separation": (middle + 0.5) * _BIN,
            "separated": self.separated / self.evaluated,
            "ambiguous": self.ambiguous / self.evaluated,
            "empty": self.empty / self.components,
        }
