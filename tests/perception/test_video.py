import shutil
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from vidreason.core.errors import DataError
from vidreason.perception.video import Video, write_video

LENGTH, SIZE = 60, (96, 160)


def coded(number):
    """Returns a frame that encodes its number in 12 blocks; noise makes up most of the file."""
    bits = np.array([(number >> b) & 1 for b in range(12)]).reshape(3, 4)
    noise = np.random.default_rng(number).integers(0, 80, (*SIZE, 3))
    return (np.kron(bits, np.ones((32, 40), int))[..., None] * 170 + noise).astype(np.uint8)


def number_of(frame):
    centres = frame[16::32, 20::40, 0] > 127
    return int((centres.ravel() << np.arange(12)).sum())


def write(path, codec="libx264", options=None, length=LENGTH, audio=False):
    with av.open(path, "w", options=options or {}) as file:
        stream = file.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        if codec == "libx264":
            stream.options = {"g": "20", "bf": "2", "crf": "18"}
        track = file.add_stream("aac", rate=8000) if audio else None
        for n in range(length):
            picture = coded(n)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
        if track:
            for _ in range(length * 2 // 3):
                sample = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                sample.rate = 8000
                file.mux(track.encode(sample))
            file.mux(track.encode())
    return path


KINDS = {
    "mp4": ("a.mp4", "libx264", None),
    "mp4, index first": ("a.mp4", "libx264", {"movflags": "+faststart"}),
    "mkv": ("a.mkv", "libx264", None),
    "avi": ("a.avi", "mpeg4", None),
    "mov": ("a.mov", "mpeg4", None),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        kind: write(folder / f"{n}{name}", codec, options)
        for n, (kind, (name, codec, options)) in enumerate(KINDS.items())
    }


@pytest.fixture(params=KINDS)
def path(request, written, tmp_path):
    """A video file of each kind, which may be changed."""
    return Path(shutil.copy(written[request.param], tmp_path))


def test_frames_are_decoded_in_order(path):
    video = Video(path)
    assert (video.width, video.height, video.length) == (*SIZE[::-1], LENGTH)
    assert video.fps == pytest.approx(30)
    for every in (1, 7):
        seen = [(n, number_of(frame)) for n, frame in video.frames(every)]
        assert seen == [(n, n) for n in range(0, LENGTH, every)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.97])
def test_truncated_files_are_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        DataError, match=r"cut short|damaged|not an mp4|is empty|contains no video"
    ) as error:
        list(Video(path).frames())
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("at", [0.35, 0.5, 0.7])
def test_damage_in_the_middle_is_detected(path, at):
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    noise = np.random.default_rng(0).integers(0, 255, len(data) // 20 + 100)
    data[start : start + len(noise)] = noise.astype(np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged|cut short|decoded|contains no video"):
        list(Video(path).frames())


def test_audio_may_be_longer_than_the_video(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        assert Video(write(tmp_path / name, audio=True)).length == LENGTH


def test_rotated_videos_are_refused(tmp_path, written):
    path = tmp_path / "a.mp4"
    data = written["mp4"].read_bytes()
    upright = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">4I", 0, 1 << 16, 0, 0xFFFF0000) + struct.pack(">5I", 0, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    with pytest.raises(DataError, match="a rotation of -?90 degrees"):
        list(Video(path).frames())


def test_other_files_are_refused(tmp_path):
    cases = {
        "missing.mp4": (None, "no such file"),
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"a text, not a video\n" * 9, "is not an mp4, mov, avi, mkv or webm"),
        "list.mp4": (b"ffconcat version 1.0\nfile other.mp4\n", "is not an mp4"),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\na.mp4\n", "is not an mp4"),
        "head.mp4": (b"\0\0\0\x20ftypisom" + bytes(500), "damaged|contains no video|cut short"),
        "head.mkv": (b"\x1a\x45\xdf\xa3" + bytes(500), "damaged|contains no video"),
    }
    for name, (data, problem) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(DataError, match=problem) as error:
            Video(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    with pytest.raises(DataError, match="is not a file"):
        Video(tmp_path)


@pytest.mark.parametrize(
    "text", ["http://h/a.mp4", "concat:a.mp4|b.mp4", "im_%03d.png", "file:a.mp4"]
)
def test_ffmpeg_does_not_interpret_the_path(tmp_path, monkeypatch, written, text):
    monkeypatch.chdir(tmp_path)
    shutil.copy(written["mp4"], "a.mp4")
    with pytest.raises(DataError, match="is a URL|no such file"):
        Video(type(tmp_path)(text))


def test_audio_files_contain_no_video(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as file:
        track = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        file.mux(track.encode(frame))
        file.mux(track.encode())
    with pytest.raises(DataError, match="contains no video"):
        Video(tmp_path / "a.mp4")


def test_videos_are_written_completely_or_not_at_all(tmp_path):
    def images(fail):
        yield coded(0)
        if fail:
            raise RuntimeError
        yield coded(1)

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", images(True), 30)
    assert not list(tmp_path.iterdir())
    write_video(tmp_path / "a.mp4", images(False), 29.97)
    video = Video(tmp_path / "a.mp4")
    assert video.length == 2 and video.fps == pytest.approx(29.97, abs=1e-3)
