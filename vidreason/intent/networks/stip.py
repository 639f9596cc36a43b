"""The STIP network: graph convolutions over space, recurrences over time and a decoder.

Liu, Adeli, Cao, Lee, Shenoi, Gaidon and Niebles, "Spatiotemporal Relationship Reasoning for
Pedestrian Intent Prediction", RA-L 5(2), 2020.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import MessagePassing

from vidreason.core.errors import DataError, check_ranges
from vidreason.intent.features import NEAR, sizes
from vidreason.scenes.scene import SIGNALS

_RELATION = 8  # leading edge columns: the paper's spatial relation

Gate = Literal["uniform", "random", "inner", "cosine", "spatial", "spatial_only", "all"]


class StipNet(nn.Module):
    """Network that maps scene graphs to crossing logits of T observed and K future frames.

    In each frame, a star graph links the target (node 0) with n context nodes: A_00 = A_jj = 1,
    A_0j = A_j0 = w_j. Each layer computes X <- W (A X) + b, without nonlinearity or normalisation;
    the weights w_j are recomputed from X before each layer. Between layers, the target's row passes
    through a GRU over time.

    Differences from the published code: node states are embeddings of boxes and attributes, with
    `image_features` for the features of segmented instances. The frames of all samples are computed
    at once, so that the GRU of a layer runs over all frames before the next layer and its state is
    not shared between the layers of a frame. Absent nodes have weight 0 and do not count. Nodes
    without a box (infrastructure, ego vehicle) have a learned embedding of their type in place of a
    spatial relation.

    Args:
        features: Feature groups of the graphs, from `vidreason.intent.features.GROUPS`.
        observed: Number T of observed frames.
        horizon: Number K of predicted frames.
        hidden: Width d of the node states (512 in the paper).
        gate: Definition of w_j: `uniform`, 1/n; `random`, normalised to sum 1; `inner` product or
            `cosine` similarity of embeddings; `spatial`, from the spatial relation and the states;
            `spatial_only`, without the target's state; `all`, inner products of all pairs of nodes.
        layers: Number of graph convolutions.
        tied: Whether all layers share one W.
        pedestrian_gru: Whether the target's row passes through a GRU.
        context: Summary of the context nodes in the read-out: their `mean`, a `gru` over that mean,
            or an additional `node` that is linked with the target and passes through a GRU.
        read_out: Read-out of the target and its context (`both`), or only of the target (`ped`).
        image_features: Number C of image features in `graph["person"].image` (N, T, C); 0 if none.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        features: Sequence[str],
        observed: int,
        horizon: int,
        hidden: int = 128,
        gate: Gate = "spatial",
        layers: int = 2,
        tied: bool = True,
        pedestrian_gru: bool = True,
        context: Literal["mean", "gru", "node"] = "mean",
        read_out: Literal["both", "ped"] = "both",
        image_features: int = 0,
    ) -> None:
        super().__init__()
        check_ranges(
            "model.net",
            ("hidden", hidden, 1, 4096),
            ("layers", layers, 1, 100),
            ("image_features", image_features, 0, 4096),
        )
        width = sizes(features)
        self.horizon, self.gate, self.context, self.read_out = horizon, gate, context, read_out
        self.image_features = image_features
        self.person = _embedding(width["person"] + image_features, hidden)
        self.infra = _embedding(width["infra"], hidden)
        self.ego = _embedding(width["ego"], hidden)
        self.kinds = nn.Parameter(torch.randn(len(SIGNALS) + 1, hidden) * 0.1)
        self.gates = _Gates(gate, hidden)
        self.weights = nn.ModuleList(
            nn.Linear(hidden, hidden) for _ in range(1 if tied else layers)
        )
        self.layers = layers
        self.spread = _Propagate(aggr="add", node_dim=0)
        self.pedestrian_gru = _gru(hidden) if pedestrian_gru else None
        self.context_gru = _gru(hidden) if context != "mean" else None
        state = 2 * hidden if read_out == "both" else hidden
        self.sequence = _gru(state)
        self.decoder = _gru(state)
        self.classify = nn.Sequential(
            nn.Linear(state, max(1, state // 2)), nn.ReLU(), nn.Linear(max(1, state // 2), 1)
        )

    def forward(self, graph: HeteroData) -> Tensor:
        """Computes logits (B, T + K).

        Raises:
            DataError: If the graphs do not have `image_features` columns.
        """
        star = _Star(graph)
        x = self._nodes(graph, star)  # (N, T, d), targets first
        for layer in range(self.layers):
            weight = self.weights[0 if len(self.weights) == 1 else layer]
            if self.gate == "all":
                x = weight(self._all_pairs(x, star))
            else:
                x = weight(self.spread(x, star, self.gates(x, star)))
            if self.context == "node":
                x = self._through(self.context_gru, x, slice(star.windows, 2 * star.windows))
            if self.pedestrian_gru is not None:
                x = self._through(self.pedestrian_gru, x, slice(0, star.windows))
        state = x[: star.windows]  # (B, T, d)
        if self.read_out == "both":
            context = self._mean(x, star)
            if self.context == "node":
                context = x[star.windows : 2 * star.windows]
            elif self.context_gru is not None:
                context = self.context_gru(context)[0]
            state = torch.cat([state, context], -1)  # (B, T, 2 d)
        seen, hidden = self.sequence(state)
        step, steps = seen[:, -1:], [seen]
        # Autoregressive decoder: each step needs the previous one.
        for _ in range(self.horizon):
            step, hidden = self.decoder(step, hidden)
            steps.append(step)
        return self.classify(torch.cat(steps, 1)).squeeze(-1)

    def _nodes(self, graph: HeteroData, star: "_Star") -> Tensor:
        """Returns the states (N, T, d) of all nodes in the order of `star`; 0 where absent."""
        person = graph["person"]
        columns = [person.x]
        if self.image_features:
            columns.append(person.image if "image" in person else person.x[..., :0])
            if (seen := columns[1].shape[-1]) != self.image_features:
                problem = f"is {self.image_features}, but the graphs have {seen} image features"
                raise DataError("model.net.image_features", problem, f"set it to {seen}")
        persons = self.person(torch.cat(columns, -1))
        infra = self.infra(graph["infra"].x) + self.kinds[:-1].repeat(star.windows, 1)[:, None]
        ego = self.ego(graph["ego"].x) + self.kinds[-1]
        x = torch.cat([persons, infra, ego])[star.order] * star.valid[..., None]
        if self.context == "node":
            mean = self._mean(x, star)
            x = torch.cat([x[: star.windows], mean, x[star.windows :]])
            star.insert_context()
        return x

    @staticmethod
    def _through(gru: nn.GRU | None, x: Tensor, rows: slice) -> Tensor:
        """Passes the `rows` of `x`, one per window, through a GRU over time."""
        assert gru is not None
        return torch.cat([x[: rows.start], gru(x[rows])[0], x[rows.stop :]])

    def _mean(self, x: Tensor, star: "_Star") -> Tensor:
        """Returns the mean of the present context nodes, (B, T, d); 0 if there are none."""
        here = star.valid[star.others, :, None].to(x.dtype)
        total = x.new_zeros(star.windows, *x.shape[1:])
        total = total.index_add(0, star.target, x[star.others] * here)
        count = x.new_zeros(*total.shape[:2], 1).index_add(0, star.target, here)
        return total / count.clamp(min=1)

    def _all_pairs(self, x: Tensor, star: "_Star") -> Tensor:
        """Returns A X for dense A: sigmoids of inner products, and 1 on the diagonal."""
        slots = int(star.slot.max()) + 1
        dense = x.new_zeros(star.windows, slots, *x.shape[1:])
        dense[star.window, star.slot] = x
        here = torch.zeros(dense.shape[:3], dtype=torch.bool, device=x.device)
        here[star.window, star.slot] = star.valid
        dense, here = dense.transpose(1, 2), here.transpose(1, 2)  # (B, T, n + 1, d)
        a = torch.sigmoid(self.gates.query(dense) @ self.gates.key(dense).transpose(-1, -2))
        a = a * here[..., None, :] * here[..., :, None]
        eye = torch.eye(slots, dtype=torch.bool, device=x.device)
        spread = a.masked_fill(eye, 1.0) @ dense
        return spread.transpose(1, 2)[star.window, star.slot]


class _Star:
    """The nodes of B star graphs in one list: B targets, then their context nodes.

    Attributes:
        order: (N,) rows of [persons, infra, ego] in the order of the list.
        valid: (N, T) bool, whether a node is present.
        window: (N,) window of a node.
        slot: (N,) index of a node in its window, 0 for the target.
        others: (N - B,) rows of the context nodes.
        target: (N - B,) rows of their targets.
        relation: (N - B, T, 8) spatial relation of context nodes; 0 for those without a box.
    """

    def __init__(self, graph: HeteroData) -> None:
        person, infra, ego = graph["person"], graph["infra"], graph["ego"]
        near = graph[NEAR]
        device = person.x.device
        self.windows = b = len(graph.window)
        persons, signals = len(person.x), len(infra.x)
        targets = person.ptr[:-1]
        boxless = torch.arange(persons, persons + signals + b, device=device)
        self.order = torch.cat([targets, near.edge_index[0], boxless])
        everyone = torch.arange(b, device=device)
        signal_of = torch.arange(signals, device=device) // len(SIGNALS)
        window = torch.cat([person.batch, signal_of, everyone])
        self.window = window[self.order]
        self.valid = torch.cat([person.valid, infra.valid, ego.valid])[self.order]
        relation = near.edge_attr[..., :_RELATION]
        empty = relation.new_zeros(len(boxless), *relation.shape[1:])
        self.relation = torch.cat([relation, empty])
        self._number()

    def _number(self) -> None:
        self.others = torch.arange(self.windows, len(self.window), device=self.window.device)
        self.target = self.window[self.others]
        by_window = self.window.argsort(stable=True)
        start = self.window.bincount(minlength=self.windows).cumsum(0)
        start = torch.cat([start.new_zeros(1), start[:-1]])
        self.slot = torch.empty_like(self.window)
        place = torch.arange(len(self.window), device=self.window.device)
        self.slot[by_window] = place - start[self.window[by_window]]

    def insert_context(self) -> None:
        """Inserts one context node per window after the targets."""
        b = self.windows
        self.window = torch.cat([self.window[:b], self.window[:b], self.window[b:]])
        always = torch.ones_like(self.valid[:b])
        self.valid = torch.cat([self.valid[:b], always, self.valid[b:]])
        self.relation = torch.cat(
            [self.relation.new_zeros(b, *self.relation.shape[1:]), self.relation]
        )
        self._number()


class _Gates(nn.Module):
    """Edge weights w_j (E, T, 1) between the target and each context node."""

    def __init__(self, gate: Gate, hidden: int) -> None:
        super().__init__()
        self.gate = gate
        if gate in ("inner", "cosine", "all"):
            self.query = nn.Linear(hidden, hidden)
            self.key = nn.Linear(hidden, hidden)
        if gate in ("spatial", "spatial_only"):
            self.relation = nn.Linear(_RELATION, 64)
            self.relate = nn.Linear(64 + (hidden if gate == "spatial" else 0), 128)
            self.other = nn.Linear(hidden, 128)

    def forward(self, x: Tensor, star: _Star) -> Tensor:  # noqa: D102
        here = star.valid[star.others] & star.valid[star.target]
        other, target = x[star.others], x[star.target]
        if self.gate in ("uniform", "random"):
            w = torch.ones_like(here, dtype=x.dtype)
            if self.gate == "random" and self.training:
                w = torch.rand(w.shape, dtype=x.dtype, device=x.device)
            elif self.gate == "random":
                # Evaluation is deterministic: equal graphs get equal weights.
                fixed = torch.Generator().manual_seed(0)
                w = torch.rand(w.shape, dtype=x.dtype, generator=fixed).to(x.device)
            w = w * here
            total = w.new_zeros(star.windows, w.shape[1]).index_add(0, star.target, w)
            w = w / total[star.target].clamp(min=1e-12)
        elif self.gate == "inner":
            w = torch.sigmoid((self.query(target) * self.key(other)).sum(-1))
        elif self.gate == "cosine":
            w = torch.cosine_similarity(self.query(target), self.key(other), dim=-1)
        else:
            relation = torch.relu(self.relation(star.relation))
            if self.gate == "spatial":
                relation = torch.cat([target, relation], -1)
            # Mean over channels, because their sum saturates the sigmoid.
            w = torch.relu(self.other(other)) * torch.relu(self.relate(relation))
            w = torch.sigmoid(w.mean(-1))
        return (w * here)[..., None]


class _Propagate(MessagePassing):
    """Computes A X of all star graphs: rows plus the weighted rows of linked nodes."""

    def forward(self, x: Tensor, star: _Star, gate: Tensor) -> Tensor:
        """Maps states `x` (N, T, d) and gates (E, T, 1) to states (N, T, d)."""
        there = torch.stack([star.others, star.target])
        edges = torch.cat([there, there.flip(0)], 1)
        return x + self.propagate(edges, x=x, gate=torch.cat([gate, gate]), size=(len(x), len(x)))

    def message(self, x_j: Tensor, gate: Tensor) -> Tensor:  # noqa: D102
        return gate * x_j


def _embedding(width: int, hidden: int) -> nn.Module:
    with warnings.catch_warnings():
        # Node types that the features leave out have no columns and no valid rows.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        first = nn.Linear(width, hidden)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, hidden))


def _gru(width: int) -> nn.GRU:
    return nn.GRU(width, width, num_layers=2, batch_first=True)
