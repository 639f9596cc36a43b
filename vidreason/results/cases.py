"""Single predictions for inspection: the scene around a pedestrian as JSON values, for the report.

A case has the boxes of all tracks in the observed frames, the influence of each neighbour on the
prediction, and the predictions for this pedestrian over time.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidreason.core.errors import DataError
from vidreason.intent.data import IntentData
from vidreason.intent.predictions import Predictions
from vidreason.intent.task import IntentTask
from vidreason.perception.video import Video
from vidreason.results.breakdown import MatchedWindows
from vidreason.results.forecasts import Forecasts
from vidreason.scenes.scene import EGO_ACTIONS, KINDS, OCCLUSION, SIGNALS, TRAFFIC_LIGHT, Scene

_MARGIN = 3.0  # around the pedestrian, in heights of the pedestrian
_LEAST_VIEW = 480  # px of width
_PICTURE = 560, 4  # width of a video frame, px, and number of frames per case
_JPEG = 70


def choose(predictions: Predictions, each: int) -> dict[str, list[int]]:
    """Chooses the most confident wrong and right predictions of each label.

    Args:
        predictions: Predictions of a run; only the last horizon is used.
        each: Number of rows in each group, at most.

    Returns:
        Rows by group: `false negatives`, `false positives`, `true positives`, `true negatives`;
        each pedestrian appears once in a group.
    """
    probability, label = predictions["probability"], predictions["label"]
    last = predictions["horizon"].max()
    order = np.argsort(probability, kind="stable")
    order = order[predictions["horizon"][order] == last]
    crosses, stays = order[label[order] == 1], order[label[order] == 0]
    cut = predictions.meta["threshold"]
    groups = {
        "false negatives": crosses[probability[crosses] < cut],
        "false positives": stays[probability[stays] >= cut][::-1],
        "true positives": crosses[probability[crosses] >= cut][::-1],
        "true negatives": stays[probability[stays] < cut],
    }
    return {name: _once(rows, predictions.cluster)[:each] for name, rows in groups.items()}


def _once(rows: np.ndarray, cluster: np.ndarray) -> list[int]:
    """The first row of each pedestrian, in the order of the rows."""
    _, first = np.unique(cluster[rows], return_index=True)
    return rows[np.sort(first)].tolist()


def describe(
    predictions: Predictions,
    rows: Sequence[int],
    others: Mapping[str, np.ndarray],
    matched: MatchedWindows | None,
    model: tuple[IntentTask, IntentData] | None,
    clips: Path | None,
) -> list[dict[str, Any]]:
    """Describes cases as JSON values.

    Args:
        predictions: Predictions of the run.
        rows: Rows of `predictions` to describe.
        others: Probabilities (n,) of other models for the rows of `predictions`, by name; NaN
            where missing.
        matched: Windows of the predictions; without the dataset a case is its curve only.
        model: Model and data module of the run, for the influence of neighbours.
        clips: Folder of the dataset's videos.

    Raises:
        DataError: A video has another size or length than its annotation.
    """
    cases = [_plain_case(predictions, row, others) for row in rows]
    if matched is None:
        return cases
    windows, scenes = matched.windows, matched.scenes
    chosen = matched.window[list(rows)]
    change: dict[tuple[int, str], float] = {}
    if model is not None and len(rows):
        task, data = model
        graphs = data.graphs(scenes, windows)
        edges = task.influence(graphs, chosen, task.forecast(graphs, chosen))
        first = np.cumsum([0, *(len(s.track_ids) for s in scenes)])
        for place, sender, by in zip(*edges, strict=True):
            track = sender - first[windows.scene[chosen[place]]]
            change[place, scenes[windows.scene[chosen[place]]].track_ids[track]] = float(by[-1])
    filmed: dict[int, list[dict[str, Any]]] = {}  # cases by scene, if the scene has a video
    for place, (case, w) in enumerate(zip(cases, chosen, strict=True)):
        scene = scenes[windows.scene[w]]
        at = np.arange(windows.first_frame[w], windows.last_frame[w] + 1)
        case |= _scene(scene, int(windows.track[w]), at)
        for one in case["others"]:
            one["change"] = change.get((place, one["name"]))
        case["facts"] = _facts(scene, int(windows.row[w]) + windows.observed - 1)
        if windows.time_to_event[w] >= 0:
            case["ahead"] = float(windows.time_to_event[w] / scene.fps)
        if clips is not None and (clips / f"{scene.id}.mp4").is_file():
            filmed.setdefault(int(windows.scene[w]), []).append(case)
    for s, group in filmed.items():
        assert clips is not None
        size = scenes[s].width, scenes[s].height, scenes[s].length
        _add_pictures(clips / f"{scenes[s].id}.mp4", size, group)
    return cases


def _plain_case(
    predictions: Predictions, row: int, others: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    horizon, cluster = predictions["horizon"], predictions.cluster
    same = np.flatnonzero((cluster == cluster[row]) & (horizon == horizon[row]))
    last, probability = predictions["last_frame"], predictions["probability"]
    table = predictions.table
    shown = {name: float(p[row]) for name, p in others.items() if np.isfinite(p[row])}
    return {
        "video": table["video"][row].as_py(),
        "name": table["pedestrian"][row].as_py(),
        "frame": int(last[row]),
        "probability": float(probability[row]),
        "label": int(predictions["label"][row]),
        "threshold": predictions.meta["threshold"],
        "runs": shown,
        "curve": [
            [int(f), round(float(p), 4)] for f, p in zip(last[same], probability[same], strict=True)
        ],
    }


def _scene(scene: Scene, target: int, frames: np.ndarray) -> dict[str, Any]:
    """Boxes of all tracks in some frames, and the part of the image to show."""
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
    """The part of the image around a pedestrian's boxes (T, 4): x, y, width, height, px."""
    tall = np.nanmax(mine[:, 3] - mine[:, 1])
    low, high = np.nanmin(mine[:, :2], 0), np.nanmax(mine[:, 2:], 0)
    low, high = (
        low - _MARGIN * tall * np.array([1.5, 0.35]),
        high + _MARGIN * tall * np.array([1.5, 0.35]),
    )
    wide = max(high[0] - low[0], _LEAST_VIEW)
    middle = (low + high) / 2
    wide = min(wide, width)
    # Wide enough to show the street, at most two thirds as high.
    tall = min(max(high[1] - low[1], wide / 3), wide * 2 / 3, height)
    corner = np.clip(middle - np.array([wide, tall]) / 2, 0, [width - wide, height - tall])
    return [round(float(x), 1) for x in (*corner, wide, tall)]


def _facts(scene: Scene, row: int) -> list[str]:
    """Annotated attributes of the last observed frame, as text."""
    frame = int(scene.frame[row])
    words = []
    if scene.ego_action[frame] >= 0:
        words.append(f"ego vehicle {EGO_ACTIONS[scene.ego_action[frame]].replace('_', ' ')}")
    if scene.cues["occlusion"][row] > 0:
        words.append(f"occlusion: {OCCLUSION[scene.cues['occlusion'][row]]}")
    signs = ("crosswalk", "pedestrian sign", "stop sign")
    for name, sign in zip(SIGNALS[:3], signs, strict=True):
        if scene.signals[name][frame] == 1:
            words.append(sign)
    if (light := scene.signals["traffic_light"][frame]) > 0:
        words.append(f"{TRAFFIC_LIGHT[light]} light")
    words += [scene.attributes[n] for n in ("weather", "time_of_day") if scene.attributes.get(n)]
    return words


def _add_pictures(path: Path, size: tuple[int, int, int], cases: list[dict[str, Any]]) -> None:
    """Adds the shown part of some frames to cases, as data URIs of JPEGs by frame number.

    Args:
        path: Video file; decoded once for all cases.
        size: Width, height and number of frames that it must have.
        cases: Cases of this video.
    """
    video = Video(path)
    if (video.width, video.height, video.length) != size:
        problem = "differs in size or length from the video that was annotated or predicted"
        raise DataError(path, problem, "give the right video")
    wanted: dict[int, list[dict[str, Any]]] = {}
    for case in cases:
        case["pictures"] = {}
        frames = case["frames"]
        for i in set(np.linspace(0, len(frames) - 1, _PICTURE[1]).round().astype(int).tolist()):
            wanted.setdefault(frames[i], []).append(case)
    for number, picture in video.frames():
        for case in wanted.pop(number, ()):
            case["pictures"][str(number)] = _jpeg(picture, case["view"])
        if not wanted:
            return


def _jpeg(picture: np.ndarray, view: Sequence[float]) -> str:
    """Part of a frame as the data URI of a JPEG."""
    x, y, wide, tall = (round(v) for v in view)
    size = _PICTURE[0], max(1, round(tall * _PICTURE[0] / wide))
    part = cv2.resize(picture[y : y + tall, x : x + wide], size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", part[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def describe_forecasts(forecasts: Forecasts, each: int, video: Path | None) -> list[dict[str, Any]]:
    """Describes the pedestrians of a video without annotation that are most likely to cross.

    Each is shown at the time of the highest probability.

    Args:
        forecasts: Forecasts of the video.
        each: Number of pedestrians, at most.
        video: Video file, for its frames.
    """
    meta = forecasts.meta
    last = forecasts["horizon"] == (forecasts["horizon"].max() if len(forecasts.table) else 0)
    rows = forecasts.table.filter(last)
    name, frame = (rows[c].to_numpy(zero_copy_only=False) for c in ("pedestrian", "frame"))
    probability = rows["probability"].to_numpy()
    box = np.stack([rows[c].to_numpy() for c in ("x1", "y1", "x2", "y2")], 1)
    order = np.argsort(-probability, kind="stable")
    _, first = np.unique(name[order], return_index=True)
    cases = []
    for row in order[np.sort(first)][:each]:
        fps = meta["fps"]
        frames = np.unique(frame[(frame > frame[row] - fps) & (frame <= frame[row])])
        mine = _path(name, frame, box, name[row], frames)
        others = [n for n in np.unique(name[np.isin(frame, frames)]) if n != name[row]]
        paths = [_path(name, frame, box, n, frames) for n in others]
        size = meta["width"], meta["height"]
        view = _view(mine, np.array(paths).reshape(-1, len(frames), 4), *size)
        same = name == name[row]
        cases.append(
            {
                "video": meta["video"],
                "name": str(name[row]),
                "frame": int(frame[row]),
                "probability": float(probability[row]),
                "label": -1,
                "threshold": meta["threshold"],
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
        _add_pictures(video, (meta["width"], meta["height"], meta["length"]), cases)
    return cases


def _path(
    name: np.ndarray, frame: np.ndarray, box: np.ndarray, pedestrian: str, frames: np.ndarray
) -> np.ndarray:
    """Boxes (T, 4) of one pedestrian, px, NaN where there is none."""
    rows = np.flatnonzero((name == pedestrian) & np.isin(frame, frames))
    found = np.full((len(frames), 4), np.nan)
    found[np.searchsorted(frames, frame[rows])] = box[rows]
    return found
