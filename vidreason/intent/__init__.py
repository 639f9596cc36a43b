"""Pedestrian-crossing prediction with scene graphs.

Takes the `Scene`s of the readers, cuts them into labelled windows (`windows`), and builds the scene
graphs (`graphs`) that the networks read (`networks`, trained by `task` with the batches of `data`).
Returns crossing probabilities as tables (`predictions`), with `metrics` and `baselines` for them.
"""
