"""Unsupervised decomposition of video into components, and prediction of its next frames.

Inputs: clips of moving digits or bouncing balls, generated on the fly or read from files, as
`Clip`.
Outputs: per-component appearance, positions and predicted frames, as `Decomposition`, with metrics,
baselines, filmstrips and the track table of a run.
"""
