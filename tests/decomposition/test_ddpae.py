"""DDPAE against a plain implementation and Pyro, its options and shapes."""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from vidreason.core.errors import DataError
from vidreason.decomposition.mnist import read_digits
from vidreason.decomposition.networks.ddpae import DDPAE

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from plain_ddpae import PlainDDPAE  # noqa: E402

SMALL = {"size": 16, "hidden": 5, "content": 6, "feature": 7, "width": 2}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def squares(clips=3, length=6, size=16, channels=1):
    """Returns clips of two bright moving squares."""
    frames = torch.zeros(clips, length, channels, size, size)
    for b in range(clips):
        for t in range(length):
            frames[b, t, :, 1 + t : 5 + t, 2 + b : 6 + b] = 0.9
            frames[b, t, :, 9 : 9 + 4, 9 - t : 13 - t] = 0.6
    return frames


def lively(kind, **options):
    """Returns a float64 network with weights so large that every path matters."""
    net = kind(**SMALL | options).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return net


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, 706_364),
        ({"components": 4, "size": 128, "hidden": 128, "scale_prior": 4.0}, 1_807_420),
    ],
)
def test_number_of_parameters_is_the_published_one(options, expected):
    assert sum(p.numel() for p in DDPAE(**options).parameters()) == expected


def test_initialisation_is_the_published_one():
    net = DDPAE()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert (
                module.weight.detach().std() == pytest.approx(0.02, rel=0.2) and module.bias is None
            )
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.detach().mean() == pytest.approx(1, abs=0.02)
    assert not net.beta.bias.any()
    assert net.encoder.weight_hh_l0.detach().abs().max() == pytest.approx(1 / 8, rel=0.01)


OPTIONS = [{}, {"components": 3, "channels": 2}, {"independent_components": True}, {"size": 32}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("train", [True, False])
def test_loss_and_gradients_equal_the_plain_implementation(options, train):
    fast, plain = lively(DDPAE, **options), PlainDDPAE(**SMALL | options).double()
    plain.load_state_dict(fast.state_dict())
    size = fast.size
    frames = squares(4, 7, size, fast.channels).double()
    losses = []
    for net in (fast, plain):
        torch.manual_seed(1)
        loss = -net.train(train).elbo(frames, 4)
        assert loss.shape == (4,)
        loss.sum().backward()
        losses.append(loss)
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
    for name, parameter in plain.named_parameters():
        ours = fast.get_parameter(name).grad
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-7, atol=1e-9, msg=name)
    for ours, theirs in zip(
        fast.decompose(frames[:, :4], 3), plain.decompose(frames[:, :4], 3), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3 if train else 1e-9, atol=1e-9)


def test_prediction_equals_the_plain_recurrence():
    fast = lively(DDPAE, components=3)
    plain = PlainDDPAE(**SMALL, components=3).double()
    plain.load_state_dict(fast.state_dict())
    state, cell = torch.randn(2, 4, 3, 5, dtype=torch.float64).unbind(0)
    torch.testing.assert_close(fast._predict(state, cell, 6), plain._predict(state, cell, 6))


@pytest.mark.parametrize("options", [*OPTIONS[:3], {"disentangle": False}])
def test_elbo_equals_pyro(options):
    net = lively(DDPAE, **options)
    frames = squares(channels=net.channels).double()
    torch.manual_seed(2)
    ours = -net.elbo(frames, 3).sum()
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pyro warns about a different order of sites
        pyros = TraceMeanField_ELBO().differentiable_loss(net.model, net.guide, frames, 3)
    assert ours.item() == pytest.approx(pyros.item(), rel=1e-12)
    ours = torch.autograd.grad(ours, list(net.parameters()))
    pyros = torch.autograd.grad(pyros, list(net.parameters()))
    torch.testing.assert_close(ours, pyros, rtol=1e-8, atol=1e-9)


def test_elbo_is_the_mean_of_the_published_objective():
    """`Trace_ELBO` estimates the divergence from the sample, as the published code does."""
    net = DDPAE(**SMALL).double().eval()
    # For posteriors near the prior, few samples are enough.
    net.beta.bias.data[3:] = -2
    net.initial_pose.bias.data.copy_(torch.tensor([1.9, 0, 0, -1.6, 0, 0]))
    net.content.bias.data[6:] = 0.3
    frames = squares().double()
    trace = Trace_ELBO()
    with torch.no_grad():
        differences = []
        for number in range(100):
            torch.manual_seed(number)
            ours = -net.elbo(frames, 3).sum().item()
            torch.manual_seed(number)
            differences.append(trace.loss(net.model, net.guide, frames, 3) - ours)
    error = np.std(differences) / math.sqrt(len(differences))
    assert error < 1.5
    assert abs(np.mean(differences)) < 4 * error


def test_elbo_has_the_published_constants():
    """With zero heads and black objects, the ELBO has a closed form."""
    net = DDPAE(**SMALL, scale_prior=3.0).double()
    for head in (net.beta, net.initial_pose, net.content):
        head.weight.data.zero_()
    net._render = lambda latents: torch.zeros(3, 6, 1, 16, 16, dtype=torch.float64)
    frames = squares().double()
    likelihood = torch.distributions.Normal(0, 0.3).log_prob(frames).sum((1, 2, 3, 4)).numpy()

    def divergence(mean, std):  # of N(0, log(2)²) from N(mean, std²)
        q = math.log(2)
        return math.log(std / q) + (q**2 + mean**2) / (2 * std**2) - 0.5

    pose = divergence(3, 0.2) + 2 * divergence(0, 1)
    each = 6 * 3 * divergence(0, 0.1) + pose + 6 * divergence(0, 1)
    found = net.elbo(frames, 3).detach().numpy()
    np.testing.assert_allclose(found, likelihood - 2 * each, rtol=1e-4)  # 1e-6 floor


def test_models_share_no_parameters():
    before = dict(pyro.get_param_store())
    frames = squares()
    nets = [DDPAE(**SMALL), DDPAE(**SMALL)]
    weights = [[p.clone() for p in net.parameters()] for net in nets]
    TraceMeanField_ELBO().differentiable_loss(nets[0].model, nets[0].guide, frames, 3).backward()
    assert dict(pyro.get_param_store()) == before
    assert all(p.grad is not None for p in nets[0].parameters())
    assert all(p.grad is None for p in nets[1].parameters())
    assert all(map(torch.equal, weights[1], nets[1].parameters()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"components": 1},
        {"components": 3, "channels": 3, "size": 32},
        {"independent_components": True},
        {"disentangle": False},
    ],
)
def test_variants_learn_a_clip(options):
    net = DDPAE(**SMALL | options)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    frames = squares(size=net.size, channels=net.channels)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = -net.elbo(frames, 3).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    "options", [{}, {"components": 3, "channels": 2, "size": 32}, {"disentangle": False}]
)
@pytest.mark.parametrize("t_in, t_out", [(1, 1), (3, 5)])
def test_output_shapes(options, t_in, t_out):
    net = DDPAE(**SMALL | options).eval()
    frames = squares(2, t_in, net.size, net.channels)
    found = net.decompose(frames, t_out)
    image = (net.channels, net.size, net.size)
    assert found.frames.shape == (2, t_in + t_out, *image)
    assert found.components.shape == (2, t_in + t_out, net.components, *image)
    assert found.positions.shape == (2, t_in + t_out, net.components, 2)
    assert found.sides.shape == (2, t_in + t_out, net.components)
    assert found.frames.min() >= 0 and found.frames.max() <= 1
    assert net.sample(frames, t_out, 4).shape == (4, 2, t_out, *image)


@pytest.mark.parametrize("options", [{}, {"disentangle": False}])
def test_decompose_is_deterministic_and_sample_is_not(options):
    net = DDPAE(**SMALL | options).eval()
    frames = squares(length=3)
    for one, other in zip(net.decompose(frames, 2), net.decompose(frames, 2), strict=True):
        assert torch.equal(one, other)
    one, other = net.sample(frames, 2, 2)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"disentangle": False}])
def test_decomposition_is_the_likelihood_mean_at_the_posterior_means(options):
    net = lively(DDPAE, **options).eval()
    frames = squares(length=3).double()
    found = net.decompose(frames, 2)
    latents = net._latents(frames, net._states(frames, 2), lambda _, mean, std: mean)
    torch.testing.assert_close(found.frames, net._render(latents).clamp(max=1))
    assert found.frames.std() > 0.01


def test_inference_does_not_see_predicted_frames():
    net = lively(DDPAE).eval()
    frames = squares().double()
    torch.manual_seed(3)
    trace = pyro.poutine.trace(net.guide).get_trace(frames, 3)
    frames[:, 3:] = 0.5
    torch.manual_seed(3)
    blind = pyro.poutine.trace(net.guide).get_trace(frames, 3)
    for site in ("input_beta", "pred_beta", "initial_pose", "content"):
        assert torch.equal(trace.nodes[site]["value"], blind.nodes[site]["value"])


def test_initial_pose_depends_on_the_first_frame_only():
    net = lively(DDPAE).eval()
    frames = squares().double()
    first = pyro.poutine.trace(net.guide).get_trace(frames, 3).nodes["initial_pose"]["fn"]
    frames[:, 1:] = 0.5
    again = pyro.poutine.trace(net.guide).get_trace(frames, 3).nodes["initial_pose"]["fn"]
    assert torch.equal(first.base_dist.loc, again.base_dist.loc)


def test_samples_without_variance_equal_the_prediction():
    net = lively(DDPAE).eval()
    for head in (net.beta, net.initial_pose, net.content):
        head.bias.data.chunk(2)[1].fill_(-200)
    frames = squares(length=3).double()
    future = net.decompose(frames, 2).frames[:, 3:]
    sampled = net.sample(frames, 2, 2)
    torch.testing.assert_close(sampled, future.expand_as(sampled), rtol=0, atol=1e-4)
    assert (net.decompose(frames, 2).frames[:, :2] - future).abs().max() > 0.01


def test_positions_are_where_a_component_draws():
    """A decoder of white objects fills the window given by position and side."""
    net = DDPAE(components=2, size=64, scale_prior=3.0).eval()
    net._objects = lambda code: torch.ones(*code.shape[:-1], 1, 32, 32)
    net.initial_pose.bias.data[:3] = torch.tensor([3.0, 0.3, -0.2])
    net.initial_pose.weight.data[:3] = 0.5
    net.beta.weight.data[:3] = 0.1
    found = net.decompose(squares(3, 4, 64), 4)
    ink = found.components[:, :, :, 0]
    axis = torch.arange(64) + 0.5
    x, y = ink.sum(-2) @ axis / ink.sum((-2, -1)), ink.sum(-1) @ axis / ink.sum((-2, -1))
    torch.testing.assert_close(found.positions, torch.stack([x, y], -1), atol=0.15, rtol=0)
    assert found.positions.std() > 1
    torch.testing.assert_close(found.sides, ink.sum((-2, -1)).sqrt(), atol=0.6, rtol=0)


def test_entangled_positions_are_centres_of_mass():
    net = DDPAE(**SMALL, disentangle=False).eval()
    image = torch.zeros(1, 16, 16)
    image[0, 3, 10] = 1
    net._objects = lambda code: image.expand(*code.shape[:-1], 1, 16, 16)
    found = net.decompose(squares(length=2), 1)
    assert torch.equal(found.positions, torch.tensor([10.5, 3.5]).expand(3, 3, 2, 2))
    assert (found.sides == 16).all()


@pytest.mark.parametrize(
    "options, word",
    [
        ({"components": 0}, "components"),
        ({"size": 48}, "power of two"),
        ({"size": 8}, "power of two"),
        ({"channels": 0}, "channels"),
        ({"hidden": -1}, "hidden"),
        ({"scale_prior": 1.0}, "scale_prior"),
        ({"scale_prior": float("nan")}, "scale_prior"),
    ],
)
def test_invalid_options_are_reported_in_one_line(options, word):
    with pytest.raises(DataError, match=word) as caught:
        DDPAE(**options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "shape, t_out",
    [
        ((2, 3, 1, 32, 32), 2),
        ((2, 3, 3, 16, 16), 2),
        ((2, 3, 16, 16), 2),
        ((2, 3, 1, 16, 16), 0),
        ((2, 0, 1, 16, 16), 2),
    ],
)
def test_wrong_frame_shapes_are_rejected(shape, t_out):
    with pytest.raises(DataError, match="frames: shape"):
        DDPAE(**SMALL).decompose(torch.zeros(shape), t_out)


def test_weights_are_restored_from_a_checkpoint(tmp_path):
    net, other = DDPAE(**SMALL), DDPAE(**SMALL)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    frames = squares(length=3)
    found, expected = (n.eval().decompose(frames, 2).frames for n in (other, net))
    assert torch.equal(found, expected)


def test_initial_loss_on_digits(real_digits):
    digits = read_digits(real_digits, "train")[0][:32] / 255
    rng = np.random.default_rng(0)
    frames = np.zeros((16, 20, 1, 64, 64), np.float32)
    for k, digit in enumerate(digits):
        (x, y), (u, v) = rng.uniform(0, 36, 2), rng.uniform(-3, 3, 2)
        for t in range(20):
            left, top = (int(abs((p + 36) % 72 - 36)) for p in (x + u * t, y + v * t))
            place = frames[k // 2, t, 0, top : top + 28, left : left + 28]
            np.maximum(place, digit, out=place)
    frames = torch.from_numpy(frames)
    with torch.no_grad():
        loss = -DDPAE().elbo(frames, 10).sum() / frames.numel()
    assert 1.9 < loss < 2.5  # nats per pixel; the floor is -0.285
