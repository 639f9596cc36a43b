import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from make import blobs, groups
from make.blobs import jobs
from make.mask2former import save

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.perception import prepare
from vidreason.perception.masks import encode
from vidreason.perception.prepare import Job, find_videos, prepare_video, run_jobs
from vidreason.perception.store import Prepared, match, with_instances
from vidreason.perception.video import write_video
from vidreason.scenes.jaad import read_video
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import Film, TrueMasks, write_film, write_truth
from vidreason.simulation.street import write_video as annotate
from vidreason.simulation.world import simulate

CLIPS = 40


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Forty short clips."""
    root = tmp_path_factory.mktemp("clips")
    for n in range(CLIPS):
        (root / f"set{n % 3}").mkdir(exist_ok=True)
        blobs.write(root / f"set{n % 3}" / f"clip{n:02d}.mp4", n, length=12 + n % 5)
    return root


def content(store):
    return {p.relative_to(store): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "a"
    assert set(map(prepare_video, jobs(clips, store))) == {"prepared"}
    return content(store)


def test_names_tell_files_apart(clips):
    names = list(find_videos([clips]))
    assert len(names) == CLIPS and names[:2] == ["set0/clip00", "set0/clip03"]
    assert list(find_videos([clips / "set1" / "clip01.mp4"])) == ["clip01"]
    with pytest.raises(DataError, match="has the name 'clip01', as has"):
        find_videos([clips / "set1", clips / "set1" / "clip01.mp4"])
    with pytest.raises(DataError, match=r"holds no file that ends in \.mp4"):
        find_videos([Path(__file__).parent])


def test_instances_are_followed(tmp_path):
    boxes = blobs.write(tmp_path / "a.mp4", 3)
    assert prepare_video(Job("a", tmp_path / "a.mp4", tmp_path, "b", blobs.Blobs)) == "prepared"
    scene = Prepared(tmp_path / "a.arrow").scene()
    assert scene.length == len(boxes) and len(scene.track_ids) == 3
    for _, rows in scene.rows():
        # Compression may shift an edge by a pixel.
        gap = abs(scene.box[rows][:, None] - boxes[scene.frame[rows]]).max(-1)
        assert (rows.stop - rows.start) == len(boxes) and gap.max(0).min() <= 1


def test_a_second_run_does_nothing_twice(clips, tmp_path, undisturbed):
    some = jobs(clips, tmp_path)[:5]
    assert [prepare_video(job) for job in some] == ["prepared"] * 5
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.arrow")}
    assert [prepare_video(job) for job in some] == ["kept"] * 5
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.arrow")}
    with pytest.raises(DataError, match="another every; delete it, or give another --out"):
        prepare_video(some[0]._replace(every=2))
    with pytest.raises(DataError, match="another segmenter"):
        prepare_video(some[0]._replace(segmenter="other"))
    with pytest.raises(DataError, match="another source"):
        prepare_video(some[0]._replace(path=some[1].path))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_same_bytes(clips, tmp_path, undisturbed, workers):
    done = run_jobs(jobs(clips, tmp_path), workers)
    assert set(done.values()) == {"prepared"} and list(done) == list(find_videos([clips]))
    assert content(tmp_path) == undisturbed


def test_ray_gives_the_same_bytes(clips, tmp_path, undisturbed, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is an extra that is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        done = run_jobs(jobs(clips, tmp_path), 2, "ray")
        assert set(done.values()) == {"prepared"} and content(tmp_path) == undisturbed
    finally:
        ray.shutdown()


WORK = """
import sys
from pathlib import Path
from make.blobs import jobs
from vidreason.perception.prepare import prepare_video
if __name__ == "__main__":
    for job in jobs(Path(sys.argv[1]), Path(sys.argv[2])):
        print(prepare_video(job, wait=sys.argv[3] == "wait"), flush=True)
"""


def start(clips, store, wait="wait"):
    words = [sys.executable, "-c", WORK, str(clips), str(store), wait]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def test_killed_and_gone_on_with_ten_times_it_is_the_same(clips, tmp_path, undisturbed):
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(10):
        process = start(clips, tmp_path)
        first = process.stdout.readline()  # it works by then
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        seen += [first, *process.stdout.read().splitlines()]
        process.wait()
    process = start(clips, tmp_path)
    rest = process.communicate()[0].split()
    assert process.returncode == 0 and len(rest) == CLIPS
    assert "prepared" in rest and "kept" in rest, "killed too late, or too early"
    assert content(tmp_path) == undisturbed


def test_two_processes_share_one_store(clips, tmp_path, undisturbed):
    processes = [start(clips, tmp_path, "leave") for _ in range(2)]
    told = [process.communicate()[0].split() for process in processes]
    assert sum(words.count("prepared") for words in told) == CLIPS
    assert content(tmp_path) == undisturbed


STOP = """
import sys
from pathlib import Path
from make.blobs import Slow, jobs
from vidreason import cli
from vidreason.commands import prepare as command
from vidreason.perception import prepare
if __name__ == "__main__":
    store = Path(sys.argv[2])
    command.run = lambda args: prepare.report(
        prepare.run_jobs(jobs(Path(sys.argv[1]), store, Slow), 2), store
    )
    sys.exit(cli.main(["prepare", sys.argv[1], "--out", sys.argv[2]]))
"""


@pytest.mark.parametrize("everyone", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_discards_what_is_in_hand(clips, tmp_path, undisturbed, number, everyone):
    process = groups.start(["-c", STOP, clips, tmp_path])
    while len(list(tmp_path.rglob(".*-clip*"))) < 2:  # both are at work
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    (os.killpg if everyone else os.kill)(process.pid, number)
    said = process.communicate(timeout=10)[1]
    assert (process.returncode, said) == (
        128 + number,
        f"stopped by {number.name}; the same command goes on\n",
    )
    assert groups.gone(process)
    assert content(tmp_path).keys() <= undisturbed.keys()


def test_processes_end_with_the_first_one_when_it_is_killed(clips, tmp_path, undisturbed):
    process = groups.start(["-c", STOP, clips, tmp_path])
    while len(list(tmp_path.rglob(".*-clip*"))) < 2:  # both are at work
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert groups.gone(process)
    run_jobs(jobs(clips, tmp_path), 1)
    assert content(tmp_path) == undisturbed


def test_what_fails_costs_only_itself(clips, tmp_path, undisturbed):
    folder = tmp_path / "clips"
    folder.mkdir()
    for n in (0, 3):
        (folder / f"good{n}.mp4").write_bytes((clips / "set0" / f"clip{n:02d}.mp4").read_bytes())
    (folder / "cut.mp4").write_bytes((folder / "good0.mp4").read_bytes()[:900])
    (folder / "text.mp4").write_text("no video")
    white = (np.full((64, 96, 3), 255, np.uint8) for _ in range(5))
    write_video(folder / "crash.mp4", white, 10)
    done = run_jobs(jobs(folder, tmp_path / "store", blobs.Crash), 1)
    assert done["good0"] == done["good3"] == "prepared"
    assert "cut.mp4: " in done["cut"] and "is no mp4" in done["text"]
    assert "crash.mp4: killed the process that was preparing it" in done["crash"]
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        ".lock",
        "good0.arrow",
        "good3.arrow",
    ]


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(clips, tmp_path, monkeypatch):
    class Full(prepare.Writer):
        def add(self, *args):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "Writer", Full)
    job = jobs(clips, tmp_path / "store")[0]
    line = prepare._outcome(job, True)
    assert line == f"{tmp_path / 'store'}: No space left on device; mend that and run it again"
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == [tmp_path / "store/.lock"]


def test_a_segmenter_that_fails_is_said_in_one_line(clips, tmp_path):
    class Broken(blobs.Blobs):
        def __call__(self, frame, number):
            raise RuntimeError("out of\nmemory")

    line = prepare._outcome(jobs(clips, tmp_path, Broken)[0], True)
    assert "clip00.mp4: RuntimeError" in line and "\n" not in line


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A filmed street in JAAD's layout, and its film."""
    root = tmp_path_factory.mktemp("street")
    for folder in ("", "_attributes", "_appearance", "_traffic", "_vehicle"):
        (root / f"annotations{folder}").mkdir()
    happens = simulate(0, 6, (60, 70))
    name, film = annotate(root, happens), Film(happens)
    write_film(root / f"{name}.mp4", film)
    return root, name, film


def test_a_street_is_seen_as_it_was(street, tmp_path):
    root, name, film = street
    job = Job(name, root / f"{name}.mp4", tmp_path, "truth", lambda: TrueMasks(film))
    assert prepare_video(job) == "prepared"
    prepared = Prepared(tmp_path / f"{name}.arrow")
    wrong = total = 0
    for t in range(0, prepared.length, 5):
        _, numbers = film(t)
        there = np.flatnonzero(np.bincount(numbers.ravel())[1:] >= 64) + 1
        rows = prepared.window(t, t + 1)
        truth = encode(numbers, int(there.max()))
        masks = {tuple(row["mask"]): row["kind"] for row in rows.to_pylist()}
        for n in there:
            counts = truth.counts[truth.offsets[n - 1] : truth.offsets[n]]
            total += 1
            wrong += masks.get(tuple(counts.tolist())) != KINDS[film.kind[n - 1]]
        assert len(rows) == len(there)
    assert total > 100 and wrong == 0

    scene = read_video(root, name)
    both = with_instances(scene, prepared)
    rows = len(scene.frame)
    people = np.repeat(scene.kind, np.diff(scene.offsets)) == KINDS.index("person")
    shown = people & (scene.cues["occlusion"] == 0)
    matched = (both.image[:rows] != 0).any(1)
    assert matched[shown].mean() > 0.99
    assert (both.labels["cross"][:rows] == scene.labels["cross"]).all()
    assert {KINDS[k] for k in both.kind} >= {"person", "vehicle"}

    # Whoever is matched is who was annotated: the labels are those of the same person.
    write_truth(tmp_path / "truth.arrow", name, film)
    truth = Prepared(tmp_path / "truth.arrow")
    row = match(scene, truth.frame, truth.kinds(), truth.boxes())
    asked = np.flatnonzero((scene.labels["cross"] >= 0) & (row >= 0))
    person = truth.table["track"].to_numpy()[row[asked]]
    happened = film.street.behaviour["cross"][scene.frame[asked], person]
    assert len(asked) > 50 and (scene.labels["cross"][asked] == happened).mean() > 0.99


def test_command_line(street, tmp_path, capsys):
    pytest.importorskip("transformers")
    root, name, _ = street
    model = save(tmp_path / "m2f")
    line = ["prepare", str(root / f"{name}.mp4"), "--segmenter", str(model), "--every", "20"]
    assert cli.main([*line, "--confidence", "0", "--out", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'store'}: 1 prepared, 0 kept, 0 failed\n"
    prepared = Prepared(tmp_path / "store" / f"{name}.arrow")
    assert len(prepared.table) and np.isfinite(prepared.features()).all()
    assert prepared.scene().image.shape[1] == 32
    (tmp_path / "bad.mp4").write_text("text")
    bad = ["prepare", str(tmp_path / "bad.mp4"), *line[2:]]
    assert cli.main([*bad, "--out", str(tmp_path / "store")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "bad.mp4: is no mp4" in said.err
    assert said.err.count("\n") == 1 and "1 failed" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["http://host/a.mp4"], "is an address"),
        (["a.mp4", "--segmenter", "./nowhere"], "./nowhere: no such folder"),
        (["a.mp4", "--every", "0"], "--every: 0 is not within 1"),
        (["a.mp4", "--workers", "0"], "--workers: 0 is not within 1"),
        (["a.mp4", "--confidence", "1.5"], "--confidence: 1.5 is not within 0 and 1"),
    ],
)
def test_bad_words_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).write_text("{}")
    known = words if "--segmenter" in words else [*words, "--segmenter", "m"]
    assert cli.main(["prepare", *known, "--out", "store"]) == 1
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1
