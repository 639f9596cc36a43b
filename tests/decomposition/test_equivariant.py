"""EquivariantDDPAE against Pyro and direct computations of its parts."""

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from vidreason.core.errors import DataError
from vidreason.decomposition.networks import EquivariantDDPAE
from vidreason.decomposition.networks.ddpae import SIGMA
from vidreason.decomposition.networks.drawing import centre_of_mass, draw, draw_expected, screen
from vidreason.decomposition.networks.forecaster import (
    AxisForecast,
    acceleration_prior,
    errors_alike,
)
from vidreason.decomposition.networks.localization import matched_filter

SMALL = {"t_in": 5, "t_out": 3, "size": 32, "window": 16, "width": 6, "forecast": 16, "content": 3}


def squares(clips=2, length=8, size=32, seed=0, channels=1):
    """Returns clips of a bright square and a dimmer bar that move by whole pixels."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.zeros(clips, length, channels, size, size)
    for clip in frames:
        for wide, high, light in ((6, 6, 1.0), (3, 9, 0.7)):
            place = torch.randint(2, 8, [2], generator=generator)
            speed = torch.randint(0, 3, [2], generator=generator)
            for time, frame in enumerate(clip):
                x, y = (place + speed * time).clamp(max=size - 10).tolist()
                frame[:, y : y + high, x : x + wide] = light
    return frames


@pytest.fixture
def net():
    torch.manual_seed(0)
    return EquivariantDDPAE(**SMALL)


@pytest.mark.parametrize(
    "options", [{"sweeps": 0}, {"sweeps": 2}, {"forecaster": "relational"}], ids=str
)
def test_elbo_equals_pyro(options):
    torch.manual_seed(0)
    net, frames = EquivariantDDPAE(**SMALL, **options), squares()
    torch.manual_seed(1)
    ours = net.elbo(frames, 5).sum()
    torch.manual_seed(1)
    pyros = TraceMeanField_ELBO(max_plate_nesting=1).loss(net.model, net.guide, frames, 5)
    assert float(ours.detach()) == pytest.approx(-pyros, rel=1e-5)
    assert not list(pyro.get_param_store())


def test_elbo_is_the_mean_of_the_sampled_elbo(net):
    frames = squares()
    with torch.no_grad():
        ours = torch.stack([net.elbo(frames, 5).sum() for _ in range(25)])
    sampled = Trace_ELBO(max_plate_nesting=1)
    theirs = torch.tensor([-sampled.loss(net.model, net.guide, frames, 5) for _ in range(25)])
    error = math.hypot(float(ours.std()), float(theirs.std())) / 5
    assert abs(float(ours.mean() - theirs.mean())) < 4 * error


def test_prior_covariance_is_that_of_random_acceleration(net):
    place, velocity, acceleration = 32 / 3, *net.log_std.exp()[1:].tolist()
    parts = torch.zeros(5, 5, dtype=torch.float64)  # of each position, by independent source
    parts[:, 0] = place
    for time in range(1, 5):
        parts[time, 1] = velocity * time
        for kick in range(2, time + 1):
            parts[time, kick] = acceleration * (time - kick + 1)
    prior = acceleration_prior(5, 32, *net.log_std[1:].exp())
    assert torch.allclose(prior.covariance_matrix.double(), parts @ parts.T, rtol=1e-4)
    assert torch.equal(prior.mean, torch.full((5,), 16.0))


def test_matched_filter_is_the_posterior_mean(net):
    torch.manual_seed(2)
    objects, start = 0.6 * torch.rand(1, 1, 16, 16), torch.tensor([[[13.4], [17.8]]])
    true = torch.tensor([[[14.0], [17.0]]])
    rest = draw(objects[:, None], true[:, None], 32)[:, 0] + 0.2 * torch.rand(1, 1, 1, 32, 32)
    logits, places = [], []
    for y in range(15, 22):
        for x in range(10, 17):
            place = torch.tensor([[[float(x)], [float(y)]]])
            drawn = draw(objects[:, None], place[:, None], 32)[:, 0]
            # An object completely inside the frame has the same energy everywhere.
            likelihood = -(rest - drawn).square().sum() / (2 * SIGMA**2)
            logits.append(likelihood - (place - start).square().sum() / (2 * 2.0**2))
            places.append(place[0, :, 0])
    mean = torch.stack(logits).softmax(0) @ torch.stack(places)
    found = matched_filter(rest, objects, start, net.shifts)
    assert torch.allclose(found[0, :, 0], mean, atol=1e-3)


def test_matched_filter_finds_an_object_exactly(net):
    objects = torch.zeros(1, 1, 16, 16)
    objects[..., 4:11, 5:9] = 1
    true = torch.tensor([[[14.0, 15.0], [17.0, 15.0]]])
    rest = draw(objects[:, None], true[:, None], 32)[:, 0]
    for shift in (-2.0, 0.7, 2.0):
        found = matched_filter(rest, objects, true + shift, net.shifts)
        assert torch.allclose(found, true, atol=1e-3)


def test_scout_is_translation_equivariant():
    torch.manual_seed(0)
    net = EquivariantDDPAE(t_in=3, t_out=1, size=64, window=16, width=6, bfloat16=False)
    frames = torch.zeros(1, 3, 1, 64, 64)
    frames[..., 24:30, 24:33] = torch.rand(6, 9)
    # The bias would make the zero padding around a frame visible.
    net.scout[0].bias.data.zero_()
    here = net._scouted(frames)
    there = net._scouted(frames.roll((4, 8), (-2, -1)))
    assert torch.allclose(there - here, torch.tensor([[[8.0], [4.0]]]), atol=1e-3)


def test_expected_image_is_the_mean_of_samples():
    torch.manual_seed(0)
    objects, mean = torch.rand(1, 2, 1, 16, 16), 10 + 12 * torch.rand(1, 2, 2, 3)
    std = torch.full_like(mean, 1.5)
    tracks = mean + std * torch.randn(4000, 2, 2, 3)
    drawn = draw(objects.expand(4000, -1, -1, -1, -1), tracks, 32).mean(0)
    assert torch.allclose(draw_expected(objects, mean, std, 32)[0], drawn, atol=0.04)
    sharp = draw_expected(objects, mean, std * 1e-4, 32)
    assert torch.allclose(sharp, draw(objects, mean, 32), atol=1e-4)


def test_screen_blends_components():
    one, two = torch.tensor([[[0.0, 0.5, 1.0]], [[0.25, 0.5, 0.5]]]).unbind()
    found = screen([one, two])
    assert torch.allclose(found, torch.tensor([[0.25, 0.75, 1.0]]))


def test_centre_of_mass_ignores_the_floor():
    objects = torch.zeros(1, 1, 1, 8, 8)
    objects[..., 1:3, 5] = 1  # rows 1 and 2 of 0 ... 7, whose middle is 3.5
    assert torch.allclose(centre_of_mass(objects)[0, 0, :, 0], torch.tensor([1.5, -2.0]), atol=1e-2)
    assert torch.equal(centre_of_mass(objects * 0.01), torch.zeros(1, 1, 2, 1))


def test_forecast_is_equivariant():
    torch.manual_seed(0)
    forecast = AxisForecast(5, 3, 16, 1 / 8)
    past, rest = torch.randn(4, 2, 5), torch.rand(4, 2, 1) - 0.5
    mean, std, shared = forecast(past, rest)
    mirrored = forecast(-past, -rest)
    assert torch.allclose(mirrored[0], -mean) and torch.allclose(mirrored[1], std)
    swapped = forecast(past.flip(1), rest.flip(1))
    for one, other in zip(swapped, (mean, std, shared), strict=True):
        assert torch.allclose(one, other.flip(1))


def test_velocity_bounds_contain_the_true_velocity():
    forecast = AxisForecast(6, 3, 8, 1 / 8)
    velocity, start = 2 * torch.rand(200, 1, dtype=torch.float64) - 1, torch.rand(200, 1)
    exact = start + velocity * torch.arange(6)
    middle, width = forecast._bounds((exact * 8).floor() / 8).chunk(2, -1)
    assert ((middle / 5 - velocity).abs() <= width / 20 + 1e-9).all()
    assert (width.diff(dim=-1) <= 1e-9).all()  # more frames never widen the bounds


@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_forecast_gradient_is_finite_for_any_correlation(net, bias):
    net.forecast.common.bias.data[:] = bias
    net.forecast_loss().backward()
    assert all(p.grad.isfinite().all() for p in net.forecast.parameters())


def test_errors_have_the_shared_correlation():
    mean, std, shared = torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.25]])
    found = errors_alike(mean, std, shared)
    expected = 0.25 * std.mT @ std + torch.diag(0.75 * std[0] ** 2)
    assert torch.allclose(found.covariance_matrix[0], expected, atol=1e-4)


def test_decomposition_does_not_depend_on_the_batch(net):
    frames = squares(4)[:, :5]
    together = net.decompose(frames, 3)
    for clip in (0, 3):
        alone = net.decompose(frames[clip : clip + 1], 3)
        for one, other in zip(alone, together, strict=True):
            assert torch.allclose(one[0], other[clip], atol=1e-4)


def test_shorter_prediction_is_a_prefix_of_a_longer_one(net):
    frames = squares()[:, :5]
    long, short = net.decompose(frames, 3), net.decompose(frames, 1)
    assert short.frames.shape == (2, 6, 1, 32, 32)
    assert torch.equal(short.frames, long.frames[:, :6])
    assert short.positions.shape == (2, 6, 2, 2) and short.sides.shape == (2, 6, 2)


def test_sampled_futures_differ(net):
    frames = squares()[:, :5]
    futures = net.sample(frames, 3, samples=3)
    assert futures.shape == (3, 2, 3, 1, 32, 32)
    assert not torch.equal(futures[0], futures[1])
    assert futures.min() >= 0 and futures.max() <= 1


def test_training_reduces_the_loss(net):
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for step in range(30):
        loss = net.loss(squares(4, seed=step), 5)
        optimizer.zero_grad()
        (loss + net.forecast_loss()).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert int(net.remembered) > 0


def test_forecast_learns_from_stored_tracks(net):
    # Uniform motion, as `loss` would store it.
    velocity = (torch.rand(16384, 2, 1) - 0.5) / 4
    net.memory[..., :8] = velocity * torch.arange(8.0)
    net.remembered.fill_(16384)
    optimizer = torch.optim.Adam(net.forecast.parameters(), 1e-2)
    start = float(net.forecast_loss().detach())
    for _ in range(60):
        optimizer.zero_grad()
        net.forecast_loss().backward()
        optimizer.step()
    assert float(net.forecast_loss().detach()) < start - 5


@pytest.mark.parametrize(
    "options", [{"components": 1}, {"components": 3}, {"channels": 2}, {"whole_pixels": False}]
)
def test_variants_train(options):
    torch.manual_seed(0)
    net = EquivariantDDPAE(**SMALL | options)
    loss = net.loss(squares(channels=options.get("channels", 1)), 5) + net.forecast_loss()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_state_dict_is_complete(net):
    frames = squares()[:, :5]
    other = EquivariantDDPAE(**SMALL)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.decompose(frames, 3).frames, other.decompose(frames, 3).frames)


def test_default_has_fewer_than_a_million_parameters():
    assert sum(p.numel() for p in EquivariantDDPAE().parameters()) < 1_000_000


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"components": 0}, "model.net.components: must be between 1 and 100, got 0"),
        ({"t_in": 2}, "model.net.t_in: must be between 3 and 1000, got 2"),
        ({"size": 34}, "model.net.size: must be a multiple of 4, got 34"),
        (
            {"forecaster": "all"},
            "forecaster: must be one of axis, relational, independent, got 'all'",
        ),
        ({"window": 68}, "model.net.window: must be between 8 and 64, got 68"),
    ],
)
def test_options_out_of_range(options, line):
    with pytest.raises(DataError, match=line):
        EquivariantDDPAE(**options)


def test_wrong_frame_shapes_are_rejected(net):
    with pytest.raises(DataError, match=r"pass \(clips, 5, 1, 32, 32\)"):
        net.decompose(squares()[:, :4], 3)
    with pytest.raises(DataError, match=r"pass \(clips, 8, 1, 32, 32\)"):
        net.loss(squares(), 4)
