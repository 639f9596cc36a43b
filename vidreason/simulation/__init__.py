"""Simulated streets, for the demo and for tests.

Input are a seed and the number of a video: `world` simulates pedestrians and vehicles in metres,
`street` annotates the result in the layout of JAAD 2.0, and `film` renders it as video with
ground-truth instance masks. The same input always gives the same files.
"""
