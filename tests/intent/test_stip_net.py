"""The STIP network: its equations, its invariances and its options."""

import warnings
from typing import get_args

import pytest
import torch
from make import graphs

from vidreason.core.errors import DataError
from vidreason.intent.features import sizes
from vidreason.intent.networks.stip import Gate, StipNet

GATES = get_args(Gate)
CONTEXTS = ("mean", "gru", "node")
# Random weights depend on the batch.
DETERMINISTIC = [gate for gate in GATES if gate != "random"]


@pytest.fixture(scope="module")
def graph():
    return graphs.batch()


def net(features=graphs.ALL, horizon=3, **options):
    torch.manual_seed(0)
    made = StipNet(features, graphs.STEPS, horizon, **({"hidden": 6} | options)).eval()
    with torch.no_grad():  # so that every part affects the logits visibly
        for weight in made.parameters():
            weight.mul_(2)
        made.classify[0].bias.add_(1)
    return made


# --- A slow reference: vectors of the nodes that are present in one frame of one window.


def reference(net, graph):
    return torch.stack([_window(net, graph, b) for b in range(len(graph.window))])


def _window(net, graph, b):
    steps = range(graphs.STEPS)
    person, near, windows = graph["person"], graph[graphs.NEAR], len(graph.window)
    target = int(person.ptr[b])
    # Per frame, the state of each node by name, the target's first, and its spatial relation.
    x = [{"target": net.person(person.x[target, t])} for t in steps]
    relation = [{} for _ in steps]
    # Rows of the table of random weights: inserted context nodes, persons, signals, ego vehicles.
    first = windows if net.context == "node" else 0
    row = {"context": b}
    for e, (other, to) in enumerate(near.edge_index.T.tolist()):
        row["person", other] = first + e
        for t in steps:
            if to == target and person.valid[other, t]:
                x[t]["person", other] = net.person(person.x[other, t])
                relation[t]["person", other] = near.edge_attr[e, t, :8]
    first += near.edge_index.shape[1]
    for kind in range(4):
        row["infra", kind] = first + 4 * b + kind
        for t in steps:
            if graph["infra"].valid[4 * b + kind, t]:
                state = net.infra(graph["infra"].x[4 * b + kind, t])
                x[t]["infra", kind] = state + net.kinds[kind]
    row["ego"] = first + 4 * windows + b
    for t in steps:
        if graph["ego"].valid[b, t]:
            x[t]["ego"] = net.ego(graph["ego"].x[b, t]) + net.kinds[4]
    if net.context == "node":
        for t in steps:
            x[t]["context"] = _mean(x[t])
    draw = torch.Generator().manual_seed(0)
    table = torch.rand(first + 5 * windows, graphs.STEPS, generator=draw)

    for layer in range(net.layers):
        w = net.weights[0] if len(net.weights) == 1 else net.weights[layer]
        for t in steps:
            names = list(x[t])
            nodes = torch.stack([x[t][name] for name in names])
            a = torch.eye(len(names))
            for j in range(1, len(names)):
                share = table[row[names[j]], t] / sum(table[row[n], t] for n in names[1:])
                edge = relation[t].get(names[j], torch.zeros(8))
                a[0, j] = a[j, 0] = _gate(net, nodes[0], nodes[j], edge, len(names) - 1, share)
            if net.gate == "all":
                for i in range(len(names)):
                    for j in range(len(names)):
                        a[i, j] = _inner(net, nodes[i], nodes[j]) if i != j else 1
            x[t] = dict(zip(names, (a @ nodes) @ w.weight.T + w.bias, strict=True))
        for name, gru in (("context", net.context_gru), ("target", net.pedestrian_gru)):
            if name in x[0] and gru is not None:
                for t, state in zip(
                    steps, gru(torch.stack([x[t][name] for t in steps])[None])[0][0], strict=True
                ):
                    x[t][name] = state

    context = torch.stack([x[t].get("context", _mean(x[t])) for t in steps])
    if net.context == "gru":
        context = net.context_gru(context[None])[0][0]
    hidden, out = None, []
    for t in steps:
        state = (
            torch.cat([x[t]["target"], context[t]]) if net.read_out == "both" else x[t]["target"]
        )
        step, hidden = net.sequence(state[None, None], hidden)
        out.append(step)
    for _ in range(net.horizon):
        step, hidden = net.decoder(out[-1], hidden)
        out.append(step)
    return torch.stack([net.classify(step[0, 0])[0] for step in out])


def _mean(nodes):
    others = [state for name, state in nodes.items() if name != "target"]
    return sum(others) / len(others) if others else torch.zeros_like(nodes["target"])


def _inner(net, one, other):
    return torch.sigmoid(net.gates.query(one) @ net.gates.key(other))


def _gate(net, target, other, relation, count, share):
    if net.gate == "uniform":
        return 1 / count
    if net.gate == "random":
        return share
    if net.gate in ("inner", "all"):
        return _inner(net, target, other)
    if net.gate == "cosine":
        q, k = net.gates.query(target), net.gates.key(other)
        return q @ k / (q.norm() * k.norm())
    e = torch.relu(net.gates.relation(relation))
    r = torch.relu(net.gates.relate(torch.cat([target, e]) if net.gate == "spatial" else e))
    o = torch.relu(net.gates.other(other))
    return torch.sigmoid(sum(o * r) / 128)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("gate", GATES)
def test_logits_equal_the_equations(gate, context):
    graph = graphs.batch(rows=[4, 8])  # with and without neighbours
    one = net(gate=gate, context=context, tied=False, layers=2)
    with torch.no_grad():
        assert torch.allclose(one(graph), reference(one, graph), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"tied": True},
        {"pedestrian_gru": False},
        {"read_out": "ped"},
        {"layers": 1},
        {"layers": 3, "tied": False},
        {"features": ("box",)},
        {"features": ("box", "neighbours")},
        {"features": ("box", "ego"), "context": "node"},
    ],
    ids=str,
)
def test_logits_with_other_options_equal_the_equations(options):
    one = net(**options)
    graph = graphs.batch(options.get("features", graphs.ALL), [4, 8])
    with torch.no_grad():
        assert torch.allclose(one(graph), reference(one, graph), atol=1e-5)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("gate", DETERMINISTIC)
def test_logits_depend_only_on_the_present_nodes_of_a_window(gate, context, graph):
    """They depend neither on the rest of the batch, nor on the order of nodes or absent rows."""
    one = net(gate=gate, context=context)
    with torch.no_grad():
        together = one(graph)
        assert together.std(0).min() > 1e-3  # otherwise, the comparisons are trivial
        alone = torch.cat([one(graphs.batch(rows=[w])) for w in (0, 4, 8)])
        assert torch.allclose(together[[0, 4, 8]], alone, atol=1e-5)
        assert torch.allclose(together, one(graphs.shuffled(graph)), atol=1e-5)
        noisy = graphs.with_noise_where_absent(graph, ["person", "infra", graphs.NEAR])
        assert torch.equal(together, one(noisy))
        assert not torch.allclose(together, one(graphs.without_neighbours(graph)), atol=1e-4)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("gate", GATES)
def test_every_weight_gets_a_gradient(gate, context, graph):
    one = net(gate=gate, context=context, tied=False).train()
    (one(graph) ** 2).sum().backward()
    for name, weight in one.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_parameter_counts_equal_those_of_the_published_network():
    d, classes = 512, 1
    one = StipNet(graphs.ALL, 30, 30, hidden=d)

    def count(part):
        return sum(weight.numel() for weight in part.parameters())

    assert count(one.pedestrian_gru) == 3_151_872
    assert count(one.sequence) == count(one.decoder) == 12_595_200
    assert count(one.weights) == 262_656
    assert count(one.gates) == 576 + 73_856 + 65_664
    assert count(one.classify) == (1024 + 1) * 512 + (512 + 1) * classes
    # The published network embeds images instead of boxes.
    width = sizes(graphs.ALL)
    nodes = sum((width[kind] + 1) * d + (d + 1) * d for kind in ("person", "infra", "ego"))
    head = 3_151_872 + 2 * 12_595_200 + 262_656 + 576 + 73_856 + 65_664 + 524_800 + 513
    assert count(one) == head + nodes + 5 * d


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("gate", GATES)
def test_windows_without_context_nodes_have_finite_logits_and_gradients(gate, context):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = net(("box",), gate=gate, context=context).train()
        logits = one(graphs.batch(("box",)))
        logits.sum().backward()
    assert logits.isfinite().all()
    assert all(w.grad.isfinite().all() for w in one.parameters() if w.grad is not None)


@pytest.mark.parametrize("gate", ["uniform", "random"])
def test_normalised_edge_weights_sum_to_one(gate, graph):
    for one in (net(gate=gate), net(gate=gate).train()):
        found = []
        one.gates.register_forward_hook(
            lambda _, inputs, w, found=found: found.append((*inputs, w))
        )
        one(graph)
        assert len(found) == 2
        for _, star, w in found:
            assert (w >= 0).all() and not w[~star.valid[star.others]].any()
            for b in range(star.windows):
                here = star.valid[star.others][star.target == b].any(0)
                total = w[star.target == b, :, 0].sum(0)
                assert torch.allclose(total, here.float(), atol=1e-6)


def test_random_edge_weights_depend_on_the_seed_in_training_but_are_fixed_in_evaluation(graph):
    one = net(gate="random")

    def seeded(seed):
        torch.manual_seed(seed)
        return one(graph)

    state = torch.get_rng_state()
    assert torch.equal(one(graph), one(graph))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(seeded(1), seeded(2))
    one.train()
    assert torch.equal(seeded(1), seeded(1))
    assert not torch.allclose(seeded(1), seeded(2), atol=1e-4)


def test_image_features_act_as_columns_of_persons(graph):
    one, graph = net(image_features=5), graph.clone()
    with pytest.raises(
        DataError, match="^model.net.image_features: is 5, .* 0 image features; set it to 0"
    ):
        one(graph)
    image = torch.randn(*graph["person"].valid.shape, 5)
    graph["person"].image = image[..., :4]
    with pytest.raises(
        DataError, match="^model.net.image_features: is 5, .* 4 image features; set it to 4"
    ):
        one(graph)
    with torch.no_grad():
        graph["person"].image = torch.zeros_like(image)
        blank = one(graph)
        graph["person"].image = image
        seen, plain = one(graph), net()
        assert not torch.allclose(seen, blank, atol=1e-4)
        assert torch.equal(plain(graph), plain(graphs.batch()))
        one.image_features = 0
        graph["person"].x = torch.cat([graph["person"].x, image], -1)
        assert torch.equal(one(graph), seen)


@pytest.mark.parametrize("horizon", [1, 4])
def test_predictions_do_not_depend_on_the_length_of_the_horizon(horizon, graph):
    near, far = net(horizon=horizon), net(horizon=6)
    far.load_state_dict(near.state_dict())
    with torch.no_grad():
        one, other = near(graph), far(graph)
    assert one.shape == (9, graphs.STEPS + horizon) and other.shape == (9, graphs.STEPS + 6)
    assert torch.allclose(one, other[:, : graphs.STEPS + horizon], atol=1e-6)
    assert (other.diff(dim=1).abs() > 1e-6).all()


@pytest.mark.parametrize("option", [{"hidden": 0}, {"layers": 0}, {"image_features": -1}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(
        DataError, match=f"model.net.{next(iter(option))}: must be .*, got -?[01]; "
    ) as error:
        StipNet(graphs.ALL, 16, 1, **option)
    assert "\n" not in str(error.value)
