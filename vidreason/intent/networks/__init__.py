"""Networks of the intent wing: plain torch modules from batches of star graphs to logits."""

from vidreason.intent.networks.intent_graph import IntentGraphNet
from vidreason.intent.networks.stip import StipNet

__all__ = ["IntentGraphNet", "StipNet"]
