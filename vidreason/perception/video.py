"""Reading and writing of video files, frame by frame; incomplete or damaged files are refused.

FFmpeg treats the end of a truncated file as the end of the video, and conceals decoding errors.
Therefore the packets are counted first and compared with the length in the container, every packet
must decode to a frame, and no frame may be corrupt. FFmpeg gets an open file of a known format, not
a path, since it interprets paths as URLs, image patterns and playlists.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic

SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
_SLACK = 1.5  # frames that may be missing at the end if only a duration is stored
_MAX_PIXELS = 1 << 26
_FIX = "copy or download the file again"


class Video:
    """A video file.

    Args:
        path: mp4, mov, avi, mkv or webm file.

    Attributes:
        path: Path of the file.
        width: Width of a frame, pixels.
        height: Height of a frame, pixels.
        fps: Mean frame rate.
        length: F, counted frames.

    Raises:
        DataError: The file is missing, empty, of another format, contains no video, or was cut
            short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (container, stream):
            self.width, self.height = stream.width, stream.height
            if not 0 < self.width * self.height <= _MAX_PIXELS or not stream.average_rate:
                size = f"{self.width} x {self.height} pixels"
                problem = f"frames of {size} at {stream.average_rate} per second cannot be read"
                raise DataError(path, problem, _FIX)
            self.fps = float(stream.average_rate)
            packets = container.demux(stream)
            self.length = sum(bool(p.size) and not p.is_discard for p in packets)
            promised = stream.frames or round(_seconds(container, stream) * self.fps)
            if promised - self.length < _SLACK * (not stream.frames):
                promised = self.length
            if not self.length or self.length < promised:
                problem = f"contains {self.length} of {promised} frames, so it was cut short"
                raise DataError(path, problem, _FIX)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        kind = _format(self.path)
        try:
            with self.path.open("rb") as file, av.open(file, "r", kind) as container:
                if not container.streams.video:
                    raise DataError(self.path, "contains no video", "give a video file")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise DataError(self.path, "the codec of the video is unknown", _FIX)
                stream.thread_type = "AUTO"
                yield container, stream
        except (av.FFmpegError, ValueError) as error:
            problem = f"is damaged ({' '.join(str(error).split())})"
            raise DataError(self.path, problem, _FIX) from None

    def frames(
        self, every: int = 1, size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields frame number, from 0, and image (H, W, 3) uint8 RGB of every nth frame.

        Args:
            every: n.
            size: Width and height to scale to, pixels; default: no scaling.

        Raises:
            DataError: A frame is damaged or missing, or stored with a rotation: annotated boxes may
                refer to either orientation, and no file says to which. A file is known to be
                complete only after its last frame.
        """
        count = 0
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                place = f"frame {count}"
                if frame.is_corrupt:
                    raise DataError(self.path, "is damaged", _FIX, place)
                if frame.rotation:
                    problem = f"is stored with a rotation of {frame.rotation} degrees"
                    fix = "write the rotated frames to a new file, for example with ffmpeg"
                    raise DataError(self.path, problem, fix)
                if (frame.width, frame.height) != (self.width, self.height):
                    problem = f"the size changes to {frame.width} x {frame.height}"
                    raise DataError(self.path, problem, "split the file at this frame", place)
                if count % every == 0:
                    wide, tall = size or (self.width, self.height)
                    yield count, frame.to_ndarray(width=wide, height=tall, format="rgb24")
                count += 1
        if count != self.length:
            problem = f"only {count} of {self.length} frames can be decoded"
            raise DataError(self.path, problem, _FIX)


@contextmanager
def video_writer(
    path: Path, fps: float, quality: int = 23
) -> Iterator[Callable[[np.ndarray], None]]:
    """Opens an mp4 file (H.264, which browsers play) for writing.

    The file appears when all frames have been written.

    Args:
        path: Output file.
        fps: Frame rate.
        quality: CRF of x264; smaller values give better quality and larger files.

    Yields:
        Function that writes a frame (H, W, 3) uint8 RGB with even H and W.
    """
    stream: VideoStream | None = None
    with (
        write_atomic(path) as temporary,
        av.open(temporary, "w", format="mp4", options={"movflags": "+faststart"}) as file,
    ):

        def write(frame: np.ndarray) -> None:
            nonlocal stream
            if stream is None:
                stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(quality), "preset": "veryfast"}
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        yield write
        if stream is not None:
            file.mux(stream.encode())


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, quality: int = 23) -> None:
    """Writes all frames of an iterable; see `video_writer`."""
    with video_writer(path, fps, quality) as write:
        for frame in frames:
            write(frame)


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    """Returns the duration of a container that stores no frame count; 0 if it stores neither."""
    if text := stream.metadata.get("DURATION"):
        hours, minutes, seconds = text.split(":")
        return (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    # With an audio stream, the container can be longer than the video.
    alone = len(container.streams) == 1
    return (container.duration or 0) / av.time_base if alone else 0.0


def _format(path: Path) -> str:
    """Returns FFmpeg's name of the container format, by the first bytes of the file."""
    if "://" in str(path) or ":/" in str(path):
        raise DataError(path, "is a URL", "download the file and give its path")
    if not path.exists():
        raise DataError(path, "no such file or folder", "check the path")
    if not path.is_file():
        raise DataError(path, "is not a file", "give a video file")
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        raise DataError(path, "is empty", _FIX)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mov"
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return "avi"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    problem = "is not an mp4, mov, avi, mkv or webm file"
    raise DataError(path, problem, "convert it, for example with ffmpeg")
