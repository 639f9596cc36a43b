"""Invariances of `RelationalForecast`, and interactions that it must learn."""

import pytest
import torch

from vidreason.decomposition.networks import EquivariantDDPAE
from vidreason.decomposition.networks.forecaster import RelationalForecast, reflected


def tracks(count=3, length=5, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start, velocity = torch.rand(2, batch, count, 2, 1, generator=generator) - 0.5
    return start + velocity * torch.arange(length) / 10, torch.zeros(batch, count, 2, 1)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return RelationalForecast(5, 3, 16)


def test_forecast_is_equivariant_to_the_order_of_components(net):
    past, rest = tracks()
    order = [2, 0, 1]
    for ours, theirs in zip(net(past, rest), net(past[:, order], rest[:, order]), strict=True):
        assert torch.allclose(ours[:, order], theirs, atol=1e-6)


def test_components_interact_unless_independent():
    past, rest = tracks()
    moved = past.clone()
    moved[:, 1] += 0.1
    for independent in (False, True):
        torch.manual_seed(0)
        net = RelationalForecast(5, 3, 16, independent)
        before, after = net(past, rest)[0], net(moved, rest)[0]
        assert not torch.allclose(before[:, 1], after[:, 1])
        assert torch.equal(before[:, 0], after[:, 0]) == independent


def test_invisible_components_have_no_influence(net):
    past, rest = tracks()
    shown = torch.tensor([True, True, False]).expand(4, -1)
    for ours, theirs in zip(
        net(past, rest, shown), net(past[:, :2], rest[:, :2], shown[:, :2]), strict=True
    ):
        assert torch.allclose(ours[:, :2], theirs, atol=1e-6)


def test_longer_forecast_extends_a_shorter_one(net):
    past, rest = tracks()
    few, many = net(past, rest), net(past, rest, steps=30)
    assert many[0].shape == (4, 3, 2, 30)
    for ours, theirs in zip(many[:2], few[:2], strict=True):
        assert torch.allclose(ours[..., :3], theirs, atol=1e-6)
    assert (many[1] > 0).all() and ((many[2] > 0) & (many[2] < 1)).all()


def test_forecast_beyond_training_length_restarts_from_itself(net):
    past, rest = tracks()
    mean, std, shared = net(past, rest, steps=8)
    once = net(past, rest)
    again = net(torch.cat([past, once[0]], -1)[..., -5:], rest)
    assert torch.allclose(mean[..., 3:6], again[0], atol=1e-6)
    # The errors of both forecasts are independent.
    expected = (again[1].square() + once[1][..., -1:].square()).sqrt()
    assert torch.allclose(std[..., 3:6], expected, atol=1e-6)
    assert mean.shape[-1] == std.shape[-1] == 8
    assert torch.equal(shared, once[2])


def test_reflections_keep_distances():
    past, _ = tracks(batch=200)
    torch.manual_seed(0)
    turned = reflected(past)
    assert torch.allclose(turned.square().sum(-2), past.square().sum(-2))
    gaps = [(t[:, 0] - t[:, 1]).norm(dim=1) for t in (turned, past)]
    assert torch.allclose(*gaps, atol=1e-6)
    # All eight symmetries occur, as the images of (2, 1) show.
    places = reflected(torch.tensor([2.0, 1.0]).view(1, 1, 2, 1).expand(200, -1, -1, -1))
    assert len({tuple(place.flatten().tolist()) for place in places}) == 8


def trained_error(forecaster, steps=100):
    """Returns the error for two components that rest, then move toward each other."""
    torch.manual_seed(0)
    options = {"size": 32, "window": 16, "width": 4, "forecast": 24, "replay": 256, "content": 1}
    net = EquivariantDDPAE(5, 3, forecaster=forecaster, **options)
    start = torch.rand(2000, 2, 2, 1) - 0.5
    pull = 0.1 * (start.flip(1) - start)
    track = start + pull * (torch.arange(8) - 4).clamp(min=0)
    net.memory[:2000] = torch.cat([track, torch.zeros_like(start), torch.ones_like(start)], -1)
    net.memory[0, 1] = 0.0  # an invisible component
    net.remembered += 2000
    optimizer = torch.optim.Adam(net.forecast.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net.forecast_loss()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    with torch.no_grad():
        past = track[1:, ..., :5]
        mean = net.forecast(past, torch.zeros_like(past[..., :1]))[0]
    return float((mean - track[1:, ..., 5:])[..., -1].square().mean().sqrt())


def test_forecast_learns_interactions():
    assert trained_error("relational") < 0.3 * trained_error("independent")
