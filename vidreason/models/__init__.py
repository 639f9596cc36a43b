"""Networks: plain torch modules from graphs to logits, and from clips to components."""

from vidreason.models.ddpae import DDPAE
from vidreason.models.equivariant import EquivariantDDPAE
from vidreason.models.intent_graph import IntentGraphNet
from vidreason.models.stip import StipNet

__all__ = ["DDPAE", "EquivariantDDPAE", "IntentGraphNet", "StipNet"]
