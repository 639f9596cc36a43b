"""Networks: plain torch modules from graphs to logits."""

from vidreason.models.intent_graph import IntentGraphNet
from vidreason.models.stip import StipNet

__all__ = ["IntentGraphNet", "StipNet"]
