"""Networks for crossing prediction: PyTorch modules from batches of scene graphs to logits."""

from vidreason.intent.networks.intent_graph import IntentGraphNet
from vidreason.intent.networks.stip import StipNet

__all__ = ["IntentGraphNet", "StipNet"]
