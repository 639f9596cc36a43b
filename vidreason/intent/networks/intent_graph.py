"""The intent graph network: an ensemble of relational graph convolutions with recurrences.

Star graphs of typed nodes pass through one relational graph convolution (Schlichtkrull et al. 2018,
with edge features), and the target's states through a GRU over time. Driving datasets are small:
inputs get noise, and each member of the ensemble is trained without one fold of the videos, so that
every training window has an out-of-fold prediction.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import HeteroData

from vidreason.core import processes
from vidreason.core.errors import check_ranges
from vidreason.core.processes import Rows, rows, total
from vidreason.intent.features import NEAR, sizes
from vidreason.scenes.scene import SIGNALS, TAGS


class IntentGraphNet(nn.Module):
    """Ensemble that maps scene graphs to crossing logits of their targets.

    The members are independent networks of the same shape, computed in parallel as batched matrix
    products.

    Args:
        features: Feature groups of the graphs, from `vidreason.intent.features.GROUPS`.
        observed: Number T of observed steps.
        horizon: Number K of predicted steps.
        hidden: Width d of the node states.
        members: Number M of members; the prediction is their mean probability.
        dropout: Dropout probability of hidden units.
        input_noise: Standard deviation of the noise added to the standardised inputs of a sample.
            It is the same at every step, so that it shifts a track instead of adding jitter.
        input_dropout: Dropout probability of the input columns of a sample.
        neighbour_dropout: Dropout probability of the neighbours.
        image_features: Number C of image features in `graph["person"].image` (N, T, C); 0 if none.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        features: Sequence[str],
        observed: int,
        horizon: int,
        hidden: int = 64,
        members: int = 5,
        dropout: float = 0.3,
        input_noise: float = 0.3,
        input_dropout: float = 0.1,
        neighbour_dropout: float = 0.0,
        image_features: int = 0,
    ) -> None:
        super().__init__()
        check_ranges(
            "model.net",
            ("hidden", hidden, 1, 4096),
            ("members", members, 1, 100),
            ("dropout", dropout, 0, 0.99),
            ("input_noise", input_noise, 0, 10),
            ("input_dropout", input_dropout, 0, 0.99),
            ("neighbour_dropout", neighbour_dropout, 0, 1),
            ("image_features", image_features, 0, 4096),
        )
        width = sizes(features)
        width["person"] += image_features
        self.observed, self.image_features = observed, image_features
        around = width["ego"] + len(SIGNALS) * width["infra"]
        self.members, self.dropout = members, dropout
        self.input_noise, self.input_dropout = input_noise, input_dropout
        self.neighbour_dropout = neighbour_dropout
        self.person_norm = nn.BatchNorm1d(width["person"], affine=False)
        self.edge_norm = nn.BatchNorm1d(width["edge"], affine=False)
        self.around_norm = nn.BatchNorm1d(around, affine=False)
        self.own = MemberLinear(members, width["person"] + around, hidden)
        self.message = MemberLinear(members, width["person"] + width["edge"], hidden)
        self.near = MemberLinear(members, hidden, hidden)
        self.recurrence = MemberGRU(members, hidden)
        self.detect = MemberLinear(members, hidden, 1)
        self.merge = MemberLinear(members, hidden, hidden)
        self.answer = MemberLinear(members, hidden, horizon + len(TAGS))

    def forward(self, graph: HeteroData) -> Tensor:
        """Computes logits (M, B, T + K + A).

        They are T detections in the observed steps, K predictions, and A auxiliary outputs for
        `TAGS` that only training uses.
        """
        return self.logits(**self.columns(graph))

    def columns(self, graph: HeteroData) -> dict[str, Tensor]:
        """Returns the arguments of `logits` for the graphs of B windows."""
        person, near = graph["person"], graph[NEAR]
        x = torch.cat([person.x, person.image], -1) if self.image_features else person.x
        # (4B, T, Di) -> (B, T, 4 Di)
        infra = graph["infra"].x.unflatten(0, (-1, len(SIGNALS))).transpose(1, 2).flatten(2)
        return {
            "person": x,
            "present": person.valid,
            "target": person.ptr[:-1],
            "around": torch.cat([graph["ego"].x, infra], -1),
            "sender": near.edge_index[0],
            "window": person.batch[near.edge_index[0]],
            "relation": near.edge_attr,
            "both": near.valid,
        }

    def logits(
        self,
        person: Tensor,
        present: Tensor,
        target: Tensor,
        around: Tensor,
        sender: Tensor,
        window: Tensor,
        relation: Tensor,
        both: Tensor,
    ) -> Tensor:
        """Computes `forward` from plain tensors, as exported programs do.

        Args:
            person: (N, T, Dp) float, columns of the nodes with a box.
            present: (N, T) bool, whether a node is present.
            target: (B,) int64, node index of the target of each window.
            around: (B, T, Da) float, columns of the ego vehicle and the infrastructure.
            sender: (E,) int64, node index of the neighbour of each edge.
            window: (E,) int64, window from 0 to B - 1 of each edge.
            relation: (E, T, Dr) float, columns of the edges.
            both: (E, T) bool, whether both nodes of an edge are present.

        Returns:
            Logits (M, B, T + K + A).
        """
        windows, steps = around.shape[:2]
        x = standardise(self.person_norm, person, present)  # (N, T, Dp)
        always = present.new_ones(windows, steps)
        around = standardise(self.around_norm, around, always)
        own = torch.cat([x[target], around], -1)
        samples = rows(torch.ones(windows, dtype=torch.long, device=x.device))
        own = own.expand(self.members, *own.shape)
        own = self._perturb(own, 2, samples)  # (M, B, T, D)
        messages = self._messages(x[sender], window, relation, both, windows)
        h = self.own(own.flatten(1, 2)) + self.near(messages)
        h = self._dropout(functional.gelu(h).unflatten(1, (windows, steps)), samples)
        states = self._dropout(self.recurrence(h), samples)  # (M, B, T, d)
        detected = self.detect(states.flatten(1, 2)).view(self.members, windows, steps)
        last = functional.gelu(self.merge(states[:, :, -1]))
        last = self._dropout(last[:, :, None], samples)[:, :, 0]
        return torch.cat([detected, self.answer(last)], -1)

    def _messages(
        self, x: Tensor, window: Tensor, relation: Tensor, valid: Tensor, windows: int
    ) -> Tensor:
        """Returns the sum of the neighbours' messages over one plus their number, (M, B T, d)."""
        steps = x.shape[1]
        edge = standardise(self.edge_norm, relation, valid)  # (E, T, Dr)
        inputs = torch.cat([x, edge], -1)
        if self.training:
            edges = rows(torch.bincount(window, minlength=windows))
            if self.neighbour_dropout:
                draw = edges.draw(self._uniform, (len(valid), 1), 0)
                valid = valid & (draw >= self.neighbour_dropout)
            inputs = self._perturb(inputs, 1, edges)
        slot = window[:, None] * steps + torch.arange(steps, device=x.device)  # (E, T)
        if torch.compiler.is_exporting():
            # An exported program cannot select rows whose number depends on the data.
            sent = functional.relu(self.message(inputs.flatten(0, 1))) * valid.view(-1, 1)
            slot, one = slot.flatten(), valid.flatten().to(sent.dtype)
        else:
            # Only pairs that are both present send a message: R of the E T rows.
            sent = functional.relu(self.message(inputs[valid]))  # (R, M d)
            slot = slot[valid]
            one = torch.ones_like(slot, dtype=sent.dtype)
        total = sent.new_zeros(windows * steps, sent.shape[-1]).index_add(0, slot, sent)
        count = sent.new_zeros(windows * steps).index_add(0, slot, one)
        mean = total / (1 + count)[:, None]
        return mean.unflatten(1, (self.members, -1)).transpose(0, 1)

    def _perturb(self, x: Tensor, dim: int, of: Rows) -> Tensor:
        """Applies noise and dropout to the columns of `x`, the same along the steps `dim`.

        The dimension before has the rows `of` samples.
        """
        if not self.training:
            return x
        shape = [*x.shape[:dim], 1, *x.shape[dim + 1 :]]
        x = x + self.input_noise * of.draw(self._normal, shape, dim - 1)
        return x * (of.draw(self._uniform, shape, dim - 1) >= self.input_dropout)

    def _dropout(self, x: Tensor, of: Rows) -> Tensor:
        """Drops units of `x` (M, B, T, d), the same at every step (Gal and Ghahramani 2016)."""
        if not self.training:
            return x
        shape = (*x.shape[:2], 1, x.shape[-1])
        keep = of.draw(self._uniform, shape, 1) >= self.dropout
        return x * keep / (1 - self.dropout)

    def _normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, device=self.near.weight.device)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(shape, device=self.near.weight.device)


class MemberLinear(nn.Module):
    """M linear maps in parallel: (M, R, in) to (M, R, out), or a shared (R, in) to (R, M out)."""

    def __init__(self, members: int, width: int, out: int) -> None:
        super().__init__()
        # The initialisation of nn.Linear.
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(members, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.dim() == 2:
            weight, bias = self.weight.transpose(0, 1).flatten(1), self.bias.flatten()
            return torch.addmm(bias, x, weight)
        return torch.baddbmm(self.bias, x, self.weight)


class MemberGRU(nn.Module):
    """M gated recurrent units in parallel, (M, B, T, d) to (M, B, T, d), with initial state 0.

    The equations are those of `torch.nn.GRU` (Cho et al. 2014).
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.input = MemberLinear(members, width, 3 * width)
        self.hidden = MemberLinear(members, width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        inputs = self.input(x.flatten(1, 2)).unflatten(1, x.shape[1:3])  # (M, B, T, 3 d)
        h = x.new_zeros(x.shape[0], x.shape[1], x.shape[3])
        states = []
        # A recurrence: each step needs the previous one.
        for now in inputs.unbind(2):
            r, z, n = now.chunk(3, -1)
            hr, hz, hn = self.hidden(h).chunk(3, -1)
            r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
            h = torch.lerp(torch.tanh(n + r * hn), h, z)
            states.append(h)
        return torch.stack(states, 2)


def standardise(norm: nn.BatchNorm1d, x: Tensor, valid: Tensor) -> Tensor:
    """Standardises the columns of `x` (N, T, D) over the `valid` (N, T) rows; others stay 0."""
    if not x.shape[-1]:
        return x
    if not norm.training:
        # Every row, valid or not: operations of fixed shape, which can be exported.
        return torch.where(valid[..., None], norm(x.flatten(0, 1)).view_as(x), 0.0)
    count = total(valid.sum())
    if count < 2:  # too few rows for statistics
        return x
    out, seen = torch.zeros_like(x), x[valid]
    if processes.count() > 1:
        mean = total(seen.sum(0)) / count
        variance = total((seen - mean).square().sum(0)) / count
        _update_statistics(norm, mean, variance * count / (count - 1))
        out[valid] = (seen - mean) / (variance + norm.eps).sqrt()
    else:
        out[valid] = norm(seen)
    return out


def _update_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Updates the running statistics as `norm` itself does when it gets all rows."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)
    norm.num_batches_tracked.add_(1)
