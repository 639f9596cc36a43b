"""Pixel and position metrics against closed forms and independent implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torchmetrics.functional.image import structural_similarity_index_measure as reference_ssim

from vidreason.core.errors import DataError
from vidreason.decomposition import metrics as frame_metrics
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.metrics import (
    FRAME_METRICS,
    VideoMetrics,
    ambiguous,
    empty,
    excess,
    follow,
    ssim,
)

NAN = torch.nan
T_IN, T_OUT = 4, 3


def noise(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def constant(value, *shape):
    return torch.full(shape or (2, 3, 1, 16, 16), float(value))


def measure(prediction, truth):
    return {name: metric(prediction, truth) for name, metric in FRAME_METRICS.items()}


def test_constant_frames_in_closed_form():
    found = measure(constant(0.5), constant(0.25))
    openstl = (2 * 0.5 * 0.25 + 0.02**2) / (0.5**2 + 0.25**2 + 0.02**2)
    gaussian = (2 * 0.5 * 0.25 + 0.01**2) / (0.5**2 + 0.25**2 + 0.01**2)
    expected = {
        "mse": 256 / 16,
        "mae": 256 / 4,
        "bce": 256 * np.log(2),
        "psnr": 10 * np.log10(16),
        "ssim": openstl,
        "ssim_gaussian": gaussian,
    }
    for name, value in found.items():
        assert value.shape == (2, 3)
        assert value.numpy() == pytest.approx(expected[name], rel=1e-5), name


def test_errors_are_summed_over_channels():
    one, three = (constant(0.5, 1, 1, c, 16, 16) for c in (1, 3))
    for name in ("mse", "mae", "bce"):
        sums = [FRAME_METRICS[name](p, torch.zeros_like(p)) for p in (one, three)]
        assert sums[1].item() == pytest.approx(3 * sums[0].item())


def test_stroke_shifted_by_one_pixel():
    truth = torch.zeros(1, 1, 1, 16, 16)
    truth[..., 2:8, 5] = 1
    found = measure(truth.roll(1, -1), truth)
    assert found["mse"].item() == found["mae"].item() == 12
    # Twelve pixels are certain and wrong, all others as right as clamping allows.
    wrong = -12 * np.log(1e-4) - 244 * np.log(1 - 1e-4)
    assert found["bce"].item() == pytest.approx(wrong, rel=1e-4)
    assert found["psnr"].item() == pytest.approx(10 * np.log10(256 / 12), rel=1e-5)


def test_perfect_prediction():
    truth = noise(0, 2, 3, 1, 16, 16)
    found = measure(truth, truth)
    assert (found["mse"] == 0).all() and (found["mae"] == 0).all() and (found["psnr"] == 100).all()
    assert found["ssim"].numpy() == pytest.approx(1, abs=1e-6)
    entropy = -(truth * truth.log() + (1 - truth) * (1 - truth).log()).sum((-3, -2, -1))
    assert found["bce"].numpy() == pytest.approx(entropy.numpy(), rel=1e-3)


def test_predictions_are_clamped():
    truth = noise(0, 2, 3, 1, 16, 16)
    wild = noise(1, 2, 3, 1, 16, 16) * 3 - 1
    for name, metric in FRAME_METRICS.items():
        assert torch.equal(metric(wild, truth), metric(wild.clamp(0, 1), truth)), name


def slow_ssim(p, g, weights, span, sample):
    """Computes SSIM window by window."""
    side, values = len(weights), []
    w = np.outer(weights, weights) / np.outer(weights, weights).sum()
    for y in range(p.shape[0] - side + 1):
        for x in range(p.shape[1] - side + 1):
            a, b = (image[y : y + side, x : x + side] for image in (p, g))
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb = sample * (w * (a - ma) ** 2).sum(), sample * (w * (b - mb) ** 2).sum()
            cov = sample * (w * (a - ma) * (b - mb)).sum()
            c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
            values.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return np.mean(values)


@pytest.mark.parametrize("convention", ["openstl", "gaussian"])
def test_ssim_equals_a_plain_loop(convention):
    p, g = noise(2, 1, 2, 1, 15, 18), noise(3, 1, 2, 1, 15, 18)
    p = 0.3 * p + 0.7 * g
    bell = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    kind = {"openstl": (np.ones(7), 2, 49 / 48), "gaussian": (bell, 1, 1)}[convention]
    slow = [
        slow_ssim(p[0, t, 0].double().numpy(), g[0, t, 0].double().numpy(), *kind) for t in (0, 1)
    ]
    assert ssim(p, g, convention)[0].numpy() == pytest.approx(slow, abs=1e-5)
    channels = ssim(p.transpose(1, 2), g.transpose(1, 2), convention)
    assert channels.item() == pytest.approx(np.mean(slow), abs=1e-5)


def test_ssim_equals_torchmetrics_away_from_borders():
    p, g = noise(2, 1, 1, 1, 24, 24), noise(3, 1, 1, 1, 24, 24)
    _, image = reference_ssim(p[0], g[0], data_range=1.0, return_full_image=True)
    inside = image[..., 5:-5, 5:-5].mean().item()
    assert ssim(p, g, "gaussian").item() == pytest.approx(inside, abs=1e-5)


def test_unknown_convention_is_rejected():
    with pytest.raises(DataError, match="must be one of gaussian, openstl, got 'skimage'"):
        ssim(noise(0, 1, 1, 1, 16, 16), noise(0, 1, 1, 1, 16, 16), "skimage")


def test_excess_over_the_floor():
    assert excess(torch.full((2,), 10.0)).tolist() == pytest.approx([5.1, 4.7])
    assert np.mean(frame_metrics.FLOOR_BY_FRAME) == pytest.approx(frame_metrics.FLOOR, abs=0.1)


def paths(seed, batch=3, digits=2, length=T_IN + T_OUT):
    """Returns straight paths of digits, (B, T, N, 2) px, of which no two are parallel."""
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * np.arange(digits) / digits + rng.uniform(0, 2 * np.pi, (batch, 1))
    step = 3.6 * np.stack([np.cos(turn), np.sin(turn)], -1)
    time = np.arange(length)[:, None, None]
    start = rng.uniform(20, 44, (batch, 1, digits, 2))
    return torch.from_numpy(start + time * step[:, None]).float()


def test_position_error_in_closed_form():
    # A digit moves right; its component is 3 px above it and slows down after the input.
    truth = torch.tensor([[0, 0], [4, 0], [8, 0], [12, 0]]).float()[None, :, None]
    predicted = truth + torch.tensor([0, -3])
    predicted[:, 2:, :, 0] -= torch.tensor([[1], [2]])
    found = follow(predicted, truth, 2)
    assert found.component.tolist() == [[0]]
    assert found.error[0, :, 0].tolist() == pytest.approx([0, 0, 1, 2])
    assert found.raw[0, :, 0].tolist() == pytest.approx([3, 3, 10**0.5, 13**0.5])


def test_offset_is_measured_in_the_input_frames():
    truth = torch.zeros(1, 4, 1, 2)
    predicted = torch.tensor([[1, 0], [3, 0], [100, 0], [2, 0]]).float()[None, :, None]
    assert follow(predicted, truth, 2).error[0, :, 0].tolist() == [1, 1, 98, 0]


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4))
def test_matching_equals_the_hungarian_algorithm(seed, digits, components):
    truth = paths(seed, digits=digits) + 3 * noise(seed, 3, 7, digits, 2)
    predicted = 64 * noise(seed + 1, 3, 7, components, 2)
    truth[0, :, 0] = NAN
    truth[1, 2, -1] = NAN
    found = follow(predicted, truth, T_IN)
    for b in range(3):
        gap = (predicted[b, :T_IN, :, None] - truth[b, :T_IN, None]).double().numpy()
        there = ~np.isnan(truth[b, :T_IN, :, 0].numpy()).all(0)
        gap = gap[:, :, there]
        cost = np.nanmean(np.linalg.norm(gap - np.nanmean(gap, 0), axis=-1), 0)
        row, column = linear_sum_assignment(cost)
        ours = np.full(there.sum(), -1)
        ours[column] = row
        assert found.component[b][torch.from_numpy(there)].tolist() == ours.tolist()
        assert (found.component[b][torch.from_numpy(~there)] == -1).all()
        best = found.error[b, :T_IN, torch.from_numpy(there)].nanmean(0)
        assert best.nansum().item() == pytest.approx(cost[row, column].sum(), abs=1e-3)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.permutations(range(3)))
def test_matching_is_invariant_to_order_and_offsets(seed, order):
    truth = paths(seed, digits=3)
    predicted = truth + noise(seed, *truth.shape)
    shift = 20 * noise(seed + 1, 3, 1, 3, 2)
    plain, moved = (
        follow(predicted, truth, T_IN),
        follow((predicted + shift)[:, :, order], truth, T_IN),
    )
    assert torch.allclose(plain.error, moved.error, atol=1e-4)
    assert torch.equal(torch.tensor(order)[moved.component], plain.component)


def test_missing_digits_have_no_error():
    truth = paths(0)
    predicted = truth + 1
    truth[0, :, 1] = NAN  # never present
    truth[1, 2, 0] = NAN  # absent in one frame
    truth[2, :T_IN, 0] = NAN  # appears too late to be matched
    found = follow(predicted, truth, T_IN)
    assert found.component.tolist() == [[0, -1], [0, 1], [-1, 1]]
    gone = found.error.isnan()
    assert torch.equal(gone, found.raw.isnan())
    assert gone[0].all(0).tolist() == [False, True] and gone[2].all(0).tolist() == [True, False]
    assert gone[1].nonzero().tolist() == [[2, 0]]
    assert found.error.nan_to_num().numpy() == pytest.approx(0, abs=1e-5)


def test_nan_component_is_not_matched():
    truth = paths(0)
    predicted = truth.clone()
    predicted[:, 1, 0] = NAN
    found = follow(predicted, truth, T_IN)
    assert found.error[:, :, 0].isnan().all() and (found.error[:, :, 1] == 0).all()


def test_too_many_digits_are_rejected():
    with pytest.raises(DataError, match="digits: 9 digits and 2 components are too many to match"):
        follow(paths(0), paths(0, digits=9), T_IN)


def test_empty_components():
    components = torch.zeros(1, 3, 4, 1, 8, 8)
    components[0, 1, 0, 0, 3, 3] = 0.11  # one pixel in one input frame is not empty
    components[0, :, 1] = 0.09
    components[0, 2, 2] = 1  # after the input
    components[0, :, 3] = 1
    assert empty(components, 2).tolist() == [[False, True, True, False]]


def test_ambiguous_clips():
    truth = torch.tensor([[10.0, 10], [50, 50]]).expand(4, 3, 2, 2).clone()
    predicted = truth.clone()
    predicted[1] = predicted[1].flip(1)  # swapped; each still has its own digit
    predicted[2:, :, 1] = 12  # both at the first digit
    predicted[:, 2] = 0  # later frames are ignored
    blank = torch.zeros(4, 2, dtype=torch.bool)
    blank[3, 1] = True
    assert ambiguous(predicted, truth, 2, blank).tolist() == [False, False, True, False]
    truth[0, :, 1] = NAN  # one digit for two components
    assert ambiguous(predicted, truth, 2, blank)[0]


def decomposition(positions, components=None):
    shape = (*positions.shape[:3], 1, 16, 16)
    components = torch.ones(shape) if components is None else components
    sides = torch.full(positions.shape[:3], 8.0)
    return Decomposition(components.sum(2).clamp(0, 1), components, positions, sides)


def clip_of(positions, seed=0):
    batch, length, digits, _ = positions.shape
    frames = (noise(seed, batch, length, 1, 16, 16) * 255).to(torch.uint8)
    return Clip(
        frames, positions, torch.zeros(batch, digits, dtype=torch.int64), torch.arange(batch)
    )


def streamed(clip, prediction, found, size):
    metrics = VideoMetrics(T_IN, T_OUT)
    for start in range(0, len(prediction), size):
        part = slice(start, start + size)
        metrics.update(
            Clip(*(field[part] for field in clip[:4])),
            prediction[part],
            found and Decomposition(*(field[part] for field in found)),
        )
    return metrics.compute()


def test_result_does_not_depend_on_the_batch_size():
    truth = paths(0, batch=13)
    truth[0, :, 1], truth[5, 2, 0] = NAN, NAN
    clip, found = clip_of(truth), decomposition(paths(0, batch=13) + 6 * noise(1, *truth.shape))
    prediction = noise(2, 13, T_OUT, 1, 16, 16)
    whole = streamed(clip, prediction, found, 13)
    for size in (1, 5):
        for name, value in streamed(clip, prediction, found, size).items():
            assert value.numpy() == pytest.approx(whole[name].numpy(), rel=1e-5), name
    for name, metric in FRAME_METRICS.items():
        slow = metric(prediction, clip.frames[:, T_IN:] / 255).mean(0)
        assert whole[f"{name}_by_frame"].numpy() == pytest.approx(slow.numpy(), rel=1e-5)
        assert whole[name].item() == pytest.approx(slow.mean().item(), rel=1e-5)
    followed = follow(found.positions, truth, T_IN)
    expected = {
        "position_error": followed.error[:, T_IN:].nanmean(),
        "position_error_input": followed.error[:, :T_IN].nanmean(),
        "position_error_raw": followed.raw[:, T_IN:].nanmean(),
        "position_error_by_frame": followed.error[:, T_IN:].transpose(0, 1).flatten(1).nanmean(1),
    }
    for name, value in expected.items():
        assert whole[name].numpy() == pytest.approx(value.numpy(), rel=1e-5), name
    each = followed.error[:, :T_IN].nanmean(1)  # (B, N)
    assert whole["separated"].item() == pytest.approx(
        ((each < 2) | each.isnan()).all(1).float().mean()
    )
    assert whole["separation"].item() == pytest.approx(each.nanmean(1).median().item(), abs=0.011)


def test_memory_does_not_grow():
    metrics, truth = VideoMetrics(T_IN, T_OUT), paths(0)
    sizes = []
    for _ in range(3):
        metrics.update(clip_of(truth), noise(0, 3, T_OUT, 1, 16, 16), decomposition(truth))
        sizes.append(sum(state.numel() for state in metrics.metric_state.values()))
    assert len(set(sizes)) == 1 and sizes[0] < 10_000
    assert metrics.clips == 9
    metrics.reset()
    assert metrics.clips == 0


def test_without_decomposition_only_pixel_metrics():
    found = streamed(clip_of(paths(0)), noise(0, 3, T_OUT, 1, 16, 16), None, 3)
    assert set(found) == {f"{name}{end}" for name in FRAME_METRICS for end in ("", "_by_frame")}


def test_without_positions_only_pixel_metrics():
    truth = torch.full_like(paths(0), NAN)
    found = streamed(clip_of(truth), noise(0, 3, T_OUT, 1, 16, 16), decomposition(paths(0)), 3)
    assert set(found) == {f"{name}{end}" for name in FRAME_METRICS for end in ("", "_by_frame")}


def test_metrics_are_computed_in_full_precision():
    # Rounding would show in the SSIM of nearly uniform frames.
    prediction, truth = 0.5 + 0.02 * noise(0, 2, 3, 1, 16, 16).bfloat16(), noise(1, 2, 3, 1, 16, 16)
    expected = measure(prediction.float(), truth)
    with torch.autocast("cpu", torch.bfloat16):
        found = measure(prediction, truth)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def summary(truth, positions, components=None):
    found = decomposition(positions, components)
    prediction = noise(0, len(truth), T_OUT, 1, 16, 16)
    values = streamed(clip_of(truth), prediction, found, len(truth))
    return {name: round(float(value), 2) for name, value in values.items() if value.ndim == 0}


def test_separation_of_typical_decompositions():
    truth = paths(3, batch=5)
    right = summary(truth, truth)
    assert (right["separated"], right["separation"], right["position_error"]) == (1, 0.01, 0)
    swapped = summary(truth, truth.flip(2) + 5)
    assert (swapped["separated"], swapped["position_error"]) == (1, 0)
    assert swapped["position_error_raw"] == pytest.approx(50**0.5, abs=0.01)
    both = truth[:, :, [0, 0]]
    twice = summary(truth, both)
    assert (twice["separated"], twice["ambiguous"]) == (0, 1) and twice["separation"] > 2
    still = summary(truth, torch.full_like(truth, 32))
    assert still["separated"] == 0 and still["position_error"] > 2
    # Three of five clips determine the median.
    most = torch.arange(5)[:, None, None, None] < 3
    majority = summary(truth, truth.where(most, both))
    assert (majority["separated"], majority["separation"]) == (0.6, 0.01)
    assert summary(truth, both.where(most, truth))["separation"] > 2


def test_too_few_components_do_not_separate():
    truth = paths(3)
    found = summary(truth, truth[:, :, :1])
    assert (found["separated"], found["position_error"], found["separation"]) == (0, 0, 99.99)


def test_surplus_components_must_be_empty():
    truth = paths(3)
    positions = torch.cat([truth, truth[:, :, :1]], 2)
    components = torch.ones(*positions.shape[:3], 1, 16, 16)
    full = summary(truth, positions, components)
    assert (full["separated"], full["ambiguous"], full["empty"]) == (1, 1, 0)
    components[:, :, 2] = 0
    good = summary(truth, positions, components)
    assert (good["separated"], good["ambiguous"], good["empty"]) == (1, 0, 0.33)


def test_clips_without_digits_are_ignored():
    truth = paths(3)
    truth[1] = NAN
    found = summary(truth, paths(3))
    assert (found["separated"], found["ambiguous"], found["separation"]) == (1, 0, 0.01)
