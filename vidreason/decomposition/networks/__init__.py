"""Networks that decompose frames (B, T, C, S, S) into components, one file each."""

from vidreason.decomposition.networks.ddpae import DDPAE
from vidreason.decomposition.networks.equivariant import EquivariantDDPAE

__all__ = ["DDPAE", "EquivariantDDPAE"]
