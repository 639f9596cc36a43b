"""Networks: plain torch modules from graphs to logits."""
