"""Inputs that cannot be used: how each comes about, and the command that meets it.

`bad_inputs.yaml` beside this file holds the exact line that the user sees; the docs show it as a
table. After changing a line on purpose: `python -m make.bad_inputs` in `tests`.
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
from pathlib import Path

import numpy as np
import yaml

from make import box_files, tiny
from make.idx import idx
from vidreason import cli
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

Spoil = Callable[[], object]
CASES: dict[str, tuple[Spoil, Sequence[str]]] = {}


def case(name: str, spoil: Spoil, command: Sequence[str]) -> None:
    """Adds a row."""
    assert name not in CASES, name
    CASES[name] = spoil, command


def base(folder: Path) -> None:
    """Makes what the cases damage: sound data of each kind, a run, configurations."""
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
    """What the command says on stderr, in a folder that `base` has filled and nobody else uses."""
    spoil, command = CASES[name]
    said = io.StringIO()
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoil()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = cli.main(command)
            except SystemExit as stop:
                code = stop.code
    assert code in (1, 2), f"{name}: ended with {code}"
    return said.getvalue().replace(f"{folder.resolve()}/", "")


def replace(path: str, pattern: str, new: str, count: int = 1) -> Spoil:
    """Replaces the first match in a file."""

    def spoil() -> None:
        text, found = re.subn(pattern, new, Path(path).read_text(), count=count, flags=re.DOTALL)
        assert found, pattern
        Path(path).write_text(text)

    return spoil


def put(path: str, data: bytes | str) -> Spoil:
    """Writes a file."""
    content = data.encode() if isinstance(data, str) else data
    return lambda: Path(path).write_bytes(content)


def change(path: str, edit: Callable[[bytes], bytes]) -> Spoil:
    """Rewrites a file."""
    return lambda: Path(path).write_bytes(edit(Path(path).read_bytes()))


def remove(path: str) -> Spoil:
    """Removes a file or a folder."""
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else os.unlink(path)


def nothing() -> None:
    """Leaves all as it is."""


# --- Tables of boxes

ROW = "v,p,4,1,2,30,40,0,person,none"
for what, new in {
    "a box of a video that is not listed": "x,p,4,1,2,30,40,0,person,none",
    "a box of nobody": "v,,4,1,2,30,40,0,person,none",
    "a frame after the end": "v,p,50,1,2,30,40,0,person,none",
    "a frame before the start": "v,p,-1,1,2,30,40,0,person,none",
    "a frame that is no whole number": "v,p,4.5,1,2,30,40,0,person,none",
    "the same frame twice": "v,p,3,1,2,30,40,0,person,none",
    "a corner that is missing": "v,p,4,,2,30,40,0,person,none",
    "a corner that is not a number": "v,p,4,nan,2,30,40,0,person,none",
    "a corner that is infinite": "v,p,4,-inf,2,30,40,0,person,none",
    "a corner that is a word": "v,p,4,left,2,30,40,0,person,none",
    "a box without width": "v,p,4,30,2,30,40,0,person,none",
    "a box upside down": "v,p,4,1,40,30,2,0,person,none",
    "a box outside of the image": "v,p,4,200,2,230,40,0,person,none",
    "a crossing that is neither yes nor no": "v,p,4,1,2,30,40,2,person,none",
    "an unknown kind": "v,p,4,1,2,30,40,0,dog,none",
    "a track of two kinds": "v,p,4,1,2,30,40,0,group,none",
    "an unknown occlusion": "v,p,4,1,2,30,40,0,person,half",
    "a row that is too short": "v,p,4,1,2,30",
}.items():
    case(f"boxes: {what}", replace("boxes/boxes.csv", ROW, new), BOXES)
SECOND = "w,val,30,100,80,50,"
for what, new in {
    "a video twice": "v,val,30,100,80,50,",
    "a video without a name": ",val,30,100,80,50,",
    "an unknown split": "w,dev,30,100,80,50,",
    "no frame rate": "w,val,,100,80,50,",
    "a frame rate of zero": "w,val,0,100,80,50,",
    "another frame rate": "w,val,60,100,80,50,",
    "no width": "w,val,30,0,80,50,",
    "a length that is negative": "w,val,30,100,80,-5,",
}.items():
    case(f"videos: {what}", replace("boxes/videos.csv", SECOND, new), BOXES)
case(
    "videos: frame rates that the protocol does not mean",
    replace("boxes/videos.csv", ",30,", ",10,", 2),
    BOXES,
)
case("videos: none of the split", replace("boxes/videos.csv", "train", "val"), BOXES)
case("boxes: no such table", remove("boxes/boxes.csv"), BOXES)
case("boxes: a column that is missing", replace("boxes/boxes.csv", "crossing", "kinds"), BOXES)
case("boxes: a column that nobody knows", replace("boxes/boxes.csv", "occlusion", "speed"), BOXES)
case(
    "boxes: a Parquet file that is none",
    lambda: (remove("boxes/boxes.csv")(), put("boxes/boxes.parquet", b"PAR1")()),
    BOXES,
)
case("boxes: an empty file", put("boxes/boxes.csv", b""), BOXES)

# --- JAAD

ANNOTATION = str(annotation_path(Path("jaad"), "annotations", tiny.VIDEO))
ATTRIBUTES = str(annotation_path(Path("jaad"), "annotations_attributes", tiny.VIDEO))
for what, spoil in {
    "a file that was cut": lambda: tiny.truncate(Path("jaad")),
    "a document type": lambda: tiny.doctype(Path("jaad")),
    "an unknown tag": lambda: tiny.unknown_tag(Path("jaad")),
    "a box without width": lambda: tiny.degenerate_box(Path("jaad")),
    "a list that names a video that is not there": lambda: tiny.stray_video(
        Path("jaad"), split="val"
    ),
    "a kind of annotation that is missing": lambda: tiny.remove_kind(Path("jaad")),
    "a file that is missing": lambda: tiny.remove_file(Path("jaad")),
    "an empty file": put(ANNOTATION, b""),
    "bytes that are no text": put(ANNOTATION, bytes(range(128, 256))),
    "a frame that is not a number": replace(ANNOTATION, r'frame="\d+"', 'frame="x"'),
    "a frame after the end": replace(ANNOTATION, r'frame="\d+"', 'frame="99999"'),
    "a corner that is not a number": replace(ANNOTATION, r'xtl="[^"]*"', 'xtl="nan"'),
    "a corner that is infinite": replace(ANNOTATION, r'xtl="[^"]*"', 'xtl="-1e999"'),
    "a corner that is missing": replace(ANNOTATION, r' xtl="[^"]*"', ""),
    "a label that nobody knows": replace(ANNOTATION, 'label="pedestrian"', 'label="dog"'),
    "no size of the video": replace(ANNOTATION, "<original_size>.*?</original_size>", ""),
    "a crossing that is not a number": replace(
        ATTRIBUTES, r' crossing="[^"]*"', ' crossing="maybe"'
    ),
    "no lists of videos": remove("jaad/split_ids"),
    "an empty list of videos": put("jaad/split_ids/default/val.txt", b"\n"),
    "a video in two lists": change(
        "jaad/split_ids/default/val.txt", lambda data: data + f"{tiny.VIDEOS[0]}\n".encode()
    ),
    "no such folder": remove("jaad"),
}.items():
    case(f"JAAD: {what}", spoil, JAAD)

# --- Videos

for what, data in {
    "no such file": None,
    "an empty file": b"",
    "a text": "<html>404 not found</html>\n" * 20,
    "a list of other files": "ffconcat version 1.0\nfile other.mp4\n",
    "a playlist": "#EXTM3U\n#EXTINF:1,\na.mp4\n",
    "a head without a body": b"\0\0\0\x20ftypisom" + bytes(500),
}.items():
    case(f"video: {what}", nothing if data is None else put("clip.mp4", data), VIDEO)

# --- Checkpoints

LAST = "run/checkpoints/best.ckpt"


def flipped(data: bytes) -> bytes:
    """One wrong bit in the largest member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        large = max(archive.infolist(), key=lambda info: info.file_size)
        place = data.index(archive.read(large))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


for what, spoil in {
    "cut": change(LAST, lambda data: data[: len(data) // 2]),
    "empty": put(LAST, b""),
    "a text": put(LAST, b"text"),
    "a pickle": put(LAST, b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03."),
    "missing": remove(LAST),
    "one wrong bit": change(LAST, flipped),
}.items():
    case(f"checkpoint: {what}", spoil, [*TEST, "--data.root", "jaad"])
case("checkpoint: of another network", nothing, [*TEST, "--model.net.hidden", "5"])
case(
    "checkpoint: nothing to resume from",
    remove("run/checkpoints/last.ckpt"),
    ["fit", "--run", "run", "--resume"],
)
case("run: its folder is in use", nothing, [*FIT, "--trainer.default_root_dir", "run"])
case("run: no such folder", nothing, ["test", "--run", "nowhere"])
case("weights: none of that name", nothing, ["test", "--weights", "nobody"])

# --- Predictions

PREDICTIONS = "run/predictions.parquet"
case("predictions: cut", change(PREDICTIONS, lambda data: data[:200]), EVALUATE)
case("predictions: missing", remove(PREDICTIONS), ["evaluate", PREDICTIONS])
case("predictions: no such run", nothing, ["evaluate", "nowhere"])

# --- Digits

DIGIT = "mnist/train-images-idx3-ubyte"
for what, spoil in {
    "missing": remove(DIGIT),
    "cut": change(DIGIT, lambda data: data[:-1]),
    "longer than it says": change(DIGIT, lambda data: data + b"\0"),
    "labels instead of images": lambda: shutil.copy("mnist/train-labels-idx1-ubyte", DIGIT),
    "a text": put(DIGIT, b"text"),
    "a gzip that was cut": lambda: (
        put(DIGIT + ".gz", gzip.compress(Path(DIGIT).read_bytes())[:99])(),
        remove(DIGIT)(),
    ),
    "fewer labels": put("mnist/train-labels-idx1-ubyte", idx(np.arange(9))),
}.items():
    case(f"digits: {what}", spoil, MNIST)

# --- Configurations and options

for what, (old, new) in {
    "an unknown key": ("hidden:", "hiden:"),
    "a key twice": ("lr: 0.01", "lr: 0.01\n    lr: 0.02"),
    "a word for a number": ("lr: 0.01", "lr: high"),
    "not a number": ("lr: 0.01", "lr: .nan"),
    "out of range": ("lr: 0.01", "lr: -1"),
    "a class of somebody else": ("IntentGraphNet", "os.system"),
    "a feature that nobody knows": ("[box]", "[box, colour]"),
    "a feature of which the data have nothing": ("[box]", "[box, odometry]"),
    "a tag that builds something": ("0.01", "!!python/name:os.system"),
    "an alias": ("trainer:", "x: &x 1\ny: *x\ntrainer:"),
    "no YAML": ("trainer: {", "trainer: [{"),
    "a batch of nothing": ("batch_size: 8", "batch_size: 0"),
}.items():
    case(f"configuration: {what}", replace("config.yaml", re.escape(old), new), FIT)
case("configuration: missing", remove("config.yaml"), FIT)
case("configuration: not UTF-8", put("config.yaml", b"\xff\xfe\0"), FIT)
case("configuration: empty", put("config.yaml", b""), FIT)
case("option: no such strategy", nothing, [*FIT, "--trainer.strategy", "nope"])
SEVERAL = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
case("option: a decomposition on several processes", nothing, [*MNIST, *SEVERAL])
case("option: no machine", nothing, [*FIT, "--trainer.num_nodes", "0"])
case("option: validation never", nothing, [*FIT, "--trainer.check_val_every_n_epoch", "0"])
case("option: unknown", nothing, [*FIT, "--model.lrr", "1"])
case("option: unknown to report", nothing, ["report", "run", "--bogus"])
case(
    "option: a horizon without windows", nothing, [*JAAD, "--protocol", "stip", "--horizon", "9999"]
)
case("option: no folder of the data", nothing, ["data", "windows", *JAAD[2:3], *JAAD[5:]])
case("surroundings: a file where a folder should be", put("new", b""), FIT)
case("surroundings: a folder where a file should be", lambda: Path("w.parquet").mkdir(), JAAD)


def main() -> int:
    """Writes the lines as they are now."""
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
