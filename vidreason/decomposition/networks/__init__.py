"""Networks of the decomposition: plain torch modules from frames (B, T, C, S, S) to components."""

from vidreason.decomposition.networks.ddpae import DDPAE
from vidreason.decomposition.networks.equivariant import EquivariantDDPAE

__all__ = ["DDPAE", "EquivariantDDPAE"]
