"""Invalid inputs, each with the command that reads it.

`bad_inputs.yaml` holds the exact error line of each; the documentation shows it as a table. Run
`python -m make.bad_inputs` in `tests` after an intended change of a line.
"""

import contextlib
import gzip
import io
import os
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import yaml

from make import box_files, tiny
from make.idx import idx
from vidreason import cli
from vidreason.perception import prepare
from vidreason.scenes.jaad import annotation_path

LINES = Path(__file__).with_suffix(".yaml")
BOXES = ["data", "windows", "boxes", "--root", "boxes", "--protocol", "benchmark"]
BOXES += ["--split", "train", "--out", "w.parquet"]
JAAD = ["data", "windows", "jaad", "--root", "jaad", "--protocol", "benchmark"]
JAAD += ["--split", "val", "--out", "w.parquet"]
VIDEO = ["prepare", "clip.mp4", "--out", "store"]
FIT = ["fit", "-c", "config.yaml"]
TEST = ["test", "--run", "run"]
EVALUATE = ["evaluate", "run", "--root", "jaad"]
MNIST = ["fit", "-c", "digits.yaml"]

CONFIG = """\
model:
  class_path: IntentTask
  init_args:
    net: {class_path: IntentGraphNet, init_args: {hidden: 4, members: 1}}
    lr: 0.01
data:
  class_path: IntentData
  init_args: {root: jaad, features: [box], batch_size: 8}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, default_root_dir: new}
"""
DIGITS = """\
model:
  class_path: DecomposeTask
  init_args: {net: {class_path: EquivariantDDPAE}, input_frames: 5}
data: {class_path: MovingMNISTData, init_args: {root: mnist, length: 10}}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, default_root_dir: new}
"""

Damage = Callable[[], object]
CASES: dict[str, tuple[Damage, Sequence[str]]] = {}


def case(name: str, damage: Damage, command: Sequence[str]) -> None:
    """Adds an input, named by its source and its problem."""
    assert name not in CASES, name
    CASES[name] = damage, command


def base(folder: Path) -> None:
    """Writes what the cases damage: valid data of each kind, a run, configurations."""
    tiny.jaad(folder / "jaad")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "digits.yaml").write_text(DIGITS)
    good = ["v", "p", 3, 1, 2, 30, 40, 0, "person", "none"]
    rows = [good, [*good[:2], 4, *good[3:]]]
    videos = [["v", "train", 30, 100, 80, 50, ""], ["w", "val", 30, 100, 80, 50, ""]]
    box_files.write(folder / "boxes", rows, videos)
    with contextlib.chdir(folder):
        run = ["--trainer.default_root_dir=run"]
        assert cli.main(["fit", "-c", "config.yaml", *run]) == 0
        assert cli.main(["predict", "--run", "run"]) == 0
    (folder / "mnist").mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 5020), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        (folder / f"mnist/{name}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"mnist/{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


def line_of(name: str, folder: Path) -> str:
    """Returns what the command of a case prints to stderr, in a folder of its own from `base`."""
    damage, command = CASES[name]
    stderr = io.StringIO()
    # `prepare` starts a process per video, which takes seconds.
    threads = mock.patch.object(prepare, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    with contextlib.chdir(folder), warnings.catch_warnings(), threads:
        warnings.simplefilter("ignore")
        damage()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = cli.main(command)
            except SystemExit as stop:
                code = stop.code
    assert code in (1, 2), f"{name}: ended with {code}"
    return stderr.getvalue().replace(f"{folder.resolve()}/", "")


def replace(path: str, pattern: str, new: str, count: int = 1) -> Damage:
    """Replaces the first match in a file."""

    def damage() -> None:
        text, found = re.subn(pattern, new, Path(path).read_text(), count=count, flags=re.DOTALL)
        assert found, pattern
        Path(path).write_text(text)

    return damage


def put(path: str, data: bytes | str) -> Damage:
    """Writes a file."""
    content = data.encode() if isinstance(data, str) else data
    return lambda: Path(path).write_bytes(content)


def change(path: str, edit: Callable[[bytes], bytes]) -> Damage:
    """Rewrites a file."""
    return lambda: Path(path).write_bytes(edit(Path(path).read_bytes()))


def remove(path: str) -> Damage:
    """Removes a file or a folder."""
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else os.unlink(path)


def nothing() -> None:
    """Damages nothing."""


# --- Tables of boxes

ROW = "v,p,4,1,2,30,40,0,person,none"
for what, new in {
    "video that is not listed": "x,p,4,1,2,30,40,0,person,none",
    "empty pedestrian": "v,,4,1,2,30,40,0,person,none",
    "frame after the end": "v,p,50,1,2,30,40,0,person,none",
    "negative frame": "v,p,-1,1,2,30,40,0,person,none",
    "frame that is not an integer": "v,p,4.5,1,2,30,40,0,person,none",
    "duplicate frame": "v,p,3,1,2,30,40,0,person,none",
    "missing coordinate": "v,p,4,,2,30,40,0,person,none",
    "NaN coordinate": "v,p,4,nan,2,30,40,0,person,none",
    "infinite coordinate": "v,p,4,-inf,2,30,40,0,person,none",
    "coordinate that is not a number": "v,p,4,left,2,30,40,0,person,none",
    "box of zero width": "v,p,4,30,2,30,40,0,person,none",
    "box with y1 > y2": "v,p,4,1,40,30,2,0,person,none",
    "box outside the image": "v,p,4,200,2,230,40,0,person,none",
    "crossing that is not 0 or 1": "v,p,4,1,2,30,40,2,person,none",
    "unknown kind": "v,p,4,1,2,30,40,0,dog,none",
    "track of two kinds": "v,p,4,1,2,30,40,0,group,none",
    "unknown occlusion": "v,p,4,1,2,30,40,0,person,half",
    "row with too few columns": "v,p,4,1,2,30",
}.items():
    case(f"boxes: {what}", replace("boxes/boxes.csv", ROW, new), BOXES)
SECOND = {"video": "w", "split": "val", "fps": "30", "width": "100", "height": "80", "length": "50"}
for what, (column, value) in {
    "duplicate video": ("video", "v"),
    "video without a name": ("video", ""),
    "unknown split": ("split", "dev"),
    "no frame rate": ("fps", ""),
    "frame rate of zero": ("fps", "0"),
    "different frame rates": ("fps", "60"),
    "width of zero": ("width", "0"),
    "negative length": ("length", "-5"),
}.items():
    rows = [",".join(row.values()) for row in (SECOND, SECOND | {column: value})]
    case(f"videos: {what}", replace("boxes/videos.csv", *rows), BOXES)
case(
    "videos: frame rate unsuited to the protocol",
    replace("boxes/videos.csv", ",30,", ",10,", 2),
    BOXES,
)
case("videos: empty split", replace("boxes/videos.csv", "train", "val"), BOXES)
case("boxes: missing table", remove("boxes/boxes.csv"), BOXES)
case("boxes: missing column", replace("boxes/boxes.csv", "crossing", "kinds"), BOXES)
case("boxes: unknown column", replace("boxes/boxes.csv", "occlusion", "speed"), BOXES)
case(
    "boxes: invalid Parquet file",
    lambda: (remove("boxes/boxes.csv")(), put("boxes/boxes.parquet", b"PAR1")()),
    BOXES,
)
case("boxes: empty file", put("boxes/boxes.csv", b""), BOXES)

# --- JAAD

ANNOTATION = str(annotation_path(Path("jaad"), "annotations", tiny.VIDEO))
ATTRIBUTES = str(annotation_path(Path("jaad"), "annotations_attributes", tiny.VIDEO))
for what, damage in {
    "truncated file": lambda: tiny.truncate(Path("jaad")),
    "document type": lambda: tiny.doctype(Path("jaad")),
    "unknown tag": lambda: tiny.unknown_tag(Path("jaad")),
    "box of zero width": lambda: tiny.degenerate_box(Path("jaad")),
    "split list with an unknown video": lambda: tiny.stray_video(Path("jaad"), split="val"),
    "missing annotation folder": lambda: tiny.remove_kind(Path("jaad")),
    "missing file": lambda: tiny.remove_file(Path("jaad")),
    "empty file": put(ANNOTATION, b""),
    "not UTF-8": put(ANNOTATION, bytes(range(128, 256))),
    "frame that is not a number": replace(ANNOTATION, r'frame="\d+"', 'frame="x"'),
    "frame after the end": replace(ANNOTATION, r'frame="\d+"', 'frame="99999"'),
    "NaN coordinate": replace(ANNOTATION, r'xtl="[^"]*"', 'xtl="nan"'),
    "infinite coordinate": replace(ANNOTATION, r'xtl="[^"]*"', 'xtl="-1e999"'),
    "missing coordinate": replace(ANNOTATION, r' xtl="[^"]*"', ""),
    "unknown label": replace(ANNOTATION, 'label="pedestrian"', 'label="dog"'),
    "no size of the video": replace(ANNOTATION, "<original_size>.*?</original_size>", ""),
    "crossing that is not a number": replace(ATTRIBUTES, r' crossing="[^"]*"', ' crossing="maybe"'),
    "no split lists": remove("jaad/split_ids"),
    "empty split list": put("jaad/split_ids/default/val.txt", b"\n"),
    "video in two splits": change(
        "jaad/split_ids/default/val.txt", lambda data: data + f"{tiny.VIDEOS[0]}\n".encode()
    ),
    "missing folder": remove("jaad"),
}.items():
    case(f"JAAD: {what}", damage, JAAD)

# --- Videos

for what, data in {
    "missing file": None,
    "empty file": b"",
    "text file": "<html>404 not found</html>\n" * 20,
    "list of other files": "ffconcat version 1.0\nfile other.mp4\n",
    "playlist": "#EXTM3U\n#EXTINF:1,\na.mp4\n",
    "header only": b"\0\0\0\x20ftypisom" + bytes(500),
}.items():
    case(f"video: {what}", nothing if data is None else put("clip.mp4", data), VIDEO)

# --- Checkpoints

LAST = "run/checkpoints/best.ckpt"


def flipped(data: bytes) -> bytes:
    """Flips one bit in the largest member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        large = max(archive.infolist(), key=lambda info: info.file_size)
        place = data.index(archive.read(large))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


for what, damage in {
    "truncated": change(LAST, lambda data: data[: len(data) // 2]),
    "empty": put(LAST, b""),
    "text file": put(LAST, b"text"),
    "pickle that runs code": put(
        LAST, b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03."
    ),
    "missing": remove(LAST),
    "flipped bit": change(LAST, flipped),
}.items():
    case(f"checkpoint: {what}", damage, [*TEST, "--data.root", "jaad"])
case("checkpoint: of another network", nothing, [*TEST, "--model.net.hidden", "5"])
case(
    "checkpoint: nothing to resume from",
    remove("run/checkpoints/last.ckpt"),
    ["fit", "--run", "run", "--resume"],
)
case("run: folder in use", nothing, [*FIT, "--trainer.default_root_dir", "run"])
case("run: missing folder", nothing, ["test", "--run", "nowhere"])
case("weights: unknown name", nothing, ["test", "--weights", "nobody"])

# --- Predictions

PREDICTIONS = "run/predictions.parquet"
case("predictions: truncated", change(PREDICTIONS, lambda data: data[:200]), EVALUATE)
case("predictions: missing", remove(PREDICTIONS), ["evaluate", PREDICTIONS])
case("predictions: missing run", nothing, ["evaluate", "nowhere"])

# --- Digits

DIGIT = "mnist/train-images-idx3-ubyte"
for what, damage in {
    "missing": remove(DIGIT),
    "truncated": change(DIGIT, lambda data: data[:-1]),
    "longer than its header says": change(DIGIT, lambda data: data + b"\0"),
    "labels instead of images": lambda: shutil.copy("mnist/train-labels-idx1-ubyte", DIGIT),
    "text file": put(DIGIT, b"text"),
    "truncated gzip": lambda: (
        put(DIGIT + ".gz", gzip.compress(Path(DIGIT).read_bytes())[:99])(),
        remove(DIGIT)(),
    ),
    "fewer labels than images": put("mnist/train-labels-idx1-ubyte", idx(np.arange(9))),
}.items():
    case(f"digits: {what}", damage, MNIST)

# --- Configurations and options

for what, (old, new) in {
    "unknown key": ("hidden:", "hiden:"),
    "duplicate key": ("lr: 0.01", "lr: 0.01\n    lr: 0.02"),
    "word instead of a number": ("lr: 0.01", "lr: high"),
    "NaN": ("lr: 0.01", "lr: .nan"),
    "out of range": ("lr: 0.01", "lr: -1"),
    "class of another package": ("IntentGraphNet", "os.system"),
    "unknown feature": ("[box]", "[box, colour]"),
    "feature that the dataset lacks": ("[box]", "[box, odometry]"),
    "YAML tag that runs code": ("0.01", "!!python/name:os.system"),
    "YAML alias": ("trainer:", "x: &x 1\ny: *x\ntrainer:"),
    "not valid YAML": ("trainer: {", "trainer: [{"),
    "batch size of zero": ("batch_size: 8", "batch_size: 0"),
}.items():
    case(f"configuration: {what}", replace("config.yaml", re.escape(old), new), FIT)
case("configuration: missing", remove("config.yaml"), FIT)
case("configuration: not UTF-8", put("config.yaml", b"\xff\xfe\0"), FIT)
case("configuration: empty", put("config.yaml", b""), FIT)
case("option: unknown strategy", nothing, [*FIT, "--trainer.strategy", "nope"])
SEVERAL = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
case("option: decomposition on several processes", nothing, [*MNIST, *SEVERAL])
case("option: zero nodes", nothing, [*FIT, "--trainer.num_nodes", "0"])
case("option: validation every 0 epochs", nothing, [*FIT, "--trainer.check_val_every_n_epoch", "0"])
case("option: unknown option of fit", nothing, [*FIT, "--model.lrr", "1"])
case("option: unknown option of report", nothing, ["report", "run", "--bogus"])
case("option: horizon without windows", nothing, [*JAAD, "--protocol", "stip", "--horizon", "9999"])
case("option: no dataset folder", nothing, ["data", "windows", *JAAD[2:3], *JAAD[5:]])
case("output: file instead of a folder", put("new", b""), FIT)
case("output: folder instead of a file", lambda: Path("w.parquet").mkdir(), JAAD)


def main() -> int:
    """Writes the current lines."""
    os.environ.pop("VIDREASON_DATA", None)
    lines = {}
    with tempfile.TemporaryDirectory() as temporary:
        sound = Path(temporary, "sound")
        sound.mkdir()
        base(sound)
        for name in CASES:
            folder = shutil.copytree(sound, Path(temporary, "one"))
            lines[name] = line_of(name, folder).rstrip("\n")
            shutil.rmtree(folder)
    LINES.write_text(yaml.safe_dump(lines, sort_keys=False, allow_unicode=True, width=10_000))
    print(len(lines), "lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
