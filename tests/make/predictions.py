"""Miniature predictions files: two pedestrians in each of two videos."""

import numpy as np

from vidreason.intent.predictions import write_predictions


def columns(label=(1, 1, 0, 0), probability=(0.9, 0.45, 0.6, 0.1), steps=0, **more):
    """Four rows; with `steps`, a row for each of so many horizons."""
    repeat = max(steps, 1)
    one = {
        "video": ["video_0002", "video_0002", "video_0001", "video_0001"],
        "pedestrian": ["0_2_1b", "0_2_2", "0_1_1b", "0_1_2"],
        "last_frame": np.array([15, 15, 30, 18]),
        "label": np.array(label),
        "clean": np.array([True, False, True, True]),
        **more,
    }
    rows = {name: np.repeat(np.array(value), repeat) for name, value in one.items()}
    rows["horizon"] = np.tile(np.arange(1, steps + 1) if steps else [0], 4)
    rows["probability"] = np.broadcast_to(probability, 4 * repeat)
    return rows


def meta(**more):
    """Metadata of `columns()`."""
    return {
        "dataset": "jaad",
        "protocol": "benchmark",
        "subset": "all",
        "split": "test",
        "features": ["box"],
        "oracle": False,
        "threshold": 0.4,
        "n_expected": 4,
    } | more


def write(path, rows=None, **more):
    """Writes a predictions file; returns its path."""
    write_predictions(path, columns() if rows is None else rows, meta(**more))
    return path
