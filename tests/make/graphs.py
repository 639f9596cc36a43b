"""Scene graphs for tests: batches, variations of a batch, and exact comparison."""

import copy
from functools import cache

import numpy as np
import torch

from make import scenes as made
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import make_windows

ALL = ("box", "orientation", "neighbours", "ego", "traffic")
STEPS = 16
NEAR = ("person", "near", "person")


@cache
def builder(features=ALL):
    """Builds graphs of nine windows; neighbours come and go, the last three windows have none."""
    scenes = [made.scene(3, 0, tracks=4), made.scene(3, 1, tracks=4), made.scene(3, 2, tracks=1)]
    windows = make_windows(scenes, "benchmark")
    rows = [np.flatnonzero(windows.scene == s) for s in range(3)]
    some = np.concatenate([r[np.linspace(0, len(r) - 1, 3).astype(int)] for r in rows])
    return GraphBuilder(scenes, windows.take(some), features)


def batch(features=ALL, rows=range(9)):
    return builder(tuple(features))(list(rows))


def furnished_scenes(seed, count):
    return [made.furnished(scene) for scene in made.scenes(seed, count)]


def tensors(graph):
    """Returns all tensors of nodes and edges, which is what a network reads."""
    return {
        (store._key, name): value
        for store in [*graph.node_stores, *graph.edge_stores]
        for name, value in store.items()
    }


def assert_identical(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key


def without_neighbours(graph):
    """Returns the same windows with no persons but their targets."""
    graph = copy.copy(graph)
    person, near = graph["person"], graph[NEAR]
    targets, windows = person.ptr[:-1], len(person.ptr) - 1
    person.x, person.valid = person.x[targets], person.valid[targets]
    person.batch, person.ptr = torch.arange(windows), torch.arange(windows + 1)
    near.edge_index, near.edge_attr = near.edge_index[:, :0], near.edge_attr[:0]
    near.valid = near.valid[:0]
    return graph


def shuffled(graph):
    """Returns the same windows with their neighbours in another order."""
    graph, draw = copy.copy(graph), torch.Generator().manual_seed(0)
    person, near = graph["person"], graph[NEAR]
    others = torch.rand(len(person.x), generator=draw)
    others[person.ptr[:-1]] = -1  # the target is always first
    order = (2 * person.batch + others).argsort()
    new = order.argsort()
    edges = torch.randperm(near.edge_index.shape[1], generator=draw)
    person.x, person.valid = person.x[order], person.valid[order]
    near.edge_index = new[near.edge_index[:, edges]]
    near.edge_attr, near.valid = near.edge_attr[edges], near.valid[edges]
    return graph


def with_noise_where_absent(graph, stores):
    """Returns the same windows with noise in the rows of `stores` that are not valid."""
    graph = copy.copy(graph)
    for store in stores:
        name = "edge_attr" if store == NEAR else "x"
        kept, valid = graph[store][name], graph[store].valid[..., None]
        noise = 50 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(0))
        graph[store][name] = kept.where(valid, noise)
    return graph
