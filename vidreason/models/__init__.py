"""Networks: plain torch modules from graphs to logits, and from clips to components."""

from vidreason.decomposition.networks.ddpae import DDPAE
from vidreason.decomposition.networks.equivariant import EquivariantDDPAE
from vidreason.intent.networks.intent_graph import IntentGraphNet
from vidreason.intent.networks.stip import StipNet

__all__ = ["DDPAE", "EquivariantDDPAE", "IntentGraphNet", "StipNet"]
