"""Scene graphs: their columns, and their independence of the rest of the batch."""

import dataclasses

import numpy as np
import pytest
import torch
from make import scenes as made
from make.graph_reference import reference_graph
from make.graphs import NEAR, assert_identical, furnished_scenes

from vidreason.intent.features import GROUPS, sizes
from vidreason.intent.graphs import GraphBuilder
from vidreason.intent.windows import PROTOCOLS, make_windows


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("features", [GROUPS, ("box",), ("box", "ego"), ("neighbours", "box")])
def test_columns_equal_those_of_the_reference(protocol, features):
    scenes = furnished_scenes(1, 5)
    windows = make_windows(scenes, protocol, horizon=5)
    rng = np.random.default_rng(1)
    chosen = rng.permutation(len(windows))[:25]
    mirror = rng.random(len(chosen)) < 0.5
    graph = GraphBuilder(scenes, windows, features)(chosen, mirror)
    width, person = sizes(features), graph["person"]
    assert person.x.shape[2] == width["person"] and person.valid.dtype == torch.bool
    assert graph["infra"].x.shape == (4 * len(chosen), windows.observed, width["infra"])
    assert graph["ego"].x.shape == (len(chosen), windows.observed, width["ego"])
    near, edge = graph[NEAR], 0
    assert near.edge_attr.shape[1:] == (windows.observed, width["edge"])
    close = {"rtol": 2e-4, "atol": 2e-4}
    for i, w in enumerate(chosen):
        expected = reference_graph(scenes, windows, w, features, mirror[i])
        begin, end = int(person.ptr[i]), int(person.ptr[i + 1])
        assert end - begin == len(expected["x"])
        assert (person.batch[begin:end] == i).all()
        np.testing.assert_array_equal(person.valid[begin:end], expected["valid"])
        np.testing.assert_allclose(person.x[begin:end], expected["x"], **close)
        count = end - begin - 1
        edges = slice(edge, edge := edge + count)
        np.testing.assert_array_equal(
            near.edge_index[:, edges], [range(begin + 1, end), [begin] * count]
        )
        if count:
            np.testing.assert_array_equal(near.valid[edges], expected["valid"][1:])
            np.testing.assert_allclose(near.edge_attr[edges], expected["edges"], **close)
        np.testing.assert_array_equal(graph["infra"].x[4 * i : 4 * i + 4], expected["infra"])
        np.testing.assert_allclose(graph["ego"].x[i], expected["ego"], atol=1e-5)
    assert edge == near.edge_index.shape[1]
    shown = graph["infra"].x[..., 0] == 1 if "traffic" in features else torch.zeros(1, dtype=bool)
    assert (graph["infra"].valid == shown).all()
    assert (graph["ego"].valid == (width["ego"] > 0)).all()
    every = torch.arange(len(chosen))
    assert torch.equal(graph["infra"].batch, every.repeat_interleave(4))
    assert torch.equal(graph["ego"].batch, every)
    for edge_type, count in (("infra", "around", "person"), 4), (("ego", "watches", "person"), 1):
        index = graph[edge_type].edge_index
        assert torch.equal(index[0], torch.arange(count * len(chosen)))
        assert torch.equal(index[1], person.ptr[:-1].repeat_interleave(count))
    np.testing.assert_array_equal(graph.window, chosen)
    for name, labels in ("y", windows.label), ("tags", windows.tags):
        codes = labels[chosen].astype(float)
        np.testing.assert_array_equal(graph[name], np.where(codes < 0, np.nan, codes))


def test_the_compared_scenes_contain_every_case():
    scenes = furnished_scenes(1, 5)
    windows = make_windows(scenes, "benchmark")
    graph = GraphBuilder(scenes, windows, GROUPS)(range(len(windows)))
    person = graph["person"]
    assert (person.x.flatten(0, 1).std(0) > 0).all()
    assert (graph[NEAR].edge_attr.flatten(0, 1).std(0) > 0).all()
    assert person.valid.any(1).all() and not person.valid.all()
    starts = zip(windows.scene, windows.row, strict=True)
    assert any(np.diff(scenes[s].frame[row : row + 16]).max() > 1 for s, row in starts)


def test_columns_of_real_scenes_equal_those_of_the_reference(real):
    names = ("video_0061", "video_0102", "video_0330")
    scenes = [made.furnished(scene) for scene in real if scene.id in names]
    windows = make_windows(scenes, "benchmark")
    build = GraphBuilder(scenes, windows, GROUPS)
    for w in np.random.default_rng(0).permutation(len(windows))[:15]:
        expected = reference_graph(scenes, windows, w, GROUPS, mirror=False)
        graph = build([w])
        np.testing.assert_array_equal(graph["person"].valid, expected["valid"])
        np.testing.assert_allclose(graph["person"].x, expected["x"], rtol=1e-3, atol=1e-3)
        edges = np.array(expected["edges"]).reshape(graph[NEAR].edge_attr.shape)
        np.testing.assert_allclose(graph[NEAR].edge_attr, edges, rtol=1e-3, atol=1e-3)


# --- Batches.


def test_a_batch_concatenates_the_graphs_of_its_windows(few):
    scenes, windows = few
    build = GraphBuilder(scenes, windows, GROUPS)
    mirror = np.arange(len(windows)) % 3 == 0
    whole = build(np.arange(len(windows)), mirror)
    single = [build([w], mirror[w : w + 1]) for w in range(len(windows))]
    nodes = {"person": 0, "infra": 0, "ego": 0}
    offsets = []
    for graph in single:
        offsets.append(dict(nodes))
        for kind in nodes:
            nodes[kind] += len(graph[kind].batch)
    for kind in nodes:
        for name in ("x", "valid"):
            assert torch.equal(whole[kind][name], torch.cat([g[kind][name] for g in single]))
        batch = [torch.full_like(g[kind].batch, w) for w, g in enumerate(single)]
        assert torch.equal(whole[kind].batch, torch.cat(batch))
    assert whole["person"].ptr.tolist() == [o["person"] for o in offsets] + [nodes["person"]]
    for edge_type in whole.edge_types:
        source, _, target = edge_type
        index = [
            g[edge_type].edge_index + torch.tensor([[o[source]], [o[target]]])
            for g, o in zip(single, offsets, strict=True)
        ]
        assert torch.equal(whole[edge_type].edge_index, torch.cat(index, 1))
    for name in ("edge_attr", "valid"):
        assert torch.equal(whole[NEAR][name], torch.cat([g[NEAR][name] for g in single]))
    for name in ("y", "tags"):
        torch.testing.assert_close(
            whole[name], torch.cat([g[name] for g in single]), equal_nan=True, rtol=0, atol=0
        )


def test_a_graph_depends_neither_on_the_order_of_windows_nor_on_other_windows(few):
    scenes, windows = few
    build = GraphBuilder(scenes, windows, GROUPS)
    order = np.random.default_rng(1).permutation(len(windows))
    assert_identical(
        GraphBuilder(scenes, windows.take(order), GROUPS)(np.arange(len(windows))), build(order)
    )
    for w in range(5):
        assert_identical(GraphBuilder(scenes, windows.take(np.array([w])), GROUPS)([0]), build([w]))
    alone = dataclasses.replace(windows.take(np.array([7])), scene=np.array([0]))
    assert_identical(GraphBuilder([scenes[windows.scene[7]]], alone, GROUPS)([0]), build([7]))


def test_scenes_without_windows_or_tracks_do_not_affect_graphs(few):
    scenes, windows = few
    wider = [made.scene(99, 9, tracks=0), *scenes, made.scene(98, 9, tracks=0)]
    shifted = dataclasses.replace(windows, scene=windows.scene + 1)
    every = np.arange(len(windows))
    assert_identical(
        GraphBuilder(wider, shifted, GROUPS)(every), GraphBuilder(scenes, windows, GROUPS)(every)
    )
