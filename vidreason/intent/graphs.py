"""Scene graphs: converts windows to one batched torch-geometric `HeteroData`.

Each window is a star graph around its target. The other nodes are persons, groups, objects with a
box, the infrastructure flagged in the frame, and the ego vehicle. Time is an axis of every node and
edge, so a batch of B windows holds all of its B x T star graphs at once, and the temporal edges of
a node connect neighbouring steps in which it is `valid`. Everything is looked up in columns of the
whole dataset, without loops over windows, nodes or frames.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import HeteroData

from vidreason.core.errors import DataError
from vidreason.intent.features import (
    AROUND,
    NEAR,
    PERSON,
    RELATION,
    ROADS,
    WATCHES,
    feature_names,
)
from vidreason.intent.windows import Windows
from vidreason.scenes.scene import (
    EGO_ACTIONS,
    KINDS,
    LIGHTS,
    OBJECTS,
    OCCLUSION,
    ODOMETRY,
    ORIENTATION,
    SIGNALS,
    Scene,
)

_CIRCLE = 2 * math.pi


class GraphBuilder:
    """Builds the scene graphs of any subset of a set of windows.

    `vidreason.intent.features.feature_names` lists the columns of the graphs.

    Args:
        scenes: The videos that `windows` was made from.
        windows: W windows of T observed boxes.
        features: Feature groups that the graphs show, from `vidreason.intent.features.GROUPS`.
        image: Whether the graphs have image features, as `graph["person"].image` (N, T, C).

    Raises:
        DataError: If a feature group is unknown or repeated, or a scene has no image features.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        windows: Windows,
        features: Sequence[str],
        image: bool = False,
    ) -> None:
        self.windows, self.features = windows, tuple(features)
        self.names = feature_names(features)
        scene_rows = _bases([len(s.frame) for s in scenes])
        scene_tracks = _bases([len(s.track_ids) for s in scenes])
        scene_frames = _bases([s.length for s in scenes])

        # Columns per box, per track and per frame, concatenated over the scenes.
        self.box = torch.from_numpy(np.concatenate([s.box for s in scenes]))
        names = ["occlusion", *(ORIENTATION if "orientation" in features else ())]
        self.cues = {n: _column([s.cues[n] for s in scenes]) for n in names}
        self.oracle = _oracle(scenes, features)
        self.image = None
        if image:
            self.image = torch.from_numpy(np.concatenate([_image(s) for s in scenes]))
        if "objects" in features:
            self.light = _column([_cue(s, "light") for s in scenes])
        self.kind = _column([s.kind for s in scenes])
        self.size = torch.tensor([(s.width, s.height) for s in scenes], dtype=torch.float32)
        self.fps = torch.tensor([s.fps for s in scenes], dtype=torch.float32)
        self.ego_action = _column([s.ego_action for s in scenes])
        if "odometry" in features:
            measured = [np.stack([_odometry(s, n) for n in ODOMETRY], 1) for s in scenes]
            self.odometry = torch.from_numpy(np.concatenate(measured))
        self.signals = _column([np.stack([s.signals[n] for n in SIGNALS], 1) for s in scenes])
        roads = [s.attributes.get("road_type", "") for s in scenes]
        self.road = torch.tensor([[float(r == road) for road in ROADS] for r in roads])

        # (track, frame) -> row, by a table with one slot for every frame that a track spans.
        starts = np.concatenate([s.offsets[:-1] + scene_rows[i] for i, s in enumerate(scenes)])
        stops = np.concatenate([s.offsets[1:] + scene_rows[i] for i, s in enumerate(scenes)])
        frame = np.concatenate([s.frame for s in scenes]).astype(np.int64)
        self.first = frame[starts]
        self.span = frame[stops - 1] - self.first + 1
        self.slots = _bases(self.span)[:-1]
        track = np.repeat(np.arange(len(starts)), stops - starts)
        self.row_of_slot = np.full(int(self.span.sum()), -1)
        self.row_of_slot[self.slots[track] + frame - self.first[track]] = np.arange(len(frame))

        w = windows
        rows = (scene_rows[w.scene] + w.row)[:, None] + np.arange(w.observed)
        self.frames = frame[rows]  # (W, T)
        self.frame_rows = torch.from_numpy(scene_frames[w.scene][:, None] + self.frames)
        self.target = scene_tracks[w.scene] + w.track
        middle = self.box[rows[:, -1], 0::2].mean(1)
        self.on_right = (middle > self.size[w.scene, 0] / 2).numpy()
        self.label, self.tags = _labels(w.label), _labels(w.tags)
        self.others, self.others_ptr = self._neighbours(scene_tracks)

    def _rows(self, tracks: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Returns the rows (…, T) of the boxes of `tracks` (…, 1) in `frames` (…, T), or -1."""
        slot = frames - self.first[tracks]
        inside = (slot >= 0) & (slot < self.span[tracks])
        return np.where(inside, self.row_of_slot[self.slots[tracks] + slot * inside], -1)

    def _neighbours(self, scene_tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the neighbours of all windows as one list of tracks, and its (W + 1) bounds."""
        pairs = [np.empty((2, 0), np.int64)]
        kinds: tuple[str, ...] = ("person", "group") if "neighbours" in self.features else ()
        kinds += OBJECTS if "objects" in self.features else ()
        shown = np.isin(self.kind.numpy(), [KINDS.index(kind) for kind in kinds])
        # The cost is the windows of a scene times its tracks.
        for s in np.unique(self.windows.scene) if kinds else ():
            here = np.flatnonzero(self.windows.scene == s)
            tracks = np.arange(scene_tracks[s], scene_tracks[s + 1])
            tracks = tracks[shown[tracks]]
            seen = (self._rows(tracks[:, None], self.frames[here, None]) >= 0).any(2)
            window, other = np.nonzero(seen & (tracks != self.target[here, None]))
            pairs.append(np.stack([here[window], tracks[other]]))
        window, other = np.concatenate(pairs, axis=1)
        order = np.argsort(window, kind="stable")
        return other[order], _bases(np.bincount(window, minlength=len(self)))

    def __len__(self) -> int:
        return len(self.windows)

    def __call__(
        self, index: Sequence[int] | np.ndarray, mirror: np.ndarray | None = None
    ) -> HeteroData:
        """Builds the graphs of B windows.

        Args:
            index: (B,) indices into the windows.
            mirror: (B,) bool, the windows to flip horizontally; none if not given.

        Returns:
            A graph with N nodes of type `person` (targets, which come first in their window, and
            neighbours), four of type `infra` and one of type `ego` per window. `x` is (nodes, T,
            columns), `valid` (nodes, T) whether a node is present and `batch` (nodes,) its window;
            absent nodes have zeros. Edges point to the target; those between persons have
            `edge_attr` (E, T, columns) and `valid` (E, T). `y` (B, T + K) and `tags` (B, A) are the
            labels, NaN where unknown, and `window` (B,) is `index`.
        """
        index = np.asarray(index, np.int64)
        windows, swap = len(index), torch.zeros(len(index), dtype=torch.bool)
        if mirror is not None:
            swap = torch.from_numpy(mirror)
        count = self.others_ptr[index + 1] - self.others_ptr[index]
        ptr = _bases(count + 1)
        batch = np.repeat(np.arange(windows), count + 1)
        tracks = np.empty(ptr[-1], np.int64)
        is_other = np.ones(ptr[-1], bool)
        is_other[ptr[:-1]] = False
        tracks[~is_other] = self.target[index]
        offset = np.arange(int(count.sum())) - np.repeat(_bases(count)[:-1], count)
        tracks[is_other] = self.others[np.repeat(self.others_ptr[index], count) + offset]

        frames = self.frames[index]
        row = self._rows(tracks[:, None], frames[batch])
        rows, valid = torch.from_numpy(np.maximum(row, 0)), torch.from_numpy(row >= 0)

        scene = torch.from_numpy(self.windows.scene[index])
        of = torch.from_numpy(batch)
        box = self.box[rows]  # (N, T, 4) pixels
        width = self.size[scene, 0][of, None, None]
        box = torch.where(swap[of, None, None], _mirror(box, width), box)
        seconds = torch.from_numpy(frames).float() / self.fps[scene, None]

        other = torch.from_numpy(np.flatnonzero(is_other))
        target = torch.from_numpy(ptr[:-1])[of[other]]
        motion = _Motion(box, valid, seconds[of], self.size[scene][of])
        graph = HeteroData()
        person = graph["person"]
        person.x = self._person(motion, rows, torch.from_numpy(tracks), swap[of])
        person.valid, person.batch, person.ptr = valid, of, torch.from_numpy(ptr)
        if self.image is not None:
            person.image = self.image[rows].float() * valid[..., None]
        near = graph[NEAR]
        near.edge_index = torch.stack([other, target])
        near.valid = valid[other]  # the target has a box in each of its frames
        near.edge_attr = _relation(motion, other, target) * near.valid[..., None]

        at = self.frame_rows[torch.from_numpy(index)]  # (B, T)
        signals = self.signals[at].permute(0, 2, 1)  # (B, 4, T)
        light = torch.tensor([name == "traffic_light" for name in SIGNALS])[:, None]
        x = torch.stack([signals > 0, light & (signals == 1), light & (signals == 2)], -1).float()
        infra = graph["infra"]
        shown = (signals > 0) & ("traffic" in self.features)
        infra.x = (x * shown[..., None]).flatten(0, 1)[..., : 3 * ("traffic" in self.features)]
        infra.valid = shown.flatten(0, 1)
        infra.batch = torch.arange(windows).repeat_interleave(len(SIGNALS))
        graph[AROUND].edge_index = torch.stack(
            [
                torch.arange(windows * len(SIGNALS)),
                torch.from_numpy(ptr[:-1])[infra.batch],
            ]
        )

        action = self.ego_action[at]
        columns = []
        if "ego" in self.features:
            columns.append(
                one_hot(action.clamp(min=0), len(EGO_ACTIONS)) * (action >= 0)[..., None]
            )
        if "odometry" in self.features:
            columns.append(self._measured(at, swap))
        if "traffic" in self.features:
            columns.append(self.road[scene][:, None].expand(-1, at.shape[1], -1))
        ego = graph["ego"]
        ego.x = torch.cat(columns, -1).float() if columns else torch.zeros(*at.shape, 0)
        ego.valid = torch.full(at.shape, bool(columns))
        ego.batch = torch.arange(windows)
        graph[WATCHES].edge_index = torch.stack([torch.arange(windows), torch.from_numpy(ptr[:-1])])
        graph.y = self.label[torch.from_numpy(index)]
        graph.tags = self.tags[torch.from_numpy(index)]
        graph.window = torch.from_numpy(index)
        return graph

    def _measured(self, at: Tensor, mirror: Tensor) -> Tensor:
        """Returns the `odometry` columns of the ego vehicle in frames `at` (B, T); 0 if unknown."""
        speed, heading = self.odometry[at].unbind(-1)
        turned = heading - heading[:, :1]
        turned = turned - _CIRCLE * (turned / _CIRCLE).round()  # north is 0 and 2 pi
        turned = torch.where(mirror[:, None], -turned, turned)
        return torch.stack([speed / 10, (speed - speed[:, :1]) / 10, turned], -1).nan_to_num(0.0)

    def _person(self, motion: "_Motion", rows: Tensor, tracks: Tensor, mirror: Tensor) -> Tensor:
        occlusion = self.cues["occlusion"][rows]
        steps = rows.shape[1]
        kind = self.kind[tracks][:, None].expand(-1, steps)
        columns = motion.columns() | {
            "occluded_partly": occlusion == OCCLUSION.index("part"),
            "occluded_fully": occlusion == OCCLUSION.index("full"),
            "is_group": kind == KINDS.index("group"),
        }
        if "orientation" in self.features:
            pose = {name: self.cues[name][rows].clamp(min=0) for name in ORIENTATION}
            left, right, swap = pose["pose_left"], pose["pose_right"], mirror[:, None]
            columns |= pose
            columns["pose_left"] = torch.where(swap, right, left)
            columns["pose_right"] = torch.where(swap, left, right)
        if "objects" in self.features:
            light = self.light[rows]
            columns |= {f"is_{name}": kind == KINDS.index(name) for name in OBJECTS}
            columns |= {f"light_{name}": light == code for code, name in enumerate(LIGHTS)}
        columns |= {
            name: oracle[rows] if per_box else oracle[tracks][:, None].expand(-1, steps)
            for name, (oracle, per_box) in self.oracle.items()
        }
        ordered = [columns[name].float() for name in self.names["person"]]
        return torch.stack(ordered, -1) * motion.valid[..., None]


class _Motion:
    """Geometry and motion of boxes (N, T, 4) in pixels; all derived columns are (N, T)."""

    def __init__(self, box: Tensor, valid: Tensor, seconds: Tensor, size: Tensor) -> None:
        self.box, self.valid, self.size = box, valid, size[:, None]
        self.width, self.height = (box[..., 2:] - box[..., :2]).clamp(min=1e-3).unbind(-1)
        self.centre = (box[..., :2] + box[..., 2:]) / 2
        self.bottom = box[..., 3]
        self.log_height = (self.height / self.size[..., 1]).log()
        # The first step with a box; `argmax` of a mask is its first true element.
        self.start = valid.int().argmax(1, keepdim=True)
        both = valid[:, 1:] & valid[:, :-1]
        step = (seconds[:, 1:] - seconds[:, :-1]).clamp(min=1e-3)
        self.rate = torch.nn.functional.pad(both / step, (1, 0))
        self.x_velocity = self.velocity(self.centre[..., 0])
        self.bottom_velocity = self.velocity(self.bottom)

    def velocity(self, x: Tensor) -> Tensor:
        """Returns the change of `x` per second; 0 if the previous step has no box."""
        return torch.diff(x, dim=1, prepend=x[:, :1]) * self.rate

    def displacement(self, x: Tensor) -> Tensor:
        """Returns the change of `x` since the first box in the window."""
        return x - x.gather(1, self.start)

    def columns(self) -> dict[str, Tensor]:
        """Returns the columns of the group `box` that the boxes alone determine."""
        (w, h), (x, y) = self.size.unbind(-1), self.centre.unbind(-1)
        sideways = self.displacement(x) / self.height
        return {
            "x_center": x / w,
            "y_center": y / h,
            "width": self.width / w,
            "height": self.height / h,
            "y_bottom": self.bottom / h,
            "log_height": self.log_height,
            "x_distance_to_image_center": (x / w - 0.5).abs(),
            "x_velocity": self.x_velocity / self.height,
            "y_bottom_velocity": self.bottom_velocity / self.height,
            "log_height_velocity": self.velocity(self.log_height),
            "x_displacement": sideways,
            "y_bottom_displacement": self.displacement(self.bottom) / self.height,
            "log_height_change": self.displacement(self.log_height),
            "approach_to_image_center": (0.5 - x / w) * sideways.sign(),
        }


def _relation(m: _Motion, other: Tensor, target: Tensor) -> Tensor:
    """Returns the edge columns `vidreason.intent.features.RELATION`, (E, T, 14)."""
    size = m.size[other].repeat(1, 1, 2)  # (E, 1, 4)
    one, two = m.box[other], m.box[target]
    corners = (one - two) / size
    centres = (m.centre[other] - m.centre[target]) / m.size[other]
    extent = torch.stack([m.width[other], m.height[other]], -1) / m.size[other]
    scale = m.height[target]
    x, bottom = m.centre[..., 0], m.bottom
    overlap = torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2])
    shared = overlap.clamp(min=0).prod(-1)
    area = m.width * m.height
    signed = [
        (x[other] - x[target]) / scale,
        (bottom[other] - bottom[target]) / scale,
        (m.x_velocity[other] - m.x_velocity[target]) / scale,
        (m.bottom_velocity[other] - m.bottom_velocity[target]) / scale,
        m.log_height[other] - m.log_height[target],
        shared / (area[other] + area[target] - shared),
    ]
    relation = torch.cat([corners.abs(), centres.abs(), extent, torch.stack(signed, -1)], -1)
    assert relation.shape[-1] == len(RELATION)
    return relation


def _mirror(box: Tensor, width: Tensor) -> Tensor:
    x1, y1, x2, y2 = box.split(1, -1)
    return torch.cat([width - x2, y1, width - x1, y2], -1)


def _bases(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _column(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _cue(scene: Scene, name: str) -> np.ndarray:
    return scene.cues.get(name, np.full(len(scene.frame), -1, np.int8))


def _odometry(scene: Scene, name: str) -> np.ndarray:
    return scene.odometry.get(name, np.full(scene.length, np.nan, np.float32))


def _image(scene: Scene) -> np.ndarray:
    if scene.image is None:
        problem, fix = "has no image features", "prepare its video with `vidreason prepare`"
        raise DataError(scene.id, problem, fix)
    return scene.image


def _labels(codes: np.ndarray) -> Tensor:
    labels = torch.from_numpy(codes.astype(np.float32))
    return labels.where(labels >= 0, torch.nan)


def _oracle(scenes: Sequence[Scene], features: Sequence[str]) -> dict[str, tuple[Tensor, bool]]:
    """Returns the columns that reveal the label, and whether each is per box or per track.

    This is the only place that reads labels and facts.
    """
    columns: dict[str, tuple[Tensor, bool]] = {}
    if "oracle_behaviour" in features:
        labels = ("action", "look", "nod", "hand_gesture")
        for name, label in zip(PERSON["oracle_behaviour"], labels, strict=True):
            columns[name] = (_column([s.labels[label] for s in scenes]).clamp(min=0), True)
    if "oracle_attributes" in features:
        direction = _column([s.facts["motion_direction"] for s in scenes])
        columns["has_behaviour_tags"] = (_column([s.facts["behaviour"] for s in scenes]), False)
        columns["moves_laterally"] = ((direction == 1).long(), False)
        columns["moves_longitudinally"] = ((direction == 2).long(), False)
    return columns
