"""Evaluation protocols: the observed boxes and the prediction target of every window.

`benchmark` follows Kotseruba, Rasouli and Tsotsos (WACV 2021) for JAAD; `benchmark-clean` is its
subset of windows that do not show the label; `stip` follows Liu et al. (RA-L 2020). A window is a
run of consecutive boxes of one track, which are counted as in the publications.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidreason.core.errors import DataError, check_choice
from vidreason.core.files import write_atomic
from vidreason.scenes.scene import KINDS, TAGS, Scene

PROTOCOLS = ("benchmark", "benchmark-clean", "stip")
SUBSETS = ("beh", "all", "place")
OBSERVED = {"benchmark": 16, "benchmark-clean": 16, "stip": 30}
"""Default number T of observed boxes, at 30 frames per second."""
_EVENT = (30, 60)  # frames from the last observed box to the event, benchmark


@dataclass(frozen=True)
class Windows:
    """W windows of T observed boxes and K prediction targets each.

    Attributes:
        protocol: Name from `PROTOCOLS`.
        observed: T, observed boxes.
        horizon: K, prediction targets: 1 for the benchmark (the event), future boxes for `stip`.
        scene: (W,) index into the scenes that the windows were made from.
        track: (W,) index into the tracks of that scene.
        row: (W,) row of the first observed box in that scene.
        first_frame: (W,) frame of the first observed box.
        last_frame: (W,) frame of the last observed box.
        time_to_event: (W,) boxes from the last observed one to the event (TTE); -1 for `stip`.
        label: (W, T + K) int8, label of each observed box and then of each prediction target: 1
            crossing, 0 not crossing, -1 unknown.
        tags: (W, 5) int8, auxiliary labels in the order of `TAGS`: 1 yes, 0 no, -1 unknown.
        clean: (W,) bool, false for positives whose crossing has begun or has no known start.
    """

    protocol: str
    observed: int
    horizon: int
    scene: np.ndarray
    track: np.ndarray
    row: np.ndarray
    first_frame: np.ndarray
    last_frame: np.ndarray
    time_to_event: np.ndarray
    label: np.ndarray
    tags: np.ndarray
    clean: np.ndarray

    def __len__(self) -> int:
        return len(self.scene)

    def take(self, rows: np.ndarray) -> "Windows":
        """Returns the windows at `rows`, (n,) int indices or a (W,) bool mask."""
        columns = {n: v[rows] for n, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **columns)


def make_windows(
    scenes: Sequence[Scene],
    protocol: str,
    subset: str = "all",
    horizon: int = 30,
    stride: int | None = None,
    observed: int | None = None,
) -> Windows:
    """Cuts the windows of a protocol, sorted by scene, track and time.

    Args:
        scenes: Videos of one split.
        protocol: Name from `PROTOCOLS`.
        subset: Targets: pedestrians with behaviour tags (`beh`), bystanders too (`all`), or the
            place ahead in scenes from `with_place` (`place`). `stip` needs the labels of tagged
            pedestrians, so that `all` means `beh`.
        horizon: K of `stip`, in boxes; the benchmark has 1.
        stride: Boxes between windows; defaults to 3, or to T / 6 for `stip`.
        observed: T of `stip`, in boxes; defaults to 30. The benchmark has 16.

    Raises:
        DataError: If the protocol or subset is unknown, the benchmark is used with `place` or
            another T, or a crossing point is not a frame of its track.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    check_choice("subset", subset, SUBSETS)
    stip = protocol == "stip"
    if observed not in (None, OBSERVED[protocol]) and not stip:
        problem = f"{observed} with {protocol!r}, which observes {OBSERVED[protocol]}"
        raise DataError("observed", problem, "leave the option out")
    observed = observed or OBSERVED[protocol]
    if subset == "place" and not stip:
        raise DataError("subset", f"'place' with {protocol!r}", "use the protocol 'stip'")
    target_kind = KINDS.index("place" if subset == "place" else "person")
    horizon = horizon if stip else 1
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("scene", "track", "row", "time_to_event", "label", "tags", "clean")
    }
    for s, scene in enumerate(scenes):
        behaviour = scene.facts["behaviour"]
        for k, (name, rows) in enumerate(scene.rows()):
            wanted = behaviour[k] if subset == "beh" or (stip and subset == "all") else 1
            if scene.kind[k] != target_kind or not wanted:
                continue
            cross = scene.labels["cross"][rows]
            if stip:
                starts = np.arange(
                    0, len(cross) - observed - horizon + 1, stride or max(1, observed // 6)
                )
                label = cross[starts[:, None] + np.arange(observed + horizon)]
                event = np.full(len(starts), -1)
                clean = np.ones(len(starts), bool)
            else:
                starts, event, label, clean = _benchmark(scene, k, name, rows, stride or 3)
            columns["scene"].append(np.full(len(starts), s))
            columns["track"].append(np.full(len(starts), k))
            columns["row"].append(rows.start + starts)
            columns["time_to_event"].append(event)
            columns["label"].append(label)
            columns["tags"].append(_tags(scene, k, rows.start + starts + observed - 1))
            columns["clean"].append(clean)

    def column(name: str, kind: type, *shape: int) -> np.ndarray:
        return np.concatenate([np.empty((0, *shape)), *columns[name]]).astype(kind)

    scene_of, row = column("scene", np.int64), column("row", np.int64)
    frame = np.concatenate([np.empty(0, np.int32), *(s.frame for s in scenes)])
    base = np.concatenate([[0], np.cumsum([len(s.frame) for s in scenes])]).astype(np.int64)
    windows = Windows(
        protocol=protocol,
        observed=observed,
        horizon=horizon,
        scene=scene_of,
        track=column("track", np.int64),
        row=row,
        first_frame=frame[base[scene_of] + row],
        last_frame=frame[base[scene_of] + row + observed - 1],
        time_to_event=column("time_to_event", np.int32),
        label=column("label", np.int8, observed + horizon),
        tags=column("tags", np.int8, len(TAGS)),
        clean=column("clean", bool),
    )
    return windows.take(windows.clean) if protocol == "benchmark-clean" else windows


def open_windows(scenes: Sequence[Scene], protocol: str, observed: int, horizon: int) -> Windows:
    """Cuts a window at every T consecutive boxes of every person, without labels.

    Args:
        scenes: Videos.
        protocol: Name from `PROTOCOLS`.
        observed: T, observed boxes.
        horizon: K, prediction targets.
    """
    person = KINDS.index("person")
    scene, track, row = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for s, one in enumerate(scenes):
        count = np.maximum(np.diff(one.offsets) - observed + 1, 0) * (one.kind == person)
        which = np.repeat(np.arange(len(count)), count)
        first = np.repeat(np.cumsum(count) - count, count)
        scene.append(np.full(len(which), s))
        track.append(which)
        row.append(one.offsets[which] + np.arange(len(which)) - first)
    at, start = np.concatenate(scene), np.concatenate(row)
    frame = np.concatenate([np.empty(0, np.int32), *(one.frame for one in scenes)])
    base = np.cumsum([0, *(len(one.frame) for one in scenes)])[at] + start
    return Windows(
        protocol=protocol,
        observed=observed,
        horizon=horizon,
        scene=at,
        track=np.concatenate(track),
        row=start,
        first_frame=frame[base],
        last_frame=frame[base + observed - 1],
        time_to_event=np.full(len(at), -1, np.int32),
        label=np.full((len(at), observed + horizon), -1, np.int8),
        tags=np.full((len(at), len(TAGS)), -1, np.int8),
        clean=np.ones(len(at), bool),
    )


def _benchmark(
    scene: Scene, k: int, name: str, rows: slice, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns starts, times to event, labels and `clean` of a track's windows (WACV 2021)."""
    observed, (soonest, latest) = OBSERVED["benchmark"], _EVENT
    frames = scene.frame[rows]
    point = scene.facts["crossing_point"][k]
    crosses = scene.facts["crossing"][k] > 0
    if point < 0:
        # Without an event, the benchmark uses the track up to its last two boxes.
        length = len(frames) - 2
    else:
        length = int(np.searchsorted(frames, point)) + 1
        if length > len(frames) or frames[length - 1] != point:
            problem = f"crossing_point {point} is not a frame of the track"
            raise DataError(scene.id, problem, "correct the attributes file", f"pedestrian {name}")
    starts = np.empty(0, np.int64)
    if length >= observed + latest:
        starts = np.arange(length - observed - latest, length - observed - soonest + 1, stride)
    cross = scene.labels["cross"][rows][starts[:, None] + np.arange(observed)]
    label = np.concatenate([cross, np.full((len(starts), 1), crosses, np.int8)], axis=1)
    begun = cross[:, -1] == 1
    clean = ~(crosses & (begun | (point < 0)))
    return starts, length - observed - starts, label, clean


def _tags(scene: Scene, k: int, last: np.ndarray) -> np.ndarray:
    """Returns the labels `TAGS` of the windows of track k whose last rows are `last`."""
    tagged = scene.facts["behaviour"][k] == 1
    direction = scene.facts["motion_direction"][k]
    whole = [
        direction == 1 if tagged and direction >= 0 else -1,
        scene.facts["crossing"][k] >= 0 if tagged else -1,
        tagged,
    ]
    return np.stack(
        [scene.labels["action"][last], scene.labels["look"][last]]
        + [np.full(len(last), fact, np.int8) for fact in whole],
        axis=1,
    )


def window_table(windows: Windows, scenes: Sequence[Scene]) -> pa.Table:
    """Returns a table with one row per window; `label` is a list of K for `stip`."""
    label = windows.label[:, windows.observed :]
    stip = windows.protocol == "stip"
    return pa.table(
        {
            "video": [scenes[s].id for s in windows.scene],
            "pedestrian": pedestrians(windows, scenes),
            "first_frame": windows.first_frame,
            "last_frame": windows.last_frame,
            "time_to_event": windows.time_to_event,
            "label": pa.array(list(label), pa.list_(pa.int8())) if stip else label[:, 0],
        }
    )


def pedestrians(windows: Windows, scenes: Sequence[Scene]) -> list[str]:
    """Returns the track name of each window's target."""
    return [scenes[s].track_ids[k] for s, k in zip(windows.scene, windows.track, strict=True)]


def write_windows(windows: Windows, scenes: Sequence[Scene], path: Path) -> None:
    """Writes `window_table` to a Parquet file."""
    with write_atomic(path) as temporary:
        pq.write_table(window_table(windows, scenes), temporary)
