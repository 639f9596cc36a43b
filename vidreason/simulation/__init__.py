"""Simulated streets, for the demo and for tests.

`world` simulates pedestrians and vehicles in metres.

Inputs: a seed and the number of a video; the same inputs always give the same files.
Outputs: annotations in the layout of JAAD 2.0 (`street`), and video with ground-truth instance
masks (`film`).
"""
