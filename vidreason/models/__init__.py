"""Networks: plain torch modules from graphs to logits."""

from vidreason.models.intent_graph import IntentGraphNet

__all__ = ["IntentGraphNet"]
