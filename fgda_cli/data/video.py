"""Frames of videos, cameras, network streams, and of standard input."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..runtime.errors import FgdaError, UsageError
from .images import BadFile

STREAM = re.compile(r"^(camera:\d+|(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://\S+)$", re.IGNORECASE)
STDIN = "-"
USUAL_RATE = 25.0  # frames/s, where a stream does not say its own


@dataclass(frozen=True)
class Clip:
    """Selection of a video's frames: every N-th, from `start` to `end` seconds."""

    every: int = 1
    start: float = 0.0
    end: float | None = None

    def rate(self, rate: float) -> float:
        return rate / self.every

    def length(self, frames: int, rate: float) -> int:
        """Estimate how many frames are taken from a video of this many frames."""
        last = frames if self.end is None else min(frames, round(self.end * rate))
        return max(1, -(-max(0, last - round(self.start * rate)) // self.every))


def parse_time(text: str | None, option: str) -> float | None:
    """Read `90`, `1:30` or `0:01:30.5` as seconds. Raises UsageError."""
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) > 3 or not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts):
        raise UsageError(f"{option} {text}: seconds, or minutes:seconds, e.g. 1:30")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part)
    return seconds


class Frame(NamedTuple):
    """A frame of a video."""

    number: int  # from 1 on
    seconds: float  # its own time, from 0 on
    image: np.ndarray  # RGB [H,W,3]
    rate: float  # frames a second, on average


class CutShort(BadFile):
    """A video that ends before its header says so; its frames up to there were read."""


Reader = Iterator[tuple[float | None, Callable[[], np.ndarray], float]]  # time where it is known, pixels, frames a second
MISSING = 0.02  # share of the frames that a header may count too many: some containers only estimate


def frames_of(source: str, clip: Clip = Clip()) -> Iterator[Frame]:
    """Yield the frames of a file, camera, address or standard input that a clip takes, with their own times.

    Raises BadFile where there is no frame, and CutShort after the last one of a damaged video.
    """
    reader = _from_stdin() if source == STDIN else _from_capture(source)
    begun = taken = number = 0
    ended, last = False, -1.0
    damaged: CutShort | None = None
    try:
        for number, (known, read, rate) in enumerate(reader, 1):
            seconds = known if known is not None and known > last else last + 1 / rate if number > 1 else 0.0
            last = seconds
            if clip.end is not None and seconds >= clip.end:
                ended = True
                break
            if seconds < clip.start:
                continue
            begun += 1
            if (begun - 1) % clip.every:
                continue
            taken += 1
            yield Frame(number, seconds, read(), rate)
    except CutShort as error:
        damaged = error
    if not taken:
        raise damaged or BadFile("no frame between --start and --end" if clip != Clip() else "no video that can be read")
    expected = None if ended or source == STDIN or STREAM.match(source) else frames_in_header(source)
    if damaged is not None:
        raise damaged
    if expected is not None and number < expected - max(1, MISSING * expected):
        raise CutShort(f"{number} of the {expected} frames that its header counts can be read: the file is damaged or cut short")


def _from_capture(source: str) -> Reader:
    try:
        capture = cv2.VideoCapture(int(source.partition(":")[2]) if source.lower().startswith("camera:") else source)
    except UnicodeEncodeError:
        raise BadFile("a video whose name is not UTF-8 cannot be opened: rename it") from None
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0.1 < rate < 1000 else USUAL_RATE
        timed = not STREAM.match(source)
        while capture.grab():  # decoded only where it is wanted
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if timed else None
            yield seconds, lambda: np.ascontiguousarray(capture.retrieve()[1][..., ::-1]), rate
    finally:
        capture.release()


def _from_stdin() -> Reader:
    """Any container or a row of JPEG or PNG images, as `ffmpeg … -f image2pipe -c:v mjpeg -` writes them."""
    import sys

    av = library("reading frames from standard input")
    count = 0
    try:
        with av.open(sys.stdin.buffer, mode="r") as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or USUAL_RATE)
            first = None
            for frame in container.decode(stream):
                count += 1
                first = frame.time if first is None else first
                seconds = None if frame.time is None or first is None else frame.time - first
                yield seconds, lambda frame=frame: _upright(frame), rate
            if count < stream.frames - max(1, MISSING * stream.frames):
                raise CutShort(f"{count} of the {stream.frames} frames that its header counts can be read")
    except (av.FFmpegError, IndexError) as error:
        error_class = CutShort if count else BadFile
        raise error_class(f"standard input holds no {'more ' if count else ''}frames that can be read ({error})") from error


def _upright(frame: Any) -> np.ndarray:
    """RGB `[H,W,3]`, turned as the video's metadata say (a telephone held upright)."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def frames_in_header(source: str) -> int:
    """Return how many frames a file's header declares; 0 when it declares none."""
    capture = cv2.VideoCapture(source)
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def frame_count(source: str, clip: Clip = Clip()) -> int | None:
    """Return the number of frames for the progress bar, from the header; None for a stream."""
    if source == STDIN or STREAM.match(source):
        return None
    capture = cv2.VideoCapture(source)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        return clip.length(max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), rate)
    finally:
        capture.release()


def library(what: str) -> Any:
    """Import PyAV. Raises FgdaError that says how to install it."""
    try:
        import av
    except ImportError:
        raise FgdaError(f"{what} needs the package av: pip install 'fgda[video]'") from None
    return av
