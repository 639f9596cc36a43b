"""Evaluation protocols as data: which boxes of which track are observed, and what is asked.

`benchmark` follows Kotseruba, Rasouli and Tsotsos (WACV 2021) for JAAD; `benchmark-clean` keeps of
it only the windows whose question is still open; `stip` follows Liu et al. (RA-L 2020). In all of
them a window is a run of consecutive boxes of one track, as the published protocols count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic
from vidreason.scenes.scene import KINDS, TAGS, Scene

PROTOCOLS = ("benchmark", "benchmark-clean", "stip")
SUBSETS = ("beh", "all", "place")
OBSERVED = {"benchmark": 16, "benchmark-clean": 16, "stip": 30}
"""Observed boxes T, at 30 frames per second."""
_EVENT = (30, 60)  # frames from the last observed box to the event, benchmark


@dataclass(frozen=True)
class Windows:
    """W windows of T observed boxes and K questions each.

    Attributes:
        protocol: Name in `PROTOCOLS`.
        observed: T, boxes.
        horizon: K, questions: 1 (the event) or that many coming boxes.
        scene: (W,) index into the scenes the windows were made of.
        track: (W,) index into that scene's tracks.
        row: (W,) first observed row of that scene.
        first_frame: (W,) frame of the first observed box.
        last_frame: (W,) frame of the last observed box.
        time_to_event: (W,) boxes from the last observed one to the event; -1 for `stip`.
        label: (W, T + K) int8: the tag of each observed box, then the answers; 1 crosses, 0 does
            not, -1 is not tagged.
        tags: (W, 5) int8, the questions of `TAGS`: 1 yes, 0 no, -1 unknown.
        clean: (W,) bool: not a positive whose crossing has begun or has no known start.
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
        """The windows at `rows` (indices or mask)."""
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
    """Cuts the windows of a protocol, by scene, track and time.

    Args:
        scenes: Videos of one split.
        protocol: Name in `PROTOCOLS`.
        subset: `beh` takes pedestrians with behaviour tags, `all` bystanders too; `place` asks
            about the place ahead, of scenes made by `with_place`. `stip` asks for tags, so there
            `all` means `beh`.
        horizon: K of `stip`, frames.
        stride: Boxes from window to window; if not given 3, or, for `stip`, a sixth of T.
        observed: T of `stip`, boxes; 30 if not given.

    Raises:
        DataError: Unknown protocol or subset, a place or another T asked for of the benchmark, or a
            crossing point where the track has no box.
    """
    if protocol not in PROTOCOLS:
        raise DataError("protocol", f"no {protocol!r}", "choose from " + ", ".join(PROTOCOLS))
    if subset not in SUBSETS:
        raise DataError("subset", f"no {subset!r}", "choose from " + ", ".join(SUBSETS))
    stip = protocol == "stip"
    if observed not in (None, OBSERVED[protocol]) and not stip:
        problem = f"{observed} with {protocol!r}, which observes {OBSERVED[protocol]}"
        raise DataError("observed", problem, "leave it out")
    observed = observed or OBSERVED[protocol]
    if subset == "place" and not stip:
        raise DataError("subset", f"'place' with {protocol!r}", "take the protocol 'stip'")
    asked_about = KINDS.index("place" if subset == "place" else "person")
    asked = horizon if stip else 1
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("scene", "track", "row", "time_to_event", "label", "tags", "clean")
    }
    for s, scene in enumerate(scenes):
        behaviour = scene.facts["behaviour"]
        for k, (name, rows) in enumerate(scene.rows()):
            wanted = behaviour[k] if subset == "beh" or (stip and subset == "all") else 1
            if scene.kind[k] != asked_about or not wanted:
                continue
            cross = scene.labels["cross"][rows]
            if stip:
                starts = np.arange(
                    0, len(cross) - observed - asked + 1, stride or max(1, observed // 6)
                )
                label = cross[starts[:, None] + np.arange(observed + asked)]
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
        horizon=asked,
        scene=scene_of,
        track=column("track", np.int64),
        row=row,
        first_frame=frame[base[scene_of] + row],
        last_frame=frame[base[scene_of] + row + observed - 1],
        time_to_event=column("time_to_event", np.int32),
        label=column("label", np.int8, observed + asked),
        tags=column("tags", np.int8, len(TAGS)),
        clean=column("clean", bool),
    )
    return windows.take(windows.clean) if protocol == "benchmark-clean" else windows


def open_windows(scenes: Sequence[Scene], protocol: str, observed: int, horizon: int) -> Windows:
    """Every T consecutive boxes of every person, with nothing known of what comes.

    Args:
        scenes: Videos.
        protocol: Name in `PROTOCOLS`.
        observed: T, boxes.
        horizon: K, questions.
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
    """Windows of one track as in the WACV 2021 benchmark: starts, times to event, labels, clean."""
    observed, (soonest, latest) = OBSERVED["benchmark"], _EVENT
    frames = scene.frame[rows]
    point = scene.facts["crossing_point"][k]
    crosses = scene.facts["crossing"][k] > 0
    if point < 0:
        # Without an event the whole track counts but its last two boxes.
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
    """`TAGS` of the windows of track k that end in the rows `last`."""
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
    """One row per window; `label` is a list of K for `stip`."""
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
    """Name of each window's target."""
    return [scenes[s].track_ids[k] for s, k in zip(windows.scene, windows.track, strict=True)]


def write_windows(windows: Windows, scenes: Sequence[Scene], path: Path) -> None:
    """Writes `window_table` as Parquet."""
    with write_atomic(path) as temporary:
        pq.write_table(window_table(windows, scenes), temporary)
