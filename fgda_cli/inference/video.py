"""Frames in and a playable file out: videos, cameras, network streams, frames on standard input."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.images import BadFile
from ..runtime.errors import FgdaError
from ..runtime.files import whole_file

STREAM = re.compile(r"^(camera:\d+|(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://\S+)$", re.IGNORECASE)
STDIN = "-"
USUAL_RATE = 25.0  # frames/s, where a stream does not say its own
ENCODERS = ("libx264", "h264", "mpeg4")  # the first that the library has


@dataclass(frozen=True)
class Clip:
    """Which frames of a video: every N-th, from `start` to `end` seconds."""

    every: int = 1
    start: float = 0.0
    end: float | None = None

    def rate(self, rate: float) -> float:
        return rate / self.every

    def length(self, frames: int, rate: float) -> int:
        """About how many frames it takes of a video of so many."""
        last = frames if self.end is None else min(frames, round(self.end * rate))
        return max(1, -(-max(0, last - round(self.start * rate)) // self.every))


def parse_time(text: str | None, option: str) -> float | None:
    """`90`, `1:30`, `0:01:30.5` as seconds. Raises UsageError."""
    from ..runtime.errors import UsageError

    if text is None:
        return None
    parts = text.split(":")
    if len(parts) > 3 or not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts):
        raise UsageError(f"{option} {text}: seconds, or minutes:seconds, e.g. 1:30")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part)
    return seconds


def frames_of(source: str, clip: Clip = Clip()) -> Iterator[tuple[int, np.ndarray, float]]:
    """`(number from 1, RGB [H,W,3], frames/s)` of a file, camera or address, or of standard input.

    Raises BadFile where there is no frame.
    """
    reader = _from_stdin() if source == STDIN else _from_capture(source)
    found = False
    for number, (read, rate) in enumerate(reader, 1):
        seconds = (number - 1) / rate
        if clip.end is not None and seconds >= clip.end:
            break
        if seconds < clip.start or (number - 1 - round(clip.start * rate)) % clip.every:
            continue
        found = True
        yield number, read(), rate
    if not found:
        raise BadFile("no frame between --start and --end" if clip != Clip() else "no video that can be read")


def _from_capture(source: str) -> Iterator[tuple[Callable[[], np.ndarray], float]]:
    capture = cv2.VideoCapture(int(source.partition(":")[2]) if source.lower().startswith("camera:") else source)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0.1 < rate < 1000 else USUAL_RATE
        while capture.grab():  # decoded only where it is wanted
            yield lambda: np.ascontiguousarray(capture.retrieve()[1][..., ::-1]), rate
    finally:
        capture.release()


def _from_stdin() -> Iterator[tuple[Callable[[], np.ndarray], float]]:
    """Any container or a row of JPEG or PNG images, as `ffmpeg … -f image2pipe -c:v mjpeg -` writes them."""
    import sys

    av = library("reading frames from standard input")
    try:
        with av.open(sys.stdin.buffer, mode="r") as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or USUAL_RATE)
            for frame in container.decode(stream):
                yield lambda frame=frame: frame.to_ndarray(format="rgb24"), rate
    except (av.FFmpegError, IndexError) as error:
        raise BadFile(f"standard input holds no frames that can be read ({error})") from error


def frame_count(source: str, clip: Clip = Clip()) -> int | None:
    """As the header says, for the progress bar; None of a stream."""
    if source == STDIN or STREAM.match(source):
        return None
    capture = cv2.VideoCapture(source)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        return clip.length(max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), rate)
    finally:
        capture.release()


def library(what: str) -> Any:
    """PyAV. Raises FgdaError that says how to get it."""
    try:
        import av
    except ImportError:
        raise FgdaError(f"{what} needs the package av: pip install 'fgda[video]'") from None
    return av


@dataclass
class VideoFile:
    """One MP4, written frame by frame as they come in order; it takes its name when it is closed."""

    path: Path
    rate: float
    stack: ExitStack = field(default_factory=ExitStack)
    container: Any = None
    stream: Any = None
    shown: int = 0

    def add(self, picture: np.ndarray) -> None:
        """RGB `[H,W,3]`; later pictures are resized to the first one's size. Sides are made even, as the format asks."""
        av = library("--save video")
        if self.container is None:
            self._open(av, picture)
        size = (self.stream.width, self.stream.height)
        picture = np.ascontiguousarray(picture[: size[1], : size[0]])
        if picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = self.shown
        self.shown += 1
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def _open(self, av: Any, picture: np.ndarray) -> None:
        partial = self.stack.enter_context(whole_file(self.path))
        self.container = self.stack.enter_context(av.open(str(partial), mode="w", format="mp4"))
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        self.stream = self.container.add_stream(encoder, rate=Fraction(self.rate).limit_denominator(1001))
        self.stream.width, self.stream.height = (max(2, side - side % 2) for side in picture.shape[1::-1])
        self.stream.pix_fmt = "yuv420p"
        if encoder == "libx264":
            self.stream.options = {"crf": "20", "preset": "veryfast"}

    def close(self) -> None:
        if self.container is not None:
            for packet in self.stream.encode(None):
                self.container.mux(packet)
        self.stack.close()

    def give_up(self, error: BaseException) -> None:
        """Nothing of an unfinished file is left."""
        self.stack.__exit__(type(error), error, error.__traceback__)


class InOrder:
    """Calls `act(item)` for items that threads hand in with their numbers 0, 1, 2, … in any order, in order."""

    def __init__(self, act: Callable[[Any], None]):
        self.act, self.lock, self.waiting, self.next = act, threading.Lock(), {}, 0

    def put(self, number: int, item: Any) -> None:
        with self.lock:
            self.waiting[number] = item
            while self.next in self.waiting:
                self.act(self.waiting.pop(self.next))
                self.next += 1
