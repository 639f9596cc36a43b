"""`vidreason render`: everything that can be drawn over a video, and clips as pictures."""

import dataclasses
import signal
import sys

import av
import numpy as np
import pytest
from PIL import Image

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.core.files import share
from vidreason.intent.predictions import read_predictions
from vidreason.perception.store import Prepared
from vidreason.perception.video import write_video
from vidreason.results.forecasts import forecast_scene
from vidreason.results.overlay import TRACKS, Overlay
from vidreason.results.render import (
    Layers,
    _tint,
    of_everywhere,
    of_predictions,
    of_scene,
    of_store,
)
from vidreason.runs.train import load_with_data
from vidreason.scenes.jaad import read_jaad
from vidreason.simulation.street import write_street

CONFIG = """
model:
  class_path: IntentTask
  init_args: {net: {class_path: IntentGraphNet, init_args: {hidden: 8, members: 1}}}
data:
  class_path: IntentData
  init_args: {protocol: stip, observed: 8, horizon: 3, features: [box, neighbours]}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory, film):
    """Streets in JAAD's layout, a run on them with predictions, and one of them on film."""
    base, name = tmp_path_factory.mktemp("render"), "video_0002"
    root = write_street(base / "jaad", 12, seed=3, frames=(90, 120))
    (base / "config.yaml").write_text(CONFIG)
    line = ["fit", "-c", str(base / "config.yaml"), f"--data.root={root}"]
    line += ["--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=2"]
    line += [f"--trainer.default_root_dir={base / 'run'}", "--trainer.max_epochs=1"]
    assert cli.main(line) == 0
    line = ["predict", "--run", str(base / "run"), "--data.predict_split=train"]
    assert cli.main(line) == 0
    for source, target in (("street.mp4", "jaad/JAAD_clips/{}.mp4"), ("store", "store")):
        place = base / target.format(name)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(film / source)
    return base, name


def render(base, source, out, *options):
    root, name = base[0] / "jaad", base[1]
    line = ["render", str(source), "--out", str(out), "--root", str(root), "--clip", name]
    return cli.main([*line, "--seconds", "1", "--height", "180", *options])


def video(path):
    """Codec, format, size and frames of a file."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        about = stream.codec_context.name, stream.codec_context.pix_fmt, stream.height
        return *about, [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]


def scene_of(base):
    return next(scene for scene in read_jaad(base[0] / "jaad") if scene.id == base[1])


# --- What is drawn


def test_a_scene_shows_each_frame_its_boxes_and_no_others(base):
    scene = scene_of(base)
    layers = of_scene(scene)
    seen = 0
    for frame in range(scene.length):
        shown = layers.at(frame)
        want = {
            (name, tuple(scene.box[row]))
            for name, rows in scene.rows()
            for row in range(rows.start, rows.stop)
            if scene.frame[row] == frame
        }
        assert {(n, tuple(b)) for n, b in zip(shown.name, shown.box, strict=True)} == want
        assert np.isnan(shown.probability).all() and not len(shown.edge)
        seen += len(want)
    assert seen == len(scene.frame)


def test_everybodys_forecasts_and_edges_are_those_of_their_frames(base):
    scene = scene_of(base)
    task, data = load_with_data(str(base[0] / "run"))
    found = forecast_scene(task, data, scene)
    layers = of_everywhere(scene, found, task, "crosses")
    forecasts = edges = 0
    for frame in range(scene.length):
        shown = layers.at(frame)
        place = {name: row for row, name in enumerate(shown.name)}
        here = np.flatnonzero(found.frame == frame)
        names = [scene.track_ids[k] for k in found.track[here]]
        got = [shown.probability[place[name]] for name in names]
        np.testing.assert_array_equal(got, found.probability[here, -1])
        assert np.isfinite(shown.probability).sum() == len(here)
        want = {}
        for e in np.flatnonzero(np.isin(found.window, here)):
            sender, window = scene.track_ids[found.sender[e]], found.window[e]
            if sender in place:
                want[place[sender], place[scene.track_ids[found.track[window]]]] = found.change[
                    e, -1
                ]
        got = dict(zip(map(tuple, shown.edge.tolist()), shown.weight, strict=True))
        assert got == want
        forecasts, edges = forecasts + len(here), edges + len(want)
    assert forecasts > 100 and edges > 100


def test_a_prediction_is_shown_for_half_a_second_or_until_the_next(base):
    found = read_predictions(base[0] / "run/predictions-train.parquet")
    scene = scene_of(base)
    # Some a second apart, others every frame.
    last = found["last_frame"]
    kept = (last % 30 == 0) | (last < 40)
    found = dataclasses.replace(found, table=found.table.filter(kept), cluster=found.cluster[kept])
    layers = of_predictions(found, scene)
    ours = np.array([v == scene.id for v in found.table["video"].to_pylist()])
    ours &= found["horizon"] == 3  # the farthest
    names = np.array(found.table["pedestrian"].to_pylist())
    assert ours.any()
    for name, rows in scene.rows():
        mine = ours & (names == name)
        last, chance = found["last_frame"][mine], found["probability"][mine]
        for frame in scene.frame[rows].tolist():
            shown = layers.at(frame)
            got = shown.probability[shown.name.index(name)]
            before = np.flatnonzero(last <= frame)
            near = before[np.argmax(last[before])] if len(before) else None
            if near is None or frame - last[near] > 0.5 * scene.fps:
                assert np.isnan(got)
            else:
                assert got == chance[near]


def test_a_store_shows_its_masks(base):
    prepared = Prepared(base[0] / "store/street.arrow")
    layers = of_store(prepared)
    for frame in range(0, prepared.length, 3):
        rows = layers.rows(frame)
        number = layers.masks(rows)
        assert number.shape == layers.size[::-1]
        for n, (x1, y1, x2, y2) in enumerate(layers.box[rows], 1):
            y, x = np.nonzero(number == n)
            assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (x1, y1, x2, y2)


def test_masks_tint_the_picture_in_the_colours_of_their_tracks():
    picture = np.full((2, 3, 3), 100, np.uint8)
    number = np.array([[0, 0, 1, 1, 2, 2]] * 2 + [[0] * 6] * 2, np.uint16)  # twice as large
    _tint(picture, number, np.array([0, 13]))
    for x, colour in ((1, TRACKS[0]), (2, TRACKS[3])):
        assert picture[0, x].tolist() == [50 + part // 2 for part in colour]
    assert (picture[1] == 100).all() and (picture[0, 0] == 100).all()


def test_rows_of_no_frame():
    nothing = np.empty(0, np.int64)
    layers = Layers(
        *("v", 30.0, (64, 48), 5, 0.5, "", nothing, np.empty(0, object), nothing.astype(np.int8)),
        *(np.empty((0, 4)), np.empty(0), nothing, np.empty((0, 2), np.int64), np.empty(0)),
    )
    shown = layers.at(3)
    assert len(shown.box) == len(shown.edge) == 0


# --- The command


@pytest.mark.parametrize("kind", ["run", "predictions", "store", "annotation"])
def test_each_source_becomes_a_video_that_browsers_play(kind, base, tmp_path, capsys):
    source = {
        "run": base[0] / "run",
        "predictions": base[0] / "run/predictions-train.parquet",
        "store": base[0] / "store/street.arrow",
        "annotation": "jaad",
    }[kind]
    film = base[0] / "jaad/JAAD_clips" / f"{base[1]}.mp4"
    more = ["--video", str(film)] if kind == "store" else []
    assert render(base, source, tmp_path / "a.mp4", "--start", "1", *more) == 0
    codec, pixels, height, frames = video(tmp_path / "a.mp4")
    assert (codec, pixels, height, len(frames)) == ("h264", "yuv420p", 180, 30)
    # The film is behind: what is drawn covers little of it.
    behind = video(film)[3][30]
    step = behind.shape[0] // 180
    small = behind[::step, ::step].astype(int)
    gap = np.abs(frames[0].astype(int) - small)[30:]
    assert np.median(gap) < 30
    said = capsys.readouterr().out
    assert str(tmp_path / "a.mp4") in said and "no frames" not in said


def test_a_gif_plays_as_long_as_the_video_and_needs_no_frames(base, tmp_path, capsys):
    film = base[0] / "jaad/JAAD_clips" / f"{base[1]}.mp4"
    film.rename(film.with_suffix(".away"))
    try:
        assert render(base, "jaad", tmp_path / "a.gif") == 0
    finally:
        film.with_suffix(".away").rename(film)
    assert "no frames to draw over; give them with --video" in capsys.readouterr().out
    with Image.open(tmp_path / "a.gif") as image:
        assert image.height == 180 and image.n_frames == 15
        lasts = []
        for number in range(image.n_frames):
            image.seek(number)
            lasts.append(image.info["duration"])
        assert sum(lasts) == 1000


def test_a_recording_for_rerun(base, tmp_path, capsys, monkeypatch):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    assert render(base, base[0] / "run", tmp_path / "a.rrd") == 0
    content = (tmp_path / "a.rrd").read_bytes()
    assert content.startswith(b"RRF2") and len(content) > 50_000
    for entity in (b"camera/image", b"camera/people", b"probability/"):
        assert entity in content
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert render(base, base[0] / "run", tmp_path / "b.rrd") == 1
    assert "needs rerun-sdk" in (said := capsys.readouterr().err) and "vidreason[rerun]" in said
    assert not (tmp_path / "b.rrd").exists()


def test_forecasts_of_a_video_are_drawn_again(film, tmp_path):
    film = film / "street.mp4"
    line = ["predict", "--video", str(film), "--store", str(film.parent / "store")]
    assert cli.main([*line, "--out", str(tmp_path / "p"), "--height", "90"]) == 0
    out = tmp_path / "again.mp4"
    source = tmp_path / "p/forecasts.parquet"
    line = ["render", str(source), "--video", str(film), "--out", str(out), "--height", "90"]
    assert cli.main(line) == 0
    again, first = video(out)[3], video(tmp_path / "p/overlay.mp4")[3]
    assert len(again) == len(first)
    # Forecasts tell who was asked about; of edges and other things they know nothing.
    assert (
        np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(again, first, strict=True)]) < 12
    )


def test_decompositions_become_strips_and_films(tmp_path):
    run = tmp_path / "run"
    line = ["fit", "-c", str(share("configs/decomposition/demo_digits.yaml"))]
    line += [f"--trainer.default_root_dir={run}"]
    line += [
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--data.val_clips=4",
        "--data.test_clips=4",
    ]
    assert cli.main([*line, "--trainer.enable_progress_bar=false"]) == 0
    assert cli.main(["render", str(run), "--clips", "3", "--out", str(tmp_path / "s")]) == 0
    assert (
        len(list((tmp_path / "s").glob("*.png"))) == len(list((tmp_path / "s").glob("*.gif"))) == 3
    )
    assert cli.main(["render", str(run), "--out", str(tmp_path / "a.mp4")]) == 0
    assert video(tmp_path / "a.mp4")[0] == "h264"
    assert cli.main(["render", str(run), "--out", str(tmp_path / "a.bmp")]) == 1


def test_bad_words_are_one_line_and_leave_nothing(base, tmp_path, capsys):
    run, out = base[0] / "run", tmp_path / "a.mp4"
    (tmp_path / "short.mp4").write_bytes(b"no video")
    write_video(tmp_path / "other.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5, 30)
    cases = [
        (run, out, ["--clip", base[1][:-1]], "did you mean"),
        (run, out, ["--start", "100"], "--start: 100.0 is after the end at"),
        (run, out, ["--height", "3"], "--height: 3 is not within"),
        (run, out, ["--seconds", "0"], "--seconds: 0.0 is too little"),
        (run, tmp_path / "a.avi", [], "is no .mp4, .gif or .rrd"),
        (run, out, ["--video", str(tmp_path / "none.mp4")], "no such file"),
        (run, out, ["--video", str(tmp_path / "short.mp4")], "short.mp4"),
        (run, out, ["--video", str(tmp_path / "other.mp4")], "give the right video"),
        ("nobody", out, [], "nobody"),
        (tmp_path / "short.mp4", out, [], "short.mp4"),
    ]
    for source, path, words, problem in cases:
        assert render(base, source, path, *words) == 1, words
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert problem in line, line
    line = ["render", "jaad", "--out", str(out), "--root", str(base[0] / "jaad")]
    assert cli.main(line) == 1
    assert "--clip: is not given" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"short.mp4", "other.mp4"}


def test_predictions_of_others_are_refused(base):
    found = read_predictions(base[0] / "run/predictions-train.parquet")
    scene = next(s for s in read_jaad(base[0] / "jaad") if s.id == base[1])
    renamed = dataclasses.replace(scene, track_ids=tuple(f"x{n}" for n in scene.track_ids))
    with pytest.raises(DataError, match="has forecasts of nobody in"):
        of_predictions(found, renamed)


def test_an_interruption_leaves_nothing_half_written(base, tmp_path, monkeypatch):
    real, calls = Overlay.__call__, []

    def stumble(self, *args):
        calls.append(args)
        if len(calls) == 20:
            signal.raise_signal(signal.SIGINT)
        return real(self, *args)

    monkeypatch.setattr(Overlay, "__call__", stumble)
    for name in ("a.mp4", "a.gif"):
        calls.clear()
        assert render(base, "jaad", tmp_path / name) == 130
    assert not list(tmp_path.iterdir())
