"""Video files, decoded frame by frame and either whole or refused; and written frame by frame.

FFmpeg takes the end of a damaged file for its end, and conceals damaged pictures. So the packets
are counted first and held to what the file promises, every packet must become a picture, and every
picture must be sound. The file is handed over as a stream of bytes of a known kind: a path would
be a small program of its own, which opens addresses, patterns and play lists.
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
_SLACK = 1.5  # frames by which a stream may end before its container says
_MOST_PIXELS = 1 << 26
_AGAIN = "copy or fetch the file again"


class Video:
    """What a video file holds.

    Args:
        path: Of an mp4, mov, avi, mkv or webm file.

    Attributes:
        path: As given.
        width: Of a frame, pixels.
        height: Of a frame, pixels.
        fps: Mean frames per second.
        length: F, frames, by counting.

    Raises:
        DataError: Missing, empty, none of these formats, without video, cut short, or to be turned
            when shown (annotated boxes are of either orientation, and nothing says which).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (container, stream):
            self.width, self.height = stream.width, stream.height
            if not 0 < self.width * self.height <= _MOST_PIXELS or not stream.average_rate:
                problem = (
                    f"has frames of {self.width} x {self.height}, {stream.average_rate} a second"
                )
                raise DataError(path, problem, _AGAIN)
            self.fps = float(stream.average_rate)
            packets = container.demux(stream)
            self.length = sum(bool(p.size) and not p.is_discard for p in packets)
            promised = stream.frames or round(_seconds(container, stream) * self.fps)
            if promised - self.length < _SLACK * (not stream.frames):
                promised = self.length
            if not self.length or self.length < promised:
                problem = f"holds {self.length} of {promised} frames, so it was cut short"
                raise DataError(path, problem, _AGAIN)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        kind = _format(self.path)
        try:
            with self.path.open("rb") as file, av.open(file, "r", kind) as container:
                if not container.streams.video:
                    raise DataError(self.path, "holds no video", "give a file that does")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise DataError(self.path, "holds video of an unknown kind", _AGAIN)
                stream.thread_type = "AUTO"
                yield container, stream
        except (av.FFmpegError, ValueError) as error:
            problem = f"is damaged ({' '.join(str(error).split())})"
            raise DataError(self.path, problem, _AGAIN) from None

    def frames(
        self, every: int = 1, size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields number and picture (H, W, 3) uint8 RGB of every nth frame, counted from 0.

        Args:
            every: n.
            size: Width and height to scale to; the video's own if not given.

        Raises:
            DataError: A frame is damaged or missing; only after the last one is a file known to be
                whole.
        """
        count = 0
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                place = f"frame {count}"
                if frame.is_corrupt:
                    raise DataError(self.path, "is damaged", _AGAIN, place)
                if frame.rotation:
                    problem = f"is to be turned by {frame.rotation} degrees when shown"
                    mend = "write the turned pictures to a new file, for example with ffmpeg"
                    raise DataError(self.path, problem, mend)
                if (frame.width, frame.height) != (self.width, self.height):
                    problem = f"changes its size to {frame.width} x {frame.height}"
                    raise DataError(self.path, problem, "split the file there", place)
                if count % every == 0:
                    wide, tall = size or (self.width, self.height)
                    yield count, frame.to_ndarray(width=wide, height=tall, format="rgb24")
                count += 1
        if count != self.length:
            problem = f"only {count} of {self.length} frames can be decoded"
            raise DataError(self.path, problem, _AGAIN)


@contextmanager
def video_writer(
    path: Path, fps: float, quality: int = 23
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what writes a frame (H, W, 3) uint8 RGB of even sides, to H.264 in mp4.

    Browsers play it. The file appears when all frames have been written.

    Args:
        path: Of the new file.
        fps: Frames per second.
        quality: CRF of x264; smaller is better and larger.
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
    """Writes frames that are at hand, or made as they are asked for, by `video_writer`."""
    with video_writer(path, fps, quality) as write:
        for frame in frames:
            write(frame)


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    """How long the video of a container that counts no frames promises to be; 0 if it does not."""
    if text := stream.metadata.get("DURATION"):
        hours, minutes, seconds = text.split(":")
        return (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    # With sound, the container may go on for longer than the pictures.
    alone = len(container.streams) == 1
    return (container.duration or 0) / av.time_base if alone else 0.0


def _format(path: Path) -> str:
    """FFmpeg's name of the format, by the first bytes."""
    if "://" in str(path) or ":/" in str(path):
        raise DataError(path, "is an address", "fetch the file and give its path")
    if not path.exists():
        raise DataError(path, "no such file or folder", "check the path")
    if not path.is_file():
        raise DataError(path, "is no file", "give a video file")
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        raise DataError(path, "is empty", _AGAIN)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mov"
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return "avi"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    raise DataError(
        path, "is no mp4, mov, avi, mkv or webm file", "convert it, for example with ffmpeg"
    )
