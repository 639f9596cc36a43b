"""Images of observation windows with scene graph and prediction, and of segmented instances."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from vidreason.core.colours import COLOURS
from vidreason.core.files import write_atomic
from vidreason.intent.windows import Windows
from vidreason.perception.masks import Masks, decode
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video
from vidreason.results.overlay import TRACKS
from vidreason.scenes.scene import EGO_ACTIONS, SIGNALS, TRAFFIC_LIGHT, Scene

_CROSSES, _STAYS = COLOURS[1], COLOURS[0]


def draw_windows(
    path: Path,
    scenes: Sequence[Scene],
    windows: Windows,
    rows: Sequence[int],
    probability: Sequence[float],
) -> None:
    """Draws the last observed frame of some windows, two per row, as a PNG.

    Args:
        path: Output file.
        scenes: Scenes of the windows.
        windows: Windows with one prediction each (K = 1).
        rows: Indices of the windows to draw.
        probability: Probability of crossing for each of `rows`.
    """
    lines = (len(rows) + 1) // 2
    figure = Figure(figsize=(12, 2.6 * lines), layout="constrained")
    panels = np.ravel(figure.subplots(lines, 2, squeeze=False))
    for axes in panels[len(rows) :]:
        axes.axis("off")
    for axes, row, chance in zip(panels, rows, probability, strict=False):
        _draw(axes, scenes[windows.scene[row]], windows, row, chance)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def draw_instances(path: Path, video: Video, prepared: Prepared, frames: Sequence[int]) -> None:
    """Draws frames of a video with instance masks and track numbers, below each other, as a PNG.

    Args:
        path: Output file.
        video: Video file.
        prepared: Instances of the video.
        frames: Numbers of the frames to draw, ascending.
    """
    sheets = []
    for number, picture in video.frames():
        if number not in frames:
            continue
        rows = prepared.window(number, number + 1)
        counts = rows["mask"].combine_chunks()
        offsets = counts.offsets.to_numpy() - counts.offsets[0].as_py()
        flat = counts.flatten().to_numpy()
        shown = decode(Masks(flat, offsets, video.height, video.width))
        for row, mask in zip(rows.to_pylist(), shown, strict=True):
            shade = np.array(TRACKS[row["track"] % len(TRACKS)], np.uint8)
            picture[mask] = picture[mask] // 2 + shade // 2
            corner = int(row["x1"]), int(row["y1"])
            size = int(row["x2"]), int(row["y2"])
            cv2.rectangle(picture, corner, size, shade.tolist(), 2)
            text = f"{row['kind'].replace('_', ' ')} {row['track']}"
            place = corner[0], max(corner[1] - 6, 16)
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 2)
        # The part of the image that contains pedestrians and vehicles.
        sheets.append(picture[video.height // 4 : video.height * 7 // 8])
    with write_atomic(path) as temporary:
        Image.fromarray(np.concatenate(sheets)).save(temporary, "PNG")


def _draw(axes: Axes, scene: Scene, windows: Windows, row: int, chance: float) -> None:
    track, now = int(windows.track[row]), int(windows.last_frame[row])
    # The part of the image that contains pedestrians: sky and bonnet are cut off.
    top, bottom = scene.box[:, 1].min() - scene.height * 0.2, scene.box[:, 3].max() + 20
    ylim = min(bottom, scene.height), max(top, 0)
    axes.set(xlim=(0, scene.width), ylim=ylim, aspect="equal", xticks=[], yticks=[])
    axes.axhspan(0, scene.height / 2, color="#eef3f8", zorder=0)
    axes.axhspan(scene.height / 2, scene.height, color="#e4e2dd", zorder=0)
    crosses = bool(windows.label[row, -1])
    colour = _CROSSES if crosses else _STAYS
    target = _box(scene, track, now)
    assert target is not None
    for k in range(len(scene.track_ids)):
        box = _box(scene, k, now)
        if box is None or k == track:
            continue
        _rectangle(axes, box, "0.45", 1)
        ends = np.stack([_centre(target), _centre(box)])
        axes.plot(*ends.T, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    _rectangle(axes, target, colour, 2.5)
    boxes = scene.box[windows.row[row] : windows.row[row] + windows.observed]
    foot = np.stack([boxes[:, 0::2].mean(1), boxes[:, 3]], 1)
    axes.plot(*foot.T, color=colour, linewidth=2, alpha=0.7)
    seconds = windows.time_to_event[row] / scene.fps
    truth = "crosses" if crosses else "does not cross"
    axes.set_title(
        f"predicted {chance:.0%}   label: {truth}, event in {seconds:.1f} s", color=colour
    )
    shown = [name for name in SIGNALS[:3] if scene.signals[name][now] == 1]
    if scene.signals["traffic_light"][now] > 0:
        shown.append(f"light {TRAFFIC_LIGHT[scene.signals['traffic_light'][now]]}")
    ego = EGO_ACTIONS[scene.ego_action[now]] if scene.ego_action[now] >= 0 else "unknown"
    name = f"{scene.id}  {scene.track_ids[track]}  frame {now}"
    note = "\n".join([name, f"ego vehicle: {ego}", *(s.replace("_", " ") for s in shown)])
    axes.text(0.01, 0.98, note, transform=axes.transAxes, va="top", fontsize=8, color="0.25")


def _box(scene: Scene, track: int, frame: int) -> np.ndarray | None:
    rows = slice(int(scene.offsets[track]), int(scene.offsets[track + 1]))
    at = np.flatnonzero(scene.frame[rows] == frame)
    return scene.box[rows][at[0]] if len(at) else None


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _rectangle(axes: Axes, box: np.ndarray, colour: str, width: float) -> None:
    size = box[2:] - box[:2]
    axes.add_patch(
        Rectangle((box[0], box[1]), *size, fill=False, edgecolor=colour, linewidth=width, zorder=2)
    )
