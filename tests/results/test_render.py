"""`vidreason render`: what is drawn on a video, from any source, and clips as filmstrips."""

import dataclasses
import signal
import sys

import av
import numpy as np
import pytest
from PIL import Image

from vidreason import cli
from vidreason.core.errors import DataError
from vidreason.intent.predictions import read_predictions
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video, write_video
from vidreason.results.forecasts import forecast_scene
from vidreason.results.layers import (
    Layers,
    of_everywhere,
    of_predictions,
    of_scene,
    of_store,
)
from vidreason.results.overlay import TRACKS, Overlay
from vidreason.results.render import _tint
from vidreason.runs.train import load_with_data
from vidreason.scenes.jaad import read_jaad


def render(filmed, source, out, *options):
    root, name = filmed[0] / "jaad", filmed[1]
    line = ["render", str(source), "--out", str(out), "--root", str(root), "--clip", name]
    return cli.main([*line, "--seconds", "1", "--height", "180", *options])


def video(path):
    """Codec, pixel format, height and frames of a file."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        about = stream.codec_context.name, stream.codec_context.pix_fmt, stream.height
        return *about, [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]


def scene_of(filmed):
    return next(scene for scene in read_jaad(filmed[0] / "jaad") if scene.id == filmed[1])


# --- What is drawn


def test_layers_of_a_scene_are_the_boxes_of_each_frame(filmed):
    scene = scene_of(filmed)
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


def test_layers_of_a_model_are_the_predictions_and_edges_of_each_frame(filmed):
    scene = scene_of(filmed)
    task, data = load_with_data(str(filmed[0] / "run"))
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


def test_a_prediction_is_shown_for_half_a_second_or_until_the_next(filmed):
    found = read_predictions(filmed[0] / "run/predictions-train.parquet")
    scene = scene_of(filmed)
    # Some a second apart, others in every frame.
    last = found["last_frame"]
    kept = (last % 30 == 0) | (last < 40)
    found = dataclasses.replace(found, table=found.table.filter(kept), cluster=found.cluster[kept])
    layers = of_predictions(found, scene)
    ours = np.array([v == scene.id for v in found.table["video"].to_pylist()])
    ours &= found["horizon"] == 3  # the last
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


def test_layers_of_a_store_are_its_masks(filmed):
    prepared = Prepared(filmed[0] / "store/street.arrow")
    layers = of_store(prepared)
    for frame in range(0, prepared.length, 40):
        rows = layers.rows(frame)
        number = layers.masks(rows)
        assert number.shape == layers.size[::-1]
        for n, (x1, y1, x2, y2) in enumerate(layers.box[rows], 1):
            y, x = np.nonzero(number == n)
            assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (x1, y1, x2, y2)


def test_masks_tint_the_image_in_the_colours_of_their_tracks():
    picture = np.full((2, 3, 3), 100, np.uint8)
    number = np.array([[0, 0, 1, 1, 2, 2]] * 2 + [[0] * 6] * 2, np.uint16)  # twice as large
    _tint(picture, number, np.array([0, 13]))
    for x, colour in ((1, TRACKS[0]), (2, TRACKS[3])):
        assert picture[0, x].tolist() == [50 + part // 2 for part in colour]
    assert (picture[1] == 100).all() and (picture[0, 0] == 100).all()


def test_layers_without_boxes():
    nothing = np.empty(0, np.int64)
    layers = Layers(
        *("v", 30.0, (64, 48), 5, 0.5, "", nothing, np.empty(0, object), nothing.astype(np.int8)),
        *(np.empty((0, 4)), np.empty(0), nothing, np.empty((0, 2), np.int64), np.empty(0)),
    )
    shown = layers.at(3)
    assert len(shown.box) == len(shown.edge) == 0


# --- The command


@pytest.mark.parametrize("kind", ["run", "predictions", "store", "annotation"])
def test_each_source_becomes_a_video_that_browsers_play(kind, filmed, tmp_path, capsys):
    source = {
        "run": filmed[0] / "run",
        "predictions": filmed[0] / "run/predictions-train.parquet",
        "store": filmed[0] / "store/street.arrow",
        "annotation": "jaad",
    }[kind]
    film = filmed[0] / "jaad/JAAD_clips" / f"{filmed[1]}.mp4"
    more = ["--video", str(film)] if kind == "store" else []
    assert render(filmed, source, tmp_path / "a.mp4", "--start", "1", *more) == 0
    codec, pixels, height, frames = video(tmp_path / "a.mp4")
    assert (codec, pixels, height, len(frames)) == ("h264", "yuv420p", 180, 30)
    # The overlay covers little of the film.
    behind = next(picture for number, picture in Video(film).frames() if number == 30)
    step = behind.shape[0] // 180
    small = behind[::step, ::step].astype(int)
    gap = np.abs(frames[0].astype(int) - small)[30:]
    assert np.median(gap) < 30
    said = capsys.readouterr().out
    assert str(tmp_path / "a.mp4") in said and "no video to draw on" not in said


def test_a_gif_has_the_duration_of_the_video_and_needs_no_video_file(filmed, tmp_path, capsys):
    film = filmed[0] / "jaad/JAAD_clips" / f"{filmed[1]}.mp4"
    film.rename(film.with_suffix(".away"))
    try:
        assert render(filmed, "jaad", tmp_path / "a.gif") == 0
    finally:
        film.with_suffix(".away").rename(film)
    assert "no video to draw on; give one with --video" in capsys.readouterr().out
    with Image.open(tmp_path / "a.gif") as image:
        assert image.height == 180 and image.n_frames == 15
        lasts = []
        for number in range(image.n_frames):
            image.seek(number)
            lasts.append(image.info["duration"])
        assert sum(lasts) == 1000


def test_a_recording_for_rerun(filmed, tmp_path, capsys, monkeypatch):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    assert render(filmed, filmed[0] / "run", tmp_path / "a.rrd") == 0
    content = (tmp_path / "a.rrd").read_bytes()
    assert content.startswith(b"RRF2") and len(content) > 50_000
    for entity in (b"camera/image", b"camera/people", b"probability/"):
        assert entity in content
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert render(filmed, "jaad", tmp_path / "b.rrd") == 1
    assert "needs rerun-sdk" in (said := capsys.readouterr().err) and "vidreason[rerun]" in said
    assert not (tmp_path / "b.rrd").exists()


def test_a_forecasts_file_is_drawn_as_its_overlay(film, predicted, tmp_path):
    folder, out = predicted[0], tmp_path / "again.mp4"
    line = ["render", str(folder / "forecasts.parquet"), "--video", str(film / "street.mp4")]
    assert cli.main([*line, "--out", str(out), "--height", "90"]) == 0
    again, first = video(out)[3], video(folder / "overlay.mp4")[3]
    assert len(again) == len(first)
    # A forecasts file contains neither edges nor other kinds.
    assert (
        np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(again, first, strict=True)]) < 12
    )


def test_decompositions_become_filmstrips_and_animations(digits, tmp_path):
    assert cli.main(["render", str(digits), "--clips", "2", "--out", str(tmp_path / "s")]) == 0
    names = {f"clip_0000{k}{suffix}" for k in range(2) for suffix in (".png", ".gif")}
    assert {path.name for path in (tmp_path / "s").iterdir()} == names
    assert cli.main(["render", str(digits), "--out", str(tmp_path / "a.mp4")]) == 0
    assert video(tmp_path / "a.mp4")[0] == "h264"
    assert cli.main(["render", str(digits), "--out", str(tmp_path / "a.bmp")]) == 1


def test_bad_options_are_one_line_and_leave_no_files(filmed, tmp_path, capsys):
    run, out = filmed[0] / "run", tmp_path / "a.mp4"
    (tmp_path / "short.mp4").write_bytes(b"no video")
    write_video(tmp_path / "other.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5, 30)
    cases = [
        (run, out, ["--clip", filmed[1][:-1]], "did you mean"),
        ("jaad", out, ["--start", "100"], "--start: 100.0 s is after the end at"),
        (run, out, ["--height", "3"], "--height: must be between 64 and 4320, got 3"),
        (run, out, ["--seconds", "0"], "--seconds: must be greater than 0, got 0.0"),
        (run, tmp_path / "a.avi", [], "must end in .mp4, .gif or .rrd, got"),
        ("jaad", tmp_path / "a.avi", [], "must end in .mp4, .gif or .rrd, got"),
        ("jaad", out, ["--video", str(tmp_path / "none.mp4")], "no such file"),
        ("jaad", out, ["--video", str(tmp_path / "short.mp4")], "short.mp4"),
        ("jaad", out, ["--video", str(tmp_path / "other.mp4")], "give the right video"),
        ("nobody", out, [], "nobody"),
        (tmp_path / "short.mp4", out, [], "short.mp4"),
    ]
    for source, path, words, problem in cases:
        assert render(filmed, source, path, *words) == 1, words
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert problem in line, line
    line = ["render", "jaad", "--out", str(out), "--root", str(filmed[0] / "jaad")]
    assert cli.main(line) == 1
    assert "--clip: is not given" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"short.mp4", "other.mp4"}


def test_predictions_of_other_pedestrians_are_refused(filmed):
    found = read_predictions(filmed[0] / "run/predictions-train.parquet")
    scene = next(s for s in read_jaad(filmed[0] / "jaad") if s.id == filmed[1])
    renamed = dataclasses.replace(scene, track_ids=tuple(f"x{n}" for n in scene.track_ids))
    with pytest.raises(DataError, match="has predictions of pedestrians that are not in"):
        of_predictions(found, renamed)


def test_an_interruption_leaves_no_partial_files(filmed, tmp_path, monkeypatch):
    real, calls = Overlay.__call__, []

    def stumble(self, *args):
        calls.append(args)
        if len(calls) == 20:
            signal.raise_signal(signal.SIGINT)
        return real(self, *args)

    monkeypatch.setattr(Overlay, "__call__", stumble)
    for name in ("a.mp4", "a.gif"):
        calls.clear()
        assert render(filmed, "jaad", tmp_path / name) == 130
    assert not list(tmp_path.iterdir())
