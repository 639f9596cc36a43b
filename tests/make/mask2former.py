"""A tiny Mask2Former with random weights."""

import torch
import transformers

LABELS = ("person", "car", "traffic light")


def save(folder):
    """Writes model and image processor with `save_pretrained`; returns the folder."""
    torch.manual_seed(5)
    swin = transformers.SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        dim_feedforward=32,
        num_attention_heads=2,
        num_queries=4,
        id2label=dict(enumerate(LABELS)),
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        # Random weights give no confident predictions.
        model.class_predictor.weight.mul_(40)
        model.class_predictor.bias[-1] = -20
    size = {"shortest_edge": 96, "longest_edge": 192}
    processor = transformers.Mask2FormerImageProcessorPil(size=size, ignore_index=255)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
