"""The intent graph network: its equations, its invariances and its training."""

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
    """Returns a network after one batch, so that its running statistics are not trivial."""
    torch.manual_seed(0)
    made = IntentGraphNet(
        features, graphs.STEPS, horizon, **({"hidden": 6, "members": MEMBERS} | options)
    )
    made.train()(graphs.batch(features))
    return made.eval()


def input_of(module, call):
    """Returns the input of `module` in `call`."""
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
        messages, count = torch.zeros(net.near.weight.shape[1]), 0
        for e, (other, to) in enumerate(near.edge_index.T.tolist()):
            if to == target and person.valid[other, t]:
                sender = _scaled(net.person_norm, person.x[other, t])
                edge = _scaled(net.edge_norm, near.edge_attr[e, t])
                message = torch.relu(_linear(net.message, m, torch.cat([sender, edge])))
                messages, count = messages + message, count + 1
        near_sum = _linear(net.near, m, messages / (1 + count))
        states.append(functional.gelu(_linear(net.own, m, own) + near_sum))
    states = _gru(net.recurrence, m)(torch.stack(states)[None])[0][0]
    detected = [_linear(net.detect, m, states[t]) for t in steps]
    last = functional.gelu(_linear(net.merge, m, states[-1]))
    return torch.cat([*detected, _linear(net.answer, m, last)])


def _scaled(norm, x):
    return (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()


def _linear(layer, m, x):
    return x @ layer.weight[m] + layer.bias[m, 0]


def _gru(members, m):
    """Returns member m as a `torch.nn.GRU`."""
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
def test_logits_equal_the_equations(features):
    one, graph = net(features, horizon=2), graphs.batch(features, [0, 4, 8])
    with torch.no_grad():
        logits = one(graph)
        assert logits.shape == (MEMBERS, 3, graphs.STEPS + 2 + len(TAGS))
        assert torch.allclose(logits, reference(one, graph), atol=1e-5)


def test_member_layers_equal_those_of_torch():
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


def test_members_are_independent_networks(graph):
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


def test_logits_depend_only_on_the_present_nodes_of_a_window(graph):
    """They depend neither on the rest of the batch, nor on the order of nodes or absent rows."""
    one = net()
    with torch.no_grad():
        together = one(graph)
        assert together.std(1).min() > 1e-3  # otherwise, the comparisons are trivial
        alone = torch.cat([one(graphs.batch(rows=[w])) for w in range(WINDOWS)], 1)
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together, one(graphs.shuffled(graph)), atol=1e-5)
        noisy = graphs.with_noise_where_absent(graph, ["person", graphs.NEAR])
        assert torch.equal(together, one(noisy))
        less = one(graphs.without_neighbours(graph))
        assert not torch.allclose(together[:, :6], less[:, :6], atol=1e-3)
        assert torch.allclose(together[:, 6:], less[:, 6:], atol=1e-5)  # these have no neighbours


def test_evaluation_works_with_a_single_present_edge():
    """Batch statistics need several rows, running statistics do not."""
    one, graph = net(), graphs.batch(rows=[0])
    near, person = graph[graphs.NEAR], graph["person"]
    seen = torch.zeros_like(near.valid)
    seen[0, 3] = True
    near.valid, near.edge_attr = seen, near.edge_attr * seen[..., None]
    person.valid[1:], person.x[1:] = seen, person.x[1:] * seen[..., None]
    with torch.no_grad():
        assert torch.allclose(one(graph), reference(one, graph), atol=1e-5)


def test_standardise_uses_valid_rows_only():
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


def test_evaluation_is_deterministic_and_training_depends_on_the_seed(graph):
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


def test_input_noise_is_constant_over_time(graph):
    calm, noisy = training(), training(input_noise=0.3)
    shape = (MEMBERS, WINDOWS, graphs.STEPS, -1)

    own = [input_of(one.own, lambda one=one: one(graph)).view(shape) for one in (calm, noisy)]
    noise = own[1] - own[0]
    assert torch.allclose(noise, noise[:, :, :1].expand_as(noise), atol=1e-5)
    assert noise[:, :, 0].std().item() == pytest.approx(0.3, abs=0.02)
    for axis in (0, 1, 3):  # it differs between members, samples and columns
        assert noise.std(axis).min() > 1e-3

    edge, step = graph[graphs.NEAR].valid.nonzero(as_tuple=True)
    messages = [input_of(one.message, lambda one=one: one(graph)) for one in (calm, noisy)]
    noise = messages[1] - messages[0]
    for e in range(len(graph[graphs.NEAR].valid)):
        here = noise[edge == e]
        assert torch.allclose(here, here[:1].expand_as(here), atol=1e-5)
    assert noise.std().item() == pytest.approx(0.3, abs=0.02)


def test_dropout_of_columns_and_units_is_constant_over_time(graph):
    shape = (MEMBERS, WINDOWS, graphs.STEPS, -1)
    # With noise, only dropped columns are 0.
    one = training(input_noise=0.1, input_dropout=0.25)
    dropped = input_of(one.own, lambda: one(graph)).view(shape) == 0
    assert torch.equal(dropped, dropped[:, :, :1].expand_as(dropped))
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.05)

    one, calm = training(dropout=0.4), training()
    units, whole = (input_of(n.recurrence, lambda n=n: n(graph)).view(shape) for n in (one, calm))
    dropped = units == 0
    assert torch.equal(dropped, dropped[:, :, :1].expand_as(dropped))
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=0.12)
    assert torch.allclose(units[~dropped], whole[~dropped] / 0.6, atol=1e-5)


def test_dropping_every_neighbour_equals_having_none(graph):
    one, calm = training(neighbour_dropout=1.0), training()
    for net in (one, calm):
        for norm in (net.person_norm, net.edge_norm, net.around_norm):
            norm.eval()  # batches without neighbours have other statistics
    with torch.no_grad():
        assert torch.allclose(one(graph), calm(graphs.without_neighbours(graph)), atol=1e-6)
        assert not torch.allclose(one(graph), calm(graph), atol=1e-3)


def test_neighbours_are_dropped_for_the_whole_window(graph):
    one = training(neighbour_dropout=0.5)
    near, kept = graph[graphs.NEAR], []
    numbered = copy.copy(graph)
    # The columns of each edge are its index, in every step.
    numbered[graphs.NEAR].edge_attr = torch.arange(18.0)[:, None, None].expand_as(near.edge_attr)
    one.edge_norm.eval().reset_running_stats()  # no standardisation
    for seed in range(20):
        torch.manual_seed(seed)
        index = input_of(one.message, lambda: one(numbered))[:, -1]
        steps = index.round().long().bincount(minlength=18)
        assert ((steps == 0) | (steps == near.valid.sum(1))).all()
        kept.append((steps > 0).float().mean())
    assert torch.stack(kept).mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("features", [graphs.ALL, ("box",)], ids=str)
def test_every_weight_gets_a_gradient(features):
    graph = graphs.batch(features)
    graph.fold = torch.arange(WINDOWS) % MEMBERS
    one = net(features).train()
    IntentTask(one, folds=MEMBERS).loss(one(graph), graph).backward()
    for name, weight in one.named_parameters():
        # A target without neighbours gets no messages.
        if "neighbours" in features or name not in (
            "message.weight",
            "message.bias",
            "near.weight",
        ):
            assert weight.grad.flatten(1).any(1).all(), name


def test_members_get_no_gradient_from_the_fold_they_hold_out(graph):
    one = training()
    task, graph = IntentTask(one, folds=MEMBERS), copy.copy(graph)

    def gradients(fold):
        graph.fold = fold
        one.zero_grad()
        task.loss(one(graph), graph).backward()
        return {name: weight.grad.clone() for name, weight in one.named_parameters()}

    for name, grad in gradients(torch.full((WINDOWS,), 1)).items():
        assert not grad[1].any() and grad[0].any() and grad[2].any(), name

    # Labels that a member holds out do not affect its gradient.
    fold = torch.arange(WINDOWS) % MEMBERS
    before = gradients(fold)
    graph.y, graph.tags = graph.y.clone(), graph.tags.clone()
    graph.y[fold == 1] = 1 - graph.y[fold == 1]
    graph.tags[fold == 1] = 1 - graph.tags[fold == 1]
    after = gradients(fold)
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
def test_options_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(DataError, match=f"model.net.{name}: must be .*, got {value}; ") as error:
        IntentGraphNet(graphs.ALL, 16, 1, **option)
    assert "\n" not in str(error.value)
