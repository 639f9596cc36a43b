"""Miniature forecasts files."""

import numpy as np

from vidreason.results.forecasts import write_forecasts


def walkers(path, name, length=60):
    """Writes forecasts of pedestrian `name`, whose probability rises, and of `2`, at 0.1."""
    meta = {"video": "clip.mp4", "fps": 30.0, "width": 640, "height": 360, "length": length}
    meta |= {"every": 1, "threshold": 0.5, "words": "crosses in 1 to 2 s", "model": "some"}
    with write_forecasts(path, meta, np.array([0])) as writer:
        for frame in range(length):
            box = np.array([[100 + frame, 100, 140 + frame, 220], [400, 120, 430, 200]])
            writer.add(frame, [name, "2"], box, np.array([[frame / length], [0.1]]))
    return path
