"""`vidreason predict --video`: forecasts, overlay and report of a video without annotation."""

import argparse
import signal

import av
import numpy as np

from vidreason import cli
from vidreason.commands import predict_video as command
from vidreason.perception.prepare import DEFAULT
from vidreason.perception.video import write_video
from vidreason.results.forecasts import read_forecasts
from vidreason.results.live import Live
from vidreason.runs.weights import DEFAULT_VIDEO
from vidreason.simulation.world import FPS


def predict(film, out, *more):
    line = ["predict", "--video", str(film / "street.mp4"), "--out", str(out)]
    return cli.main([*line, "--store", str(film / "store"), "--height", "360", *more])


def test_predict_video_writes_forecasts_overlay_and_report(predicted, filmed):
    out, said = predicted
    assert "latency" in said and str(out / "overlay.mp4") in said and "peak memory" in said
    found = read_forecasts(out / "forecasts.parquet")
    assert found.meta["model"] == str(filmed[0] / "run") and found.meta["video"] == "street.mp4"
    assert found.meta["words"] == "is crossing in 0.1 s" and found.meta["fps"] == FPS
    assert set(found["horizon"]) == {1, 2, 3}
    assert len(np.unique(found["frame"])) > 60 and len(np.unique(found["pedestrian"])) > 1
    with av.open(str(out / "overlay.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.height) == ("h264", 90)
        assert sum(1 for _ in file.decode(stream)) == found.meta["length"]
    page = (out / "report.html").read_text()
    assert "The video has no annotation" in page and "data:image/jpeg" in page
    assert len(list(out.iterdir())) == 3


def test_the_command_has_the_defaults_of_the_library():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--video", "x.mp4"])
    assert (args.weights, args.segmenter) == (DEFAULT_VIDEO, DEFAULT)


def test_an_interruption_leaves_no_partial_files(film, tmp_path, monkeypatch):
    calls = []

    def stumble(self, *args):
        calls.append(args)
        if len(calls) == 10:
            signal.raise_signal(signal.SIGINT)
        return real(self, *args)

    real = Live.__call__
    monkeypatch.setattr(Live, "__call__", stumble)
    assert predict(film, tmp_path / "out") == 130
    assert not list((tmp_path / "out").iterdir())


def test_bad_options_are_one_line(film, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "other.mp4").write_bytes((film / "street.mp4").read_bytes()[:5000])
    (tmp_path / "store").mkdir()
    cases = {
        ("--weights", "jaad_all"): "need ego, traffic",
        ("--weights", "moving_mnist"): "are of a decomposition model",
        ("--weights", "nobody"): "'nobody'",
        ("--height", "2"): "--height: must be between 64 and 4320, got 2",
        ("--store", str(tmp_path / "store")): "no such file",
    }
    for words, problem in cases.items():
        assert predict(film, out, *words) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert problem in line
    for path, problem in {"none.mp4": "no such file", "other.mp4": "was cut short"}.items():
        assert cli.main(["predict", "--video", str(tmp_path / path), "--out", str(out)]) == 1
        assert problem in capsys.readouterr().err
    assert cli.main(["predict", "--video"]) == 1
    assert "is given without a file" in capsys.readouterr().err
    assert not out.exists()


def test_a_store_of_another_video_is_refused(film, tmp_path, capsys):
    write_video(tmp_path / "street.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5, 30)
    line = ["predict", "--video", str(tmp_path / "street.mp4"), "--out", str(tmp_path / "out")]
    assert cli.main([*line, "--store", str(film / "store")]) == 1
    assert "was made from a video of another size or length" in capsys.readouterr().err
