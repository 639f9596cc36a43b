"""Datasets to scenes, scenes to windows, windows to graphs."""
