"""The intent network we train: a relational graph convolution, a recurrence, an ensemble.

Star graphs of typed nodes go through one relational convolution (Schlichtkrull et al. 2018, with
edge features), the target's rows through a GRU over time. Small driving datasets decide the rest:
noise on the inputs, and an ensemble whose members are each trained without one fold of the videos,
so that every training window has a prediction by a member that never saw its video.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import MessagePassing

from vidreason.errors import DataError
from vidreason.features import sizes
from vidreason.scene import SIGNALS, TAGS


class IntentGraphNet(nn.Module):
    """Crossing logits of the target of every graph, one row per member.

    Args:
        features: Groups of `vidreason.features` that the graphs show.
        observed: Observed steps T.
        horizon: Predicted steps K.
        hidden: Width d of node states.
        members: M networks; their mean probability is the prediction.
        dropout: Of hidden units.
        input_noise: Standard deviation of the noise added to a sample's standardised inputs, the
            same at every step, so that it moves a track rather than shaking it.
        input_dropout: Share of a sample's input columns that are hidden.
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
    ) -> None:
        super().__init__()
        for name, value, low, high in (
            ("hidden", hidden, 1, 4096),
            ("members", members, 1, 100),
            ("dropout", dropout, 0, 0.99),
            ("input_noise", input_noise, 0, 10),
            ("input_dropout", input_dropout, 0, 0.99),
        ):
            if not low <= value <= high:
                problem = f"{value} is not within {low} and {high}"
                raise DataError(f"model.net.{name}", problem, "correct the option")
        width = sizes(features)
        infra = len(SIGNALS) * width["infra"]
        self.observed = observed
        self.person_norm = nn.BatchNorm1d(width["person"], affine=False)
        self.edge_norm = nn.BatchNorm1d(width["edge"], affine=False)
        self.around = width["ego"] + infra
        self.members = nn.ModuleList(
            _Member(
                width["person"] + self.around,
                width["person"] + width["edge"],
                horizon + len(TAGS),
                hidden,
                dropout,
                input_noise,
                input_dropout,
            )
            for _ in range(members)
        )

    def forward(self, graph: HeteroData) -> Tensor:
        """Logits (M, B, T + K + A).

        A detection for each observed step, the predictions, and the answers to `TAGS`, which serve
        training only.
        """
        person, near = graph["person"], graph["person", "near", "person"]
        windows = len(graph.window)
        x = _standardise(self.person_norm, person.x, person.valid)  # (N, T, Dp)
        edge = _standardise(self.edge_norm, near.edge_attr, near.valid)  # (E, T, Dr)
        target, other = person.ptr[:-1], near.edge_index[0]
        # (4B, T, Di) -> (B, T, 4 Di)
        infra = graph["infra"].x.unflatten(0, (windows, -1)).transpose(1, 2).flatten(2)
        around = torch.cat([graph["ego"].x, infra], -1)
        around = 2 * around - 1 if self.around else around
        own = torch.cat([x[target], around], -1)  # (B, T, Dp + De + 4 Di)
        message = torch.cat([x[other], edge], -1)  # (E, T, Dp + Dr)
        window = person.batch[other]
        logits = [member(own, message, near.valid, window) for member in self.members]
        return torch.stack(logits)


class _Member(nn.Module):
    def __init__(
        self,
        own: int,
        message: int,
        answers: int,
        hidden: int,
        dropout: float,
        input_noise: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.input_noise, self.input_dropout = input_noise, input_dropout
        self.own = nn.Linear(own, hidden)
        self.near = _Near(message, hidden)
        self.recurrence = nn.GRU(hidden, hidden, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.detect = nn.Linear(hidden, 1)
        self.predict = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, answers),
        )

    def forward(self, own: Tensor, message: Tensor, valid: Tensor, window: Tensor) -> Tensor:
        if self.training:
            shape = (len(own), 1, own.shape[-1])
            own = own + self.input_noise * torch.randn(shape, device=own.device)
            own = own * (torch.rand(shape, device=own.device) >= self.input_dropout)
        h = self.own(own) + self.near(message, valid, window, len(own))
        h = self.drop(nn.functional.gelu(h))
        states, _ = self.recurrence(h)  # (B, T, d)
        detected = self.detect(self.drop(states)).squeeze(-1)
        return torch.cat([detected, self.predict(states[:, -1])], 1)  # (B, T + K + A)


class _Near(MessagePassing):
    """What the others tell the target: sum of their messages over one plus their number."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, message: Tensor, valid: Tensor, window: Tensor, windows: int) -> Tensor:
        """Messages (E, T, ·) of E others to the windows they belong to, (B, T, d)."""
        sent = self.mlp(message) * valid[..., None]
        edges = torch.stack([torch.arange(len(window), device=window.device), window])
        size = (len(window), windows)
        total = self.propagate(edges, x=sent, size=size)
        count = self.propagate(edges, x=valid[..., None].to(sent.dtype), size=size)
        return total / (1 + count)

    def message(self, x_j: Tensor) -> Tensor:  # noqa: D102
        return x_j


def _standardise(norm: nn.BatchNorm1d, x: Tensor, valid: Tensor) -> Tensor:
    """Standardises the columns of present rows; absent ones stay 0."""
    if norm.training and valid.sum() < 2:
        return x
    out = torch.zeros_like(x)
    out[valid] = norm(x[valid])
    return out
