"""Pedestrian-crossing prediction with scene graphs.

Cuts scenes into labelled windows (`windows`) and builds the scene graphs (`graphs`) that the
networks read (`networks`, trained by `task` with the batches of `data`).

Inputs: the `Scene`s of the readers.
Outputs: crossing probabilities as tables (`predictions`), with `metrics` and `baselines` for them.
"""
