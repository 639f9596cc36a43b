"""Single forecasts to be looked at: the scene around a pedestrian as plain values, for a page.

A case says where everybody was in the frames observed, what each neighbour did to the forecast, and
how the forecast for this pedestrian went on over time.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.predictions import Predictions
from vidreason.intent.task import IntentTask
from vidreason.perception.video import Video
from vidreason.results.breakdown import Asked
from vidreason.results.forecasts import Forecasts
from vidreason.scenes.scene import EGO_ACTIONS, KINDS, OCCLUSION, SIGNALS, TRAFFIC_LIGHT, Scene

_MARGIN = 3.0  # heights of the pedestrian around what is shown
_LEAST_VIEW = 480  # px of width
_PICTURE = 560, 4  # px of width, and how many of them
_JPEG = 70


def choose(found: Predictions, each: int) -> dict[str, list[int]]:
    """Rows worth a look: the worst and the best of either answer, a pedestrian once in each group.

    Args:
        found: Of several predicted frames ahead, the last is looked at.
        each: How many of a group, at most.
    """
    probability, label, last = found["probability"], found["label"], found["horizon"].max()
    order = np.argsort(probability, kind="stable")
    order = order[found["horizon"][order] == last]
    crosses, stays = order[label[order] == 1], order[label[order] == 0]
    cut = found.meta["threshold"]
    groups = {
        "missed": crosses[probability[crosses] < cut],
        "false alarms": stays[probability[stays] >= cut][::-1],
        "seen coming": crosses[probability[crosses] >= cut][::-1],
        "rightly left": stays[probability[stays] < cut],
    }
    return {name: _once(rows, found.cluster)[:each] for name, rows in groups.items()}


def _once(rows: np.ndarray, cluster: np.ndarray) -> list[int]:
    """The first row of each pedestrian, in their order."""
    _, first = np.unique(cluster[rows], return_index=True)
    return rows[np.sort(first)].tolist()


def describe(
    found: Predictions,
    rows: Sequence[int],
    others: Mapping[str, np.ndarray],
    asked: Asked | None,
    model: tuple[IntentTask, IntentData] | None,
    clips: Path | None,
) -> list[dict[str, Any]]:
    """Cases as plain values.

    Args:
        found: The run.
        rows: Of `found`.
        others: By name, further forecasts for the same rows (n,), NaN where there is none.
        asked: The windows, if the dataset is there; without it a case is its curve.
        model: That made the forecasts, if it is there; says what neighbours did.
        clips: Folder of videos by name, if there is one.
    """
    cases = [_plain_case(found, row, others) for row in rows]
    if asked is None:
        return cases
    windows, scenes = asked.windows, asked.scenes
    chosen = asked.window[list(rows)]
    change: dict[tuple[int, str], float] = {}
    if model is not None and len(rows):
        task, data = model
        graphs = data.graphs(scenes, windows)
        edges = task.influence(graphs, chosen, task.forecast(graphs, chosen))
        first = np.cumsum([0, *(len(s.track_ids) for s in scenes)])
        for place, sender, by in zip(*edges, strict=True):
            track = sender - first[windows.scene[chosen[place]]]
            change[place, scenes[windows.scene[chosen[place]]].track_ids[track]] = float(by[-1])
    for place, (case, w) in enumerate(zip(cases, chosen, strict=True)):
        scene = scenes[windows.scene[w]]
        at = np.arange(windows.first_frame[w], windows.last_frame[w] + 1)
        case |= _scene(scene, int(windows.track[w]), at)
        for one in case["others"]:
            one["change"] = change.get((place, one["name"]))
        case["facts"] = _facts(scene, int(windows.row[w]) + windows.observed - 1)
        if windows.time_to_event[w] >= 0:
            case["ahead"] = float(windows.time_to_event[w] / scene.fps)
        if clips is not None and (path := clips / f"{scene.id}.mp4").is_file():
            case["pictures"] = _pictures(path, scene, case)
    return cases


def _plain_case(found: Predictions, row: int, others: Mapping[str, np.ndarray]) -> dict[str, Any]:
    same = np.flatnonzero(
        (found.cluster == found.cluster[row]) & (found["horizon"] == found["horizon"][row])
    )
    table = found.table
    shown = {name: float(p[row]) for name, p in others.items() if np.isfinite(p[row])}
    return {
        "video": table["video"][row].as_py(),
        "name": table["pedestrian"][row].as_py(),
        "frame": int(found["last_frame"][row]),
        "probability": float(found["probability"][row]),
        "label": int(found["label"][row]),
        "threshold": found.meta["threshold"],
        "runs": shown,
        "curve": [
            [int(f), round(float(p), 4)]
            for f, p in zip(found["last_frame"][same], found["probability"][same], strict=True)
        ],
    }


def _scene(scene: Scene, target: int, frames: np.ndarray) -> dict[str, Any]:
    """Boxes of everybody in some frames, and the part of the image to show."""
    box, kind = _boxes(scene, frames), scene.kind
    seen = ~np.isnan(box).any(2).all(1)
    mine = box[target]
    others = [k for k in np.flatnonzero(seen) if k != target and kind[k] != KINDS.index("place")]
    return {
        "frames": frames.tolist(),
        "fps": scene.fps,
        "target": _rounded(mine),
        "others": [
            {"name": scene.track_ids[k], "kind": KINDS[kind[k]], "box": _rounded(box[k])}
            for k in others
        ],
        "view": _view(mine, box[others], scene.width, scene.height),
        "size": [scene.width, scene.height],
    }


def _boxes(scene: Scene, frames: np.ndarray) -> np.ndarray:
    """(K, T, 4) px, NaN where a track has no box."""
    found = np.full((len(scene.kind), len(frames), 4), np.nan)
    track = np.repeat(np.arange(len(scene.kind)), np.diff(scene.offsets))
    inside = (scene.frame >= frames[0]) & (scene.frame <= frames[-1])
    found[track[inside], scene.frame[inside] - frames[0]] = scene.box[inside]
    return found


def _rounded(box: np.ndarray) -> list[list[float] | None]:
    return [None if np.isnan(b).any() else [round(float(x), 1) for x in b] for b in box]


def _view(mine: np.ndarray, others: np.ndarray, width: int, height: int) -> list[float]:
    """x, y, width and height of the part of the image around a pedestrian (T, 4), px."""
    tall = np.nanmax(mine[:, 3] - mine[:, 1])
    low, high = np.nanmin(mine[:, :2], 0), np.nanmax(mine[:, 2:], 0)
    low, high = (
        low - _MARGIN * tall * np.array([1.5, 0.35]),
        high + _MARGIN * tall * np.array([1.5, 0.35]),
    )
    wide = max(high[0] - low[0], _LEAST_VIEW)
    middle = (low + high) / 2
    wide = min(wide, width)
    # Wide enough for the street, and no taller than two thirds of that.
    tall = min(max(high[1] - low[1], wide / 3), wide * 2 / 3, height)
    corner = np.clip(middle - np.array([wide, tall]) / 2, 0, [width - wide, height - tall])
    return [round(float(x), 1) for x in (*corner, wide, tall)]


def _facts(scene: Scene, row: int) -> list[str]:
    """What is known of the last observed frame, in words."""
    frame = int(scene.frame[row])
    words = []
    if scene.ego_action[frame] >= 0:
        words.append(f"ego vehicle {EGO_ACTIONS[scene.ego_action[frame]].replace('_', ' ')}")
    if scene.cues["occlusion"][row] > 0:
        words.append(f"hidden in {OCCLUSION[scene.cues['occlusion'][row]]}")
    for name in SIGNALS[:3]:
        if scene.signals[name][frame] == 1:
            words.append(name.replace("_", " ").replace("ped crossing", "crosswalk"))
    if (light := scene.signals["traffic_light"][frame]) > 0:
        words.append(f"{TRAFFIC_LIGHT[light]} light")
    words += [scene.attributes[n] for n in ("weather", "time_of_day") if scene.attributes.get(n)]
    return words


def _pictures(path: Path, scene: Scene, case: Mapping[str, Any]) -> dict[str, str]:
    """By frame, the shown part of some of the case's frames, as data addresses of JPEGs."""
    video = Video(path)
    if (video.width, video.height, video.length) != (scene.width, scene.height, scene.length):
        raise DataError(path, "is not of the size or length annotated", "give the right videos")
    frames = case["frames"]
    wanted = {frames[i] for i in np.linspace(0, len(frames) - 1, _PICTURE[1]).round().astype(int)}
    return {str(n): jpeg for n, jpeg in _shots(video, sorted(wanted), case["view"])}


def _shots(video: Video, wanted: Sequence[int], view: Sequence[float]) -> Iterator[tuple[int, str]]:
    """Number and picture of frames, rising."""
    x, y, wide, tall = (round(v) for v in view)
    left = set(wanted)
    for number, picture in video.frames():
        if number in left:
            part = picture[y : y + tall, x : x + wide]
            size = _PICTURE[0], max(1, round(tall * _PICTURE[0] / wide))
            small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
            done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
            assert done
            yield number, "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
            left.remove(number)
        if not left:
            return


def describe_forecasts(found: Forecasts, each: int, video: Path | None) -> list[dict[str, Any]]:
    """Cases of a video without annotation: those who are most likely to cross, when they are.

    Args:
        found: The forecasts.
        each: How many, at most.
        video: Its file, if it is there.
    """
    last = found["horizon"] == (found["horizon"].max() if len(found.table) else 0)
    rows = found.table.filter(last)
    name, frame = (rows[c].to_numpy(zero_copy_only=False) for c in ("pedestrian", "frame"))
    probability = rows["probability"].to_numpy()
    box = np.stack([rows[c].to_numpy() for c in ("x1", "y1", "x2", "y2")], 1)
    order = np.argsort(-probability, kind="stable")
    _, first = np.unique(name[order], return_index=True)
    cases = []
    for row in order[np.sort(first)][:each]:
        fps = found.meta["fps"]
        frames = np.unique(frame[(frame > frame[row] - fps) & (frame <= frame[row])])
        mine = _path(name, frame, box, name[row], frames)
        others = [n for n in np.unique(name[np.isin(frame, frames)]) if n != name[row]]
        paths = [_path(name, frame, box, n, frames) for n in others]
        size = found.meta["width"], found.meta["height"]
        view = _view(mine, np.array(paths).reshape(-1, len(frames), 4), *size)
        same = name == name[row]
        cases.append(
            {
                "video": found.meta["video"],
                "name": str(name[row]),
                "frame": int(frame[row]),
                "probability": float(probability[row]),
                "label": -1,
                "threshold": found.meta["threshold"],
                "runs": {},
                "curve": [
                    [int(f), round(float(p), 4)]
                    for f, p in zip(frame[same], probability[same], strict=True)
                ],
                "frames": frames.tolist(),
                "fps": fps,
                "target": _rounded(mine),
                "others": [
                    {"name": str(n), "kind": "person", "box": _rounded(path), "change": None}
                    for n, path in zip(others, paths, strict=True)
                ],
                "view": view,
                "size": list(size),
                "facts": [],
            }
        )
        if video is not None:
            case = cases[-1]
            picked = np.linspace(0, len(frames) - 1, _PICTURE[1]).round().astype(int)
            wanted = sorted({int(frames[i]) for i in picked})
            case["pictures"] = {str(n): jpeg for n, jpeg in _shots(Video(video), wanted, view)}
    return cases


def _path(
    name: np.ndarray, frame: np.ndarray, box: np.ndarray, who: str, frames: np.ndarray
) -> np.ndarray:
    """(T, 4) px of one pedestrian, NaN where there is no box."""
    rows = np.flatnonzero((name == who) & np.isin(frame, frames))
    found = np.full((len(frames), 4), np.nan)
    found[np.searchsorted(frames, frame[rows])] = box[rows]
    return found
