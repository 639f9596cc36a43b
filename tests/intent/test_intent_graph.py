"""The intent network: independent members, each the network that its equations describe."""

import copy

import pytest
import torch
from make import graphs
from torch import nn
from torch.nn import functional

from vidreason.core.errors import DataError
from vidreason.intent.networks.intent_graph import (
    IntentGraphNet,
    MemberGRU,
    MemberLinear,
    standardise,
)
from vidreason.intent.task import IntentTask
from vidreason.scenes.scene import SIGNALS, TAGS

MEMBERS, WINDOWS = 3, 9
CALM = {"dropout": 0.0, "input_noise": 0.0, "input_dropout": 0.0}


@pytest.fixture(scope="module")
def graph():
    graph = graphs.batch()
    graph.fold = torch.full((WINDOWS,), -1)
    return graph


def net(features=graphs.ALL, horizon=1, **options):
    """A network that has seen a batch, so that standardising changes its inputs."""
    torch.manual_seed(0)
    made = IntentGraphNet(
        features, graphs.STEPS, horizon, **({"hidden": 6, "members": MEMBERS} | options)
    )
    made.train()(graphs.batch(features))
    return made.eval()


def kept(module, call):
    """What `module` is given when `call` runs."""
    found = []
    hook = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    with torch.no_grad():
        call()
    hook.remove()
    (one,) = found
    return one


# --- A slow reference: one member, one window and one step at a time.


def reference(net, graph):
    members = [
        torch.stack([_window(net, graph, m, b) for b in range(len(graph.window))])
        for m in range(net.members)
    ]
    return torch.stack(members)


def _window(net, graph, m, b):
    person, near, steps = graph["person"], graph[graphs.NEAR], range(graphs.STEPS)
    target = int(person.ptr[b])
    states = []
    for t in steps:
        signals = [graph["infra"].x[len(SIGNALS) * b + kind, t] for kind in range(len(SIGNALS))]
        around = torch.cat([graph["ego"].x[b, t], *signals])
        own = torch.cat([_scaled(net.person_norm, person.x[target, t]), around])
        own[len(own) - len(around) :] = _scaled(net.around_norm, around)
        told, count = torch.zeros(net.near.weight.shape[1]), 0
        for e, (other, to) in enumerate(near.edge_index.T.tolist()):
            if to == target and person.valid[other, t]:
                sender = _scaled(net.person_norm, person.x[other, t])
                edge = _scaled(net.edge_norm, near.edge_attr[e, t])
                told = told + torch.relu(_linear(net.message, m, torch.cat([sender, edge])))
                count += 1
        told = _linear(net.near, m, told / (1 + count))
        states.append(functional.gelu(_linear(net.own, m, own) + told))
    states = _gru(net.recurrence, m)(torch.stack(states)[None])[0][0]
    detected = [_linear(net.detect, m, states[t]) for t in steps]
    last = functional.gelu(_linear(net.merge, m, states[-1]))
    return torch.cat([*detected, _linear(net.answer, m, last)])


def _scaled(norm, x):
    return (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()


def _linear(layer, m, x):
    return x @ layer.weight[m] + layer.bias[m, 0]


def _gru(members, m):
    """Member m as torch's own unit."""
    width = members.hidden.weight.shape[1]
    one = nn.GRU(width, width, batch_first=True)
    with torch.no_grad():
        for name, layer in (("ih", members.input), ("hh", members.hidden)):
            getattr(one, f"weight_{name}_l0").copy_(layer.weight[m].T)
            getattr(one, f"bias_{name}_l0").copy_(layer.bias[m, 0])
    return one


@pytest.mark.parametrize(
    "features", [graphs.ALL, ("box",), ("box", "neighbours"), ("box", "ego")], ids=str
)
def test_logits_are_those_of_the_equations(features):
    one, graph = net(features, horizon=2), graphs.batch(features, [0, 4, 8])
    with torch.no_grad():
        logits = one(graph)
        assert logits.shape == (MEMBERS, 3, graphs.STEPS + 2 + len(TAGS))
        assert torch.allclose(logits, reference(one, graph), atol=1e-5)


def test_members_are_torchs_own_layers_side_by_side():
    torch.manual_seed(0)
    x = torch.randn(MEMBERS, 4, 7, 5)
    recurrence, linear = MemberGRU(MEMBERS, 5), MemberLinear(MEMBERS, 5, 2)
    with torch.no_grad():
        together, rows, shared = recurrence(x), linear(x.flatten(1, 2)), linear(x[0, 0])
        for m in range(MEMBERS):
            assert torch.allclose(together[m], _gru(recurrence, m)(x[m])[0], atol=1e-6)
            plain = nn.Linear(5, 2)
            plain.weight.copy_(linear.weight[m].T)
            plain.bias.copy_(linear.bias[m, 0])
            assert torch.allclose(rows[m], plain(x[m].flatten(0, 1)), atol=1e-6)
            assert torch.allclose(shared[:, 2 * m : 2 * m + 2], plain(x[0, 0]), atol=1e-6)


def test_a_member_is_a_network_of_its_own(graph):
    every = net()
    with torch.no_grad():
        together = every(graph)
        for m in range(MEMBERS):
            weights = dict(every.named_parameters())
            one = net(members=1)
            state = {k: v[m : m + 1] if k in weights else v for k, v in every.state_dict().items()}
            one.load_state_dict(state)
            assert torch.allclose(one(graph)[0], together[m], atol=1e-6)
    every.train()(graph)[1].square().sum().backward()
    for name, weight in every.named_parameters():
        assert not weight.grad[[0, 2]].any() and weight.grad[1].any(), name


def test_a_window_is_judged_by_what_is_in_it(graph):
    """Whatever else is in the batch, in whatever order; absent persons say nothing."""
    one = net()
    with torch.no_grad():
        together = one(graph)
        assert together.std(1).min() > 1e-3  # or the rest would say nothing
        alone = torch.cat([one(graphs.batch(rows=[w])) for w in range(WINDOWS)], 1)
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together, one(graphs.shuffled(graph)), atol=1e-5)
        assert torch.equal(together, one(graphs.garbled(graph, ["person", graphs.NEAR])))
        less = one(graphs.without_neighbours(graph))
        assert not torch.allclose(together[:, :6], less[:, :6], atol=1e-3)
        assert torch.allclose(together[:, 6:], less[:, 6:], atol=1e-5)  # they had none


def test_one_step_beside_one_neighbour_is_judged_as_in_company():
    """Statistics need several rows, but judging does not."""
    one, graph = net(), graphs.batch(rows=[0])
    near, person = graph[graphs.NEAR], graph["person"]
    seen = torch.zeros_like(near.valid)
    seen[0, 3] = True
    near.valid, near.edge_attr = seen, near.edge_attr * seen[..., None]
    person.valid[1:], person.x[1:] = seen, person.x[1:] * seen[..., None]
    with torch.no_grad():
        assert torch.allclose(one(graph), reference(one, graph), atol=1e-5)


def test_standardising_is_over_what_is_there():
    torch.manual_seed(0)
    x, valid = 3 + 2 * torch.randn(6, 5, 4), torch.rand(6, 5) < 0.6
    norm = nn.BatchNorm1d(4, affine=False)
    out = standardise(norm, x, valid)
    rows = x[valid]
    deviation = rows.std(0, correction=0)
    assert torch.allclose(out[valid], (rows - rows.mean(0)) / deviation, atol=1e-4)
    assert not out[~valid].any()
    assert torch.allclose(norm.running_mean, 0.1 * rows.mean(0))
    other = nn.BatchNorm1d(4, affine=False)
    assert torch.equal(standardise(other, x.where(valid[..., None], 1e6), valid), out)
    assert torch.equal(other.running_var, norm.running_var)


def test_judging_draws_nothing_and_training_follows_the_seed(graph):
    one = net(neighbour_dropout=0.5)

    def seeded(seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return one(graph)

    assert torch.equal(seeded(1), seeded(2))
    one.train()
    assert torch.equal(seeded(1), seeded(1))
    assert not torch.allclose(seeded(1), seeded(2), atol=1e-3)


def training(**options):
    return net(**(CALM | options)).train()


def test_noise_moves_a_track_and_does_not_shake_it(graph):
    calm, noisy = training(), training(input_noise=0.3)
    shape = (MEMBERS, WINDOWS, graphs.STEPS, -1)

    own = [kept(one.own, lambda one=one: one(graph)).view(shape) for one in (calm, noisy)]
    noise = own[1] - own[0]
    assert torch.allclose(noise, noise[:, :, :1].expand_as(noise), atol=1e-5)
    assert noise[:, :, 0].std().item() == pytest.approx(0.3, abs=0.02)
    for axis in (0, 1, 3):  # of its own for each member, sample and column
        assert noise.std(axis).min() > 1e-3

    edge, step = graph[graphs.NEAR].valid.nonzero(as_tuple=True)
    told = [kept(one.message, lambda one=one: one(graph)) for one in (calm, noisy)]
    noise = told[1] - told[0]
    for e in range(len(graph[graphs.NEAR].valid)):
        here = noise[edge == e]
        assert torch.allclose(here, here[:1].expand_as(here), atol=1e-5)
    assert noise.std().item() == pytest.approx(0.3, abs=0.02)


def test_columns_and_units_are_hidden_for_a_whole_track(graph):
    shape = (MEMBERS, WINDOWS, graphs.STEPS, -1)
    # Noise makes every column differ from 0 unless it is hidden.
    one = training(input_noise=0.1, input_dropout=0.25)
    hidden = kept(one.own, lambda: one(graph)).view(shape) == 0
    assert torch.equal(hidden, hidden[:, :, :1].expand_as(hidden))
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.05)

    one, calm = training(dropout=0.4), training()
    units, whole = (kept(n.recurrence, lambda n=n: n(graph)).view(shape) for n in (one, calm))
    hidden = units == 0
    assert torch.equal(hidden, hidden[:, :, :1].expand_as(hidden))
    assert hidden.float().mean().item() == pytest.approx(0.4, abs=0.12)
    assert torch.allclose(units[~hidden], whole[~hidden] / 0.6, atol=1e-5)


def test_hiding_every_neighbour_is_having_none(graph):
    one, calm = training(neighbour_dropout=1.0), training()
    for net in (one, calm):
        for norm in (net.person_norm, net.edge_norm, net.around_norm):
            norm.eval()  # batches without them have other statistics
    with torch.no_grad():
        assert torch.allclose(one(graph), calm(graphs.without_neighbours(graph)), atol=1e-6)
        assert not torch.allclose(one(graph), calm(graph), atol=1e-3)


def test_neighbours_are_hidden_for_the_whole_window(graph):
    one = training(neighbour_dropout=0.5)
    near, sums = graph[graphs.NEAR], []
    alone = copy.copy(graph)
    # Each edge says its number at each step.
    alone[graphs.NEAR].edge_attr = torch.arange(18.0)[:, None, None].expand_as(near.edge_attr)
    one.edge_norm.eval().reset_running_stats()  # and is heard as it is
    for seed in range(20):
        torch.manual_seed(seed)
        number = kept(one.message, lambda: one(alone))[:, -1]
        heard = number.round().long().bincount(minlength=18)
        assert ((heard == 0) | (heard == near.valid.sum(1))).all()
        sums.append((heard > 0).float().mean())
    assert torch.stack(sums).mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("features", [graphs.ALL, ("box",)], ids=str)
def test_every_weight_learns(features):
    graph = graphs.batch(features)
    graph.fold = torch.arange(WINDOWS) % MEMBERS
    one = net(features).train()
    IntentTask(one, folds=MEMBERS).loss(one(graph), graph).backward()
    for name, weight in one.named_parameters():
        # A target without company is told nothing.
        if "neighbours" in features or name not in (
            "message.weight",
            "message.bias",
            "near.weight",
        ):
            assert weight.grad.flatten(1).any(1).all(), name


def test_a_member_learns_nothing_from_the_fold_it_holds_out(graph):
    one = training()
    task, graph = IntentTask(one, folds=MEMBERS), copy.copy(graph)

    def learned(fold):
        graph.fold = fold
        one.zero_grad()
        task.loss(one(graph), graph).backward()
        return {name: weight.grad.clone() for name, weight in one.named_parameters()}

    for name, grad in learned(torch.full((WINDOWS,), 1)).items():
        assert not grad[1].any() and grad[0].any() and grad[2].any(), name

    # Answers that are held out cannot change what is learned.
    fold = torch.arange(WINDOWS) % MEMBERS
    before = learned(fold)
    graph.y, graph.tags = graph.y.clone(), graph.tags.clone()
    graph.y[fold == 1] = 1 - graph.y[fold == 1]
    graph.tags[fold == 1] = 1 - graph.tags[fold == 1]
    after = learned(fold)
    for name, grad in before.items():
        assert torch.allclose(grad[1], after[name][1], atol=1e-7), name
        assert not torch.allclose(grad[0], after[name][0], atol=1e-7), name


@pytest.mark.parametrize(
    "option",
    [
        {"hidden": 0},
        {"hidden": 4097},
        {"members": 0},
        {"members": 101},
        {"dropout": -0.1},
        {"dropout": 1.0},
        {"input_noise": -0.1},
        {"input_noise": float("nan")},
        {"input_dropout": 1.0},
        {"neighbour_dropout": 1.1},
    ],
    ids=str,
)
def test_bad_options_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(DataError, match=f"model.net.{name}: {value} is not within") as error:
        IntentGraphNet(graphs.ALL, 16, 1, **option)
    assert "\n" not in str(error.value)
