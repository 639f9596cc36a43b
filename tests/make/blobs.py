"""Clips of bright rectangles that move on a black background, and segmenters for them."""

import os
import time

import cv2
import numpy as np

from vidreason.perception.prepare import Job, find_videos
from vidreason.perception.store import Instances
from vidreason.perception.video import write_video
from vidreason.scenes.scene import KINDS


def frames(seed, length=24, size=(64, 96), blobs=3):
    """Returns images (length, H, W, 3) uint8 and boxes (length, blobs, 4), pixels."""
    rng = np.random.default_rng(seed)
    height, width = size
    pictures = np.zeros((length, height, width, 3), np.uint8)
    boxes = np.zeros((length, blobs, 4), int)
    for b in range(blobs):
        # One lane each, so that they never touch.
        top = 4 + b * (height - 8) // blobs
        x, speed = rng.uniform(8, width - 24), rng.uniform(-1, 1)
        for t in range(length):
            left = int(np.clip(x + speed * t, 0, width - 12))
            boxes[t, b] = left, top, left + 12, top + 10
            pictures[t, top : top + 10, left : left + 12] = 255
    return pictures, boxes


def write(path, seed, **kwargs):
    """Writes a clip; returns its boxes (length, blobs, 4), pixels."""
    pictures, boxes = frames(seed, **kwargs)
    write_video(path, iter(pictures), 10, quality=5)
    return boxes


class Blobs:
    """Segments the bright rectangles."""

    features = 3

    def __call__(self, frame, number):
        bright = (frame[..., 1] > 128).astype(np.uint8)
        count, image = cv2.connectedComponents(bright)
        return Instances(
            image=image.astype(np.uint8),
            label=["blob"] * (count - 1),
            kind=np.full(count - 1, KINDS.index("person"), np.int8),
            score=np.ones(count - 1, np.float32),
            features=np.moveaxis(frame[::4, ::4], 2, 0).astype(np.float32) / 255,
        )


def jobs(clips, store, make=Blobs, every=1):
    """Returns a job for each clip of a folder."""
    videos = find_videos([clips])
    return [Job(name, path, store, "blobs", make, every) for name, path in videos.items()]


class Crash(Blobs):
    """Kills its process at frames that are bright all over."""

    def __call__(self, frame, number):
        if frame.mean() > 200:
            os._exit(9)
        return super().__call__(frame, number)


class Slow(Blobs):
    """Takes a second per frame."""

    def __call__(self, frame, number):
        time.sleep(1)
        return super().__call__(frame, number)
