"""All parsers of external files, each with a small valid dataset.

Whatever the bytes of its file, a parser must return a value or raise a `DataError`.
"""

import gzip
import io
import json
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from make import blobs, box_files, pie_files, stip_files
from make.idx import idx
from vidreason.core.errors import DataError
from vidreason.core.files import unpack
from vidreason.decomposition.ball_files import read_balls, write_balls
from vidreason.decomposition.clip import Balls
from vidreason.decomposition.digits import read_official
from vidreason.decomposition.mnist import read_digits
from vidreason.intent.predictions import read_predictions, write_predictions
from vidreason.perception.prepare import prepare_video
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video
from vidreason.results.forecasts import read_forecasts, write_forecasts
from vidreason.runs.folder import _read as read_checkpoint
from vidreason.runs.options import _load_yaml
from vidreason.runs.weights import find_weights, read_card, shipped
from vidreason.scenes import boxes, jaad, pie, stip
from vidreason.simulation.street import write_street

VIDEO = "video_0002"


class Parser(NamedTuple):
    """A parser and its dataset.

    Attributes:
        make: Writes a valid dataset into an empty folder.
        file: Path of the parsed file in that folder.
        read: Reads the dataset of a folder.
    """

    make: Callable[[Path], object]
    file: str
    read: Callable[[Path], object]


def accepts(parser: Parser, folder: Path) -> bool:
    """Returns whether a parser accepts the dataset of a folder; errors must fit in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(folder)
    except DataError as error:
        text = str(error)
        assert text.isprintable() and len(text) < 2000, text
        return False
    return True


def _street(folder: Path) -> None:
    write_street(folder, videos=3, seed=30, frames=(12, 14), split=(1, 1, 1))


def _pie(folder: Path) -> None:
    _, _, tags, facts = pie_files.pedestrian(np.random.default_rng(0), "1_1_1", True)
    facts |= {"crossing_point": 2, "critical_point": 1, "exp_start_point": 0}
    box = [[10, 20, 30.5, 60]] * 3
    light = {"id": "1_1_2", "type": "regular", "state": "red"}
    tracks = [
        pie_files.track("pedestrian", range(3), box, tags[:3]),
        pie_files.track("traffic_light", range(3), box, light),
    ]
    texts = {
        "annotations": pie_files.document(tracks, 4),
        "annotations_attributes": pie_files.element(
            "ped_attributes", pie_files.element("pedestrian", **facts)
        ),
        pie.VEHICLE: pie_files.element(
            "vehicle_info",
            "".join(
                pie_files.element("frame", id=f, OBD_speed=9.5, GPS_speed=0, heading_angle=f)
                for f in range(4)
            ),
        ),
    }
    for part, text in texts.items():
        pie_files.write(folder, part, "set01/video_0001", text)


def _stip(folder: Path) -> None:
    stip_files.sequence(folder / "walk", 0, people=1, cameras=("idx00",))


def _boxes(folder: Path) -> None:
    good = ["v", "p", 3, 1, 2, 30, 40, 0, "person", "none"]
    rows = [good, [*good[:2], 4, *good[3:]]]
    box_files.write(folder, rows, [["v", "train", 30, 100, 80, 50, ""]])


def _parquet_boxes(folder: Path) -> None:
    _boxes(folder)
    pq.write_table(boxes.pa.csv.read_csv(folder / "boxes.csv"), folder / "boxes.parquet")
    (folder / "boxes.csv").unlink()


def _digits(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = idx(rng.integers(0, 256, (3, 28, 28)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(images)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))


def _zipped_digits(folder: Path) -> None:
    _digits(folder)
    path = folder / "t10k-images-idx3-ubyte"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def _official(folder: Path) -> None:
    np.save(folder / "clips.npy", np.zeros((20, 1, 2, 2), np.uint8))


_BALLS = Balls(
    np.full((1, 3, 2, 2), 0.5), np.zeros((1, 3, 2, 2)), np.full((1, 2), 0.1), np.ones((1, 2)),
    np.ones(2),
)  # fmt: skip


def _ball_json(folder: Path) -> None:
    state = {"position": {"x": 9, "y": 99}, "velocity": {"x": 1, "y": 0}, "mass": 1, "sizemul": 1}
    content = {"trajectories": [[[state, state]]], "config": {"cx": 400, "cy": 300}}
    (folder / "balls.json").write_text(json.dumps(content))


def _ball_npy(folder: Path) -> None:
    np.save(folder / "balls.npy", np.tile([200.0, 100, 1, 1], (1, 3, 2, 1)))


def _ball_npz(folder: Path) -> None:
    write_balls(folder / "balls.npz", _BALLS)


def _rnem(folder: Path) -> None:
    with h5py.File(folder / "balls.h5", "w") as file:
        file["training/groups"] = np.tile(np.eye(8)[:, :, None], (3, 1, 1, 1, 1))


def _gswm(folder: Path) -> None:
    with h5py.File(folder / "balls.h5", "w") as file:
        file["imgs"] = np.zeros((1, 3, 8, 8, 3), np.uint8)
        file["positions"], file["sizes"] = np.full((1, 3, 2, 2), 4.0), np.full((1, 2), 1.0)


def _predictions(folder: Path) -> None:
    columns = {
        "video": np.array(["v", "v"], object),
        "pedestrian": np.array(["p", "q"], object),
        "last_frame": np.array([15, 16], np.int32),
        "horizon": np.zeros(2, np.int32),
        "probability": np.array([0.2, 0.7]),
        "label": np.array([0, 1], np.int8),
        "clean": np.array([True, False]),
    }
    meta = {"dataset": "jaad", "protocol": "benchmark", "subset": "beh", "split": "test"}
    meta |= {"features": ["box"], "oracle": False, "model": "m"}
    meta |= {"threshold": 0.5, "n_expected": 2}
    write_predictions(folder / "predictions.parquet", columns, meta)


def _forecasts(folder: Path) -> None:
    meta = {"video": "v", "fps": 30.0, "width": 64, "height": 48, "length": 9, "every": 1}
    meta |= {"threshold": 0.5, "words": "crosses", "model": "m"}
    with write_forecasts(folder / "forecasts.parquet", meta, np.arange(2)) as writer:
        writer.add(3, ["p"], np.array([[1, 2, 3, 4]]), np.array([[0.1, 0.2]]))


def _store(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as clips:
        blobs.write(Path(clips) / "clip.mp4", 0, length=3)
        prepare_video(blobs.jobs(Path(clips), folder)[0])


def _read_store(folder: Path) -> None:
    prepared = Prepared(folder / "clip.arrow")
    prepared.scene()
    prepared.window(0, 2)


def _clip(folder: Path) -> None:
    blobs.write(folder / "clip.mp4", 0, length=3)


def _watch(folder: Path) -> None:
    for _ in Video(folder / "clip.mp4").frames(size=(16, 16)):
        pass


def _checkpoint(folder: Path) -> None:
    content = {"vidreason": {"model": "m"}, "state_dict": {"weight": torch.ones(2)}}
    torch.save(content | {"pytorch-lightning_version": "2.6.6"}, folder / "last.ckpt")


def _card(folder: Path) -> None:
    (folder / "card.json").write_bytes((find_weights(shipped()[0]) / "card.json").read_bytes())


def _config(folder: Path) -> None:
    text = "a: {b: [1, 2.5, null, yes], c: 'x'}\nd: |\n  text\n? e\n: !!str 1e-3\n"
    (folder / "config.yaml").write_text(text)


def _read_config(folder: Path) -> None:
    try:
        _load_yaml((folder / "config.yaml").read_bytes().decode("utf-8", "replace"))
    except yaml.YAMLError as error:  # the option parser shortens it
        raise DataError("config.yaml", " ".join(str(error).split()), "correct it") from None


def _archive(folder: Path) -> None:
    with tarfile.open(folder / "data.tar.gz", "w:gz", compresslevel=1) as file:
        for name in ("a/b.txt", "a/c.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            file.addfile(entry, io.BytesIO(b"abc"))


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w") as file:
        file.writestr("a/b.txt", "abc")
        file.writestr("c.txt", "abc", zipfile.ZIP_DEFLATED)


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        unpack(next(folder.glob("data.*")), Path(root, "new"), max_bytes=1 << 20)


_BALL_FILES = {"json": _ball_json, "npy": _ball_npy, "npz": _ball_npz}
PARSERS = {
    **{
        f"jaad {folder}": Parser(
            _street,
            str(jaad.annotation_path(Path(), folder, VIDEO)),
            lambda root: jaad.read_video(root, VIDEO),
        )
        for folder in jaad.FOLDERS
    },
    "jaad split": Parser(_street, "split_ids/default/val.txt", jaad.read_splits),
    **{
        f"pie {folder}": Parser(
            _pie,
            str(pie.annotation_path(Path(), folder, "set01/video_0001")),
            lambda root: pie.read_video(root, "set01/video_0001"),
        )
        for folder in ("annotations", "annotations_attributes", pie.VEHICLE)
    },
    "stip boxes": Parser(
        _stip, "walk/walk_idx00.mkv.json", lambda root: stip.read_sequence(root / "walk")
    ),
    "stip segments": Parser(_stip, "walk/walk.txt", lambda root: stip.read_sequence(root / "walk")),
    "boxes": Parser(_boxes, "boxes.csv", lambda root: boxes.read_boxes(root, "stip")),
    "boxes parquet": Parser(
        _parquet_boxes, "boxes.parquet", lambda root: boxes.read_boxes(root, "stip")
    ),
    "boxes videos": Parser(_boxes, "videos.csv", lambda root: boxes.read_boxes(root, "stip")),
    "mnist images": Parser(
        _digits, "t10k-images-idx3-ubyte", lambda root: read_digits(root, "test")
    ),
    "mnist labels": Parser(
        _digits, "t10k-labels-idx1-ubyte", lambda root: read_digits(root, "test")
    ),
    "mnist gzip": Parser(
        _zipped_digits, "t10k-images-idx3-ubyte.gz", lambda root: read_digits(root, "test")
    ),
    "moving mnist": Parser(_official, "clips.npy", lambda root: read_official(root / "clips.npy")),
    **{
        f"balls {suffix}": Parser(
            make, f"balls.{suffix}", lambda root, s=suffix: read_balls(root / f"balls.{s}")
        )
        for suffix, make in _BALL_FILES.items()
    },
    "balls rnem": Parser(_rnem, "balls.h5", lambda root: read_balls(root / "balls.h5/training")),
    "balls gswm": Parser(_gswm, "balls.h5", lambda root: read_balls(root / "balls.h5")),
    "predictions": Parser(
        _predictions,
        "predictions.parquet",
        lambda root: read_predictions(root / "predictions.parquet"),
    ),
    "forecasts": Parser(
        _forecasts, "forecasts.parquet", lambda root: read_forecasts(root / "forecasts.parquet")
    ),
    "store": Parser(_store, "clip.arrow", _read_store),
    "video": Parser(_clip, "clip.mp4", _watch),
    "checkpoint": Parser(
        _checkpoint, "last.ckpt", lambda root: read_checkpoint(root / "last.ckpt")
    ),
    "card": Parser(_card, "card.json", read_card),
    "configuration": Parser(_config, "config.yaml", _read_config),
    "tar": Parser(_archive, "data.tar.gz", _unpack),
    "zip": Parser(_zip, "data.zip", _unpack),
}
