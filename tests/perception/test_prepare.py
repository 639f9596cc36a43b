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

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.perception import prepare
from vidreason.perception.prepare import Job, find_videos, prepare_video, run_jobs
from vidreason.perception.store import Prepared, match, with_instances
from vidreason.perception.video import write_video
from vidreason.scenes.jaad import read_video
from vidreason.scenes.scene import KINDS
from vidreason.simulation.film import Film, TrueMasks, write_film, write_truth
from vidreason.simulation.street import write_video as annotate
from vidreason.simulation.world import simulate

CLIPS = 24


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of short clips."""
    root = tmp_path_factory.mktemp("clips")
    for n in range(CLIPS):
        (root / f"set{n % 3}").mkdir(exist_ok=True)
        blobs.write(root / f"set{n % 3}" / f"clip{n:02d}.mp4", n, length=12 + n % 5)
    return root


def content(store):
    return {p.relative_to(store): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(clips, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "a"
    assert set(map(prepare_video, jobs(clips, store))) == {"prepared"}
    return content(store)


def test_find_videos_names_each_file(clips):
    names = list(find_videos([clips]))
    assert len(names) == CLIPS and names[:2] == ["set0/clip00", "set0/clip03"]
    assert list(find_videos([clips / "set1" / "clip01.mp4"])) == ["clip01"]
    with pytest.raises(DataError, match="has the same name 'clip01' as .*; rename one"):
        find_videos([clips / "set1", clips / "set1" / "clip01.mp4"])
    with pytest.raises(DataError, match=r"contains no \.mp4, .* file"):
        find_videos([Path(__file__).parent])


def test_instances_are_tracked(tmp_path):
    boxes = blobs.write(tmp_path / "a.mp4", 3)
    assert prepare_video(Job("a", tmp_path / "a.mp4", tmp_path, "b", blobs.Blobs)) == "prepared"
    scene = Prepared(tmp_path / "a.arrow").scene()
    assert scene.length == len(boxes) and len(scene.track_ids) == 3
    for _, rows in scene.rows():
        # Compression may shift an edge by a pixel.
        gap = abs(scene.box[rows][:, None] - boxes[scene.frame[rows]]).max(-1)
        assert (rows.stop - rows.start) == len(boxes) and gap.max(0).min() <= 1


def test_a_second_run_skips_prepared_videos(clips, tmp_path):
    some = jobs(clips, tmp_path)[:5]
    assert [prepare_video(job) for job in some] == ["prepared"] * 5
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.arrow")}
    assert [prepare_video(job) for job in some] == ["kept"] * 5
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.arrow")}
    with pytest.raises(DataError, match="a different every; delete it, or choose another --out"):
        prepare_video(some[0]._replace(every=2))
    with pytest.raises(DataError, match="was prepared with a different segmenter;"):
        prepare_video(some[0]._replace(segmenter="other"))
    with pytest.raises(DataError, match="was prepared with a different source"):
        prepare_video(some[0]._replace(path=some[1].path))


def test_worker_processes_write_the_same_bytes(clips, tmp_path, uninterrupted):
    done = run_jobs(jobs(clips, tmp_path), 2)
    assert set(done.values()) == {"prepared"} and list(done) == list(find_videos([clips]))
    assert content(tmp_path) == uninterrupted


@pytest.mark.slow
def test_ray_writes_the_same_bytes(clips, tmp_path, uninterrupted, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        done = run_jobs(jobs(clips, tmp_path), 2, "ray")
        assert set(done.values()) == {"prepared"} and content(tmp_path) == uninterrupted
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


def test_an_interrupted_run_resumes_to_the_same_bytes(clips, tmp_path, uninterrupted):
    class Interrupted(blobs.Blobs):
        def __call__(self, frame, number):
            if number == 5:
                raise KeyboardInterrupt
            return super().__call__(frame, number)

    first, second, *_ = jobs(clips, tmp_path)
    prepare_video(first)
    with pytest.raises(KeyboardInterrupt):
        prepare_video(second._replace(make=Interrupted))
    assert set(content(tmp_path)) == {Path(".lock"), Path("set0/clip00.arrow")}
    # A killed process leaves its temporary file.
    (tmp_path / "set0/.0123abcd-clip03.arrow").write_bytes(b"incomplete")
    outcomes = [prepare_video(job) for job in jobs(clips, tmp_path)]
    assert outcomes == ["kept", *["prepared"] * (CLIPS - 1)]
    assert content(tmp_path) == uninterrupted


@pytest.mark.slow
def test_a_run_killed_five_times_resumes_to_the_same_bytes(clips, tmp_path, uninterrupted):
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = start(clips, tmp_path)
        process.stdout.readline()  # the first video is done
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
    process = start(clips, tmp_path)
    rest = process.communicate()[0].split()
    assert process.returncode == 0 and len(rest) == CLIPS
    assert "prepared" in rest and "kept" in rest, "killed too late or too early"
    assert content(tmp_path) == uninterrupted


def test_two_processes_fill_one_store(clips, tmp_path, uninterrupted):
    processes = [start(clips, tmp_path, "leave") for _ in range(2)]
    told = [process.communicate()[0].split() for process in processes]
    assert sum(words.count("prepared") for words in told) == CLIPS
    assert content(tmp_path) == uninterrupted


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


def start_slow(clips, store):
    """Starts a run and waits until both workers are writing."""
    process = groups.start(["-c", STOP, clips, store])
    while len(list(store.rglob(".*-clip*"))) < 2:
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    return process


@pytest.mark.parametrize(
    ("send", "number"),
    [
        pytest.param(os.killpg, signal.SIGINT, id="Ctrl-C"),
        pytest.param(os.kill, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(os.killpg, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(os.kill, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_only_complete_files(clips, tmp_path, uninterrupted, send, number):
    process = start_slow(clips, tmp_path)
    send(process.pid, number)
    error = process.communicate(timeout=10)[1]
    assert error == f"stopped by {number.name}; the same command resumes\n"
    assert process.returncode == 128 + number
    assert groups.gone(process)
    assert content(tmp_path).keys() <= uninterrupted.keys()


@pytest.mark.slow
def test_workers_exit_when_the_main_process_is_killed(clips, tmp_path, uninterrupted):
    process = start_slow(clips, tmp_path)
    process.kill()
    process.wait()
    assert groups.gone(process)
    run_jobs(jobs(clips, tmp_path), 1)
    assert content(tmp_path) == uninterrupted


def test_failed_videos_do_not_affect_the_others(clips, tmp_path):
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
    assert "cut.mp4: " in done["cut"] and "is not an mp4" in done["text"]
    assert "crash.mp4: crashed the worker process; check the file and" in done["crash"]
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        ".lock",
        "good0.arrow",
        "good3.arrow",
    ]


def test_a_full_disk_is_one_error_line_and_leaves_no_file(clips, tmp_path, monkeypatch):
    class Full(prepare.Writer):
        def add(self, *args):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "Writer", Full)
    job = jobs(clips, tmp_path / "store")[0]
    line = prepare._outcome(job, True)
    assert (
        line == f"{tmp_path / 'store'}: No space left on device; fix it and run the command again"
    )
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == [tmp_path / "store/.lock"]


def test_a_failing_segmenter_is_one_error_line(clips, tmp_path):
    class Broken(blobs.Blobs):
        def __call__(self, frame, number):
            raise RuntimeError("out of\nmemory")

    line = prepare._outcome(jobs(clips, tmp_path, Broken)[0], True)
    assert "clip00.mp4: RuntimeError" in line and "\n" not in line


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Folder of a rendered street with annotations as in JAAD, its name and its film."""
    root = tmp_path_factory.mktemp("street")
    for folder in ("", "_attributes", "_appearance", "_traffic", "_vehicle"):
        (root / f"annotations{folder}").mkdir()
    happens = simulate(0, 24, (24, 28))
    name, film = annotate(root, happens), Film(happens)
    write_film(root / f"{name}.mp4", film)
    return root, name, film


def test_prepared_street_matches_the_ground_truth(street, tmp_path):
    root, name, film = street
    job = Job(name, root / f"{name}.mp4", tmp_path, "truth", lambda: TrueMasks(film))
    assert prepare_video(job) == "prepared"
    write_truth(tmp_path / "truth.arrow", name, film)
    prepared, truth = Prepared(tmp_path / f"{name}.arrow"), Prepared(tmp_path / "truth.arrow")
    seen, there = (
        {(row["frame"], row["kind"], *row["mask"]) for row in table.to_pylist()}
        for table in (p.table.select(["frame", "kind", "mask"]) for p in (prepared, truth))
    )
    assert seen == there and len(there) > 500

    scene = read_video(root, name)
    both = with_instances(scene, prepared)
    rows = len(scene.frame)
    people = np.repeat(scene.kind, np.diff(scene.offsets)) == KINDS.index("person")
    shown = people & (scene.cues["occlusion"] == 0)
    matched = (both.image[:rows] != 0).any(1)
    assert matched[shown].mean() > 0.99
    assert (both.labels["cross"][:rows] == scene.labels["cross"]).all()
    assert {KINDS[k] for k in both.kind} >= {"person", "vehicle"}

    # Matched instances are the annotated pedestrians: labels are those of the same person.
    row = match(scene, truth.frame, truth.kinds(), truth.boxes())
    labelled = np.flatnonzero((scene.labels["cross"] >= 0) & (row >= 0))
    person = truth.table["track"].to_numpy()[row[labelled]]
    happened = film.street.behaviour["cross"][scene.frame[labelled], person]
    assert len(labelled) > 50 and (scene.labels["cross"][labelled] == happened).mean() > 0.99


def test_command_line(clips, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.mp4").write_text("text")
    videos = [clips / "set0/clip00.mp4", "bad.mp4", "missing.mp4", "http://host/a.mp4"]
    options = ["--segmenter", tiny_model, "--every", "5", "--confidence", "0", "--out", "store"]
    assert cli.main(["prepare", *map(str, [*videos, *options])]) == 1
    printed = capsys.readouterr()
    assert printed.out == "store: 1 prepared, 0 kept, 3 failed\n"
    for line, error in zip(
        printed.err.splitlines(),
        ("bad.mp4: is not an mp4", "missing.mp4: no such file", "http:/host/a.mp4: is a URL"),
        strict=True,
    ):
        assert line.startswith(f"error: {error}")
    prepared = Prepared(Path("store/clip00.arrow"))
    assert len(prepared.table) and np.isfinite(prepared.features()).all()
    assert prepared.scene().image.shape[1] == 32


def test_report_prints_equal_errors_once(tmp_path, capsys):
    assert prepare.report({"a": "prepared", "b": "kept"}, tmp_path) == 0
    assert prepare.report({"a": "prepared", "b": "wrong", "c": "wrong"}, tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: wrong\n"
    assert printed.out.splitlines() == [
        f"{tmp_path}: 1 prepared, 1 kept, 0 failed",
        f"{tmp_path}: 1 prepared, 0 kept, 2 failed",
    ]


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("--segmenter", "./nowhere", "./nowhere: no such folder"),
        ("--every", "0", "--every: must be between 1 and 1000000, got 0"),
        ("--workers", "0", "--workers: must be between 1 and 1000, got 0"),
        ("--confidence", "1.5", "--confidence: must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_options_are_one_error_line(tmp_path, capsys, option, value, error):
    store = str(tmp_path / "store")
    assert cli.main(["prepare", "a.mp4", "--out", store, option, value]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {error}; ") and printed.count("\n") == 1
