import struct

import av
import numpy as np
import pytest

from vidreason.core.errors import DataError
from vidreason.perception.video import Video, write_video

LENGTH, SIZE = 60, (96, 160)


def coded(number):
    """A picture that says its number in 12 blocks; of the noise, files are mostly pictures."""
    bits = np.array([(number >> b) & 1 for b in range(12)]).reshape(3, 4)
    noise = np.random.default_rng(number).integers(0, 80, (*SIZE, 3))
    return (np.kron(bits, np.ones((32, 40), int))[..., None] * 170 + noise).astype(np.uint8)


def number_of(frame):
    middles = frame[16::32, 20::40, 0] > 127
    return int((middles.ravel() << np.arange(12)).sum())


def write(path, codec="libx264", options=None, length=LENGTH, sound=False):
    with av.open(path, "w", options=options or {}) as file:
        stream = file.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        if codec == "libx264":
            stream.options = {"g": "20", "bf": "2", "crf": "18"}
        voice = file.add_stream("aac", rate=8000) if sound else None
        for n in range(length):
            picture = coded(n)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
        if voice:
            for _ in range(length * 2 // 3):
                sample = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                sample.rate = 8000
                file.mux(voice.encode(sample))
            file.mux(voice.encode())
    return path


KINDS = {
    "mp4": ("a.mp4", "libx264", None),
    "mp4, index first": ("a.mp4", "libx264", {"movflags": "+faststart"}),
    "mkv": ("a.mkv", "libx264", None),
    "avi": ("a.avi", "mpeg4", None),
    "mov": ("a.mov", "mpeg4", None),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def path(request, tmp_path):
    name, codec, options = request.param
    return write(tmp_path / name, codec, options)


def test_frames_have_their_numbers(path):
    video = Video(path)
    assert (video.width, video.height, video.length) == (*SIZE[::-1], LENGTH)
    assert video.fps == pytest.approx(30)
    for every in (1, 7):
        seen = [(n, number_of(frame)) for n, frame in video.frames(every)]
        assert seen == [(n, n) for n in range(0, LENGTH, every)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.97])
def test_a_file_that_was_cut_is_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        DataError, match=r"cut short|damaged|no mp4|is empty|holds no video"
    ) as error:
        list(Video(path).frames())
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("at", [0.35, 0.5, 0.7])
def test_damage_in_the_middle_is_found(path, at):
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    noise = np.random.default_rng(0).integers(0, 255, len(data) // 20 + 100)
    data[start : start + len(noise)] = noise.astype(np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged|cut short|decoded|holds no video"):
        list(Video(path).frames())


def test_sound_that_goes_on_is_no_damage(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        assert Video(write(tmp_path / name, sound=True)).length == LENGTH


def test_pictures_to_be_turned_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4")
    data = path.read_bytes()
    upright = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">4I", 0, 1 << 16, 0, 0xFFFF0000) + struct.pack(">5I", 0, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    with pytest.raises(DataError, match="turned by -?90 degrees"):
        list(Video(path).frames())


def test_what_is_no_video_is_refused(tmp_path):
    cases = {
        "missing.mp4": (None, "no such file"),
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"a text, not a video\n" * 9, "is no mp4, mov, avi, mkv or webm"),
        "list.mp4": (b"ffconcat version 1.0\nfile other.mp4\n", "is no mp4"),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\na.mp4\n", "is no mp4"),
        "head.mp4": (b"\0\0\0\x20ftypisom" + bytes(500), "damaged|holds no video|cut short"),
        "head.mkv": (b"\x1a\x45\xdf\xa3" + bytes(500), "damaged|holds no video"),
    }
    for name, (data, problem) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(DataError, match=problem) as error:
            Video(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    with pytest.raises(DataError, match="is no file"):
        Video(tmp_path)


@pytest.mark.parametrize(
    "text", ["http://h/a.mp4", "concat:a.mp4|b.mp4", "im_%03d.png", "file:a.mp4"]
)
def test_a_path_is_no_program(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="is an address|no such file"):
        Video(type(tmp_path)(text))


def test_a_file_with_sound_only_holds_no_video(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as file:
        voice = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        file.mux(voice.encode(frame))
        file.mux(voice.encode())
    with pytest.raises(DataError, match="holds no video"):
        Video(tmp_path / "a.mp4")


def test_written_videos_are_whole_or_not_there(tmp_path):
    def pictures(fail):
        yield coded(0)
        if fail:
            raise RuntimeError
        yield coded(1)

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", pictures(True), 30)
    assert not list(tmp_path.iterdir())
    write_video(tmp_path / "a.mp4", pictures(False), 29.97)
    video = Video(tmp_path / "a.mp4")
    assert video.length == 2 and video.fps == pytest.approx(29.97, abs=1e-3)
