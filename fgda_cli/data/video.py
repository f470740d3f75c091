"""Frames of videos, cameras, network streams, and of standard input."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..runtime.errors import FgdaError, UsageError
from .images import BadFile

STREAM = re.compile(r"^(camera:\d+|(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://\S+)$", re.IGNORECASE)
STDIN = "-"
# frames/s, where a stream does not say its own
USUAL_RATE = 25.0


@dataclass(frozen=True)
class Clip:
    """Selection of a video's frames: every N-th, from `start` to `end` seconds, of one of its
    streams (from 0. None: the best).

    `reconnect` opens a network stream again when it breaks.
    """

    every: int = 1
    start: float = 0.0
    end: float | None = None
    stream: int | None = None
    reconnect: bool = False

    def rate(self, rate: float) -> float:
        return rate / self.every

    def length(self, frames: int, rate: float) -> int:
        """Estimate how many frames are taken from a video of this many frames."""
        last = frames if self.end is None else min(frames, round(self.end * rate))
        return max(1, -(-max(0, last - round(self.start * rate)) // self.every))

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end is None


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
    # time in the video, from 0 on
    seconds: float
    image: np.ndarray  # RGB [H,W,3]
    # frames a second, on average
    rate: float


class CutShort(BadFile):
    """A video that ends before its header says so, or has a hole; its other frames were read."""


class Noticed(CutShort):
    """Return what to warn of after all frames of a video are read."""


class Broken(BadFile):
    """A network stream or camera that ended, though it has no end; its frames up to there were
    read.
    """


# Time where it is known, pixels, frames a second.
Reader = Iterator[tuple[float | None, Callable[[], np.ndarray], float]]
Notice = Callable[[BadFile], None]
# share of the frames that a header may count too many: some containers only estimate
MISSING = 0.02
# seconds without an answer of a network stream
TIMEOUT = 20.0
# packets that tell a video from a cover
PROBED = 1000
# seconds between two attempts to open a stream again
LONGEST_WAIT = 30.0


def is_live(source: str) -> bool:
    """Return whether a source gives frames as they come: a camera, or an address that is no file
    with an end.
    """
    return bool(STREAM.match(source)) and (
        source.lower().startswith("camera:") or not _has_end(source)
    )


def without_secrets(text: str) -> str:
    """Return a text in which no address carries a user's name or password."""
    return re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]*@", r"\1", text)


def frames_of(
    source: str, clip: Clip = Clip(), notice: Notice = lambda what: None
) -> Iterator[Frame]:
    """Yield the frames of a file, camera, address or standard input that a clip takes, with their
    own times.

    `notice` is called with warnings while frames come. Raises BadFile where there is no
    frame, CutShort after the last one of a damaged video, and Broken where a stream without an end
    has ended.
    """
    begun = taken = number = 0
    ended = False
    last = -1.0
    damaged: BadFile | None = None
    try:
        for number, (known, read, rate) in enumerate(_reader(source, clip, notice), 1):
            seconds = (
                known
                if known is not None and known > last
                else last + 1 / rate
                if number > 1
                else 0.0
            )
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
            yield Frame(number, seconds, read(), rate=rate)
    except (CutShort, Broken) as error:
        damaged = error
    if not taken:
        raise damaged or BadFile(
            "no video that can be read" if clip.is_whole else "no frame between --start and --end"
        )
    if damaged is not None and not ended:
        raise damaged


def _reader(source: str, clip: Clip, notice: Notice) -> Reader:
    if source.lower().startswith("camera:"):
        return _from_camera(source)
    if source != STDIN and STREAM.match(source):
        return _from_network(source, clip, notice)
    return _from_container(source, clip, notice)


def _from_camera(source: str) -> Reader:
    capture = cv2.VideoCapture(int(source.partition(":")[2]))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0.1 < rate < 1000 else USUAL_RATE
        count = 0
        # decoded only where it is wanted
        while capture.grab():
            count += 1
            yield None, lambda: np.ascontiguousarray(capture.retrieve()[1][..., ::-1]), rate
        raise (
            Broken(f"the camera gives no more frames after {count}")
            if count
            else BadFile("no such camera")
        )
    finally:
        capture.release()


def _from_network(source: str, clip: Clip, notice: Notice) -> Reader:
    """Frames of an address; with `clip.reconnect` it is opened again whenever it breaks, and times
    go on.
    """
    offset = latest = 0.0
    wait = 1.0
    while True:
        try:
            for seconds, read, rate in _from_container(source, clip, notice):
                latest = offset + (seconds if seconds is not None else 0.0)
                wait = 1.0
                yield (None if seconds is None else latest), read, rate
            if not is_live(source):
                return
            problem: BadFile = Broken("the stream has ended")
        except BadFile as error:
            problem = error
        if not clip.reconnect:
            raise problem if isinstance(problem, Broken) or not latest else Broken(str(problem))
        notice(Noticed(f"{problem}; trying again in {wait:.0f} s (Ctrl-C ends it)"))
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
        offset = latest


def _from_container(source: str, clip: Clip, notice: Notice) -> Reader:
    """Frames of a file, an address or standard input: any container, or a row of JPEG or PNG
    images.

    Packets that cannot be decoded are passed over, so that a hole costs its own frames alone.
    """
    av = library("reading videos")
    so_far = _SoFar(notice)
    try:
        with _opened(av, source) as container:
            stream = _chosen(av, source, container, clip=clip, notice=notice)
            rate = float(stream.average_rate or 0)
            rate = rate if 0.1 < rate < 1000 else USUAL_RATE
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    so_far.holes += 1
                    continue
                for frame in frames:
                    seconds = so_far.add(frame)
                    yield seconds, partial(_upright, frame, stream.sample_aspect_ratio), rate
            expected = stream.frames
    except av.FFmpegError as error:
        reason = without_secrets(getattr(error, "strerror", None) or str(error))
        if so_far.count:
            raise CutShort(f"{so_far.count} frames can be read, then no more ({reason})") from None
        raise BadFile(f"no video that can be read ({reason})") from None
    except UnicodeEncodeError:
        raise BadFile("a video whose name is not UTF-8 cannot be opened: rename it") from None
    so_far.check(expected)


@dataclass
class _SoFar:
    """What has been read of a container."""

    notice: Notice
    count: int = 0
    # parts that could not be decoded
    holes: int = 0
    # time of the first frame, seconds
    first: float | None = None
    # of the last frame: width, height
    size: tuple[int, int] | None = None

    def add(self, frame: Any) -> float | None:
        """Count a frame; return its seconds since the first one, where both have a time."""
        self.count += 1
        size = (frame.width, frame.height)
        if self.size not in (None, size):
            self.notice(Noticed("its frames change from {}x{} to {}x{}".format(*self.size, *size)))
        self.size = size
        if self.first is None:
            self.first = frame.time
        return None if frame.time is None or self.first is None else frame.time - self.first

    def check(self, expected: int) -> None:
        """Raise CutShort at the end, where frames are missing that the header counts, or parts were
        damaged.
        """
        if self.count < expected - max(1, MISSING * expected):
            raise CutShort(
                f"{self.count} of the {expected} frames that its header counts can be read: the"
                " file is damaged or cut short"
            )
        if self.holes and self.count:
            raise CutShort(
                f"{self.count} frames can be read, {self.holes} parts of the video are damaged"
            )


@contextmanager
def _opened(av: Any, source: str) -> Iterator[Any]:
    if source == STDIN:
        import sys

        with av.open(sys.stdin.buffer, mode="r") as container:
            yield container
        return
    options = {"rtsp_transport": "tcp"} if source.lower().startswith("rtsp") else {}
    timeout = TIMEOUT if STREAM.match(source) else None
    with av.open(source, mode="r", options=options, timeout=timeout) as container:
        yield container


def _chosen(av: Any, source: str, container: Any, clip: Clip, notice: Notice) -> Any:
    """The video stream to read: the one asked for, else the largest real one; covers and thumbnails
    are none. Others are said.
    """
    streams = list(container.streams.video)
    if not streams:
        raise BadFile("it holds no video stream")
    if clip.stream is not None:
        if clip.stream >= len(streams):
            raise BadFile(
                f"--stream {clip.stream}: it has {len(streams)} video streams, counted from 0"
            )
        return streams[clip.stream]
    if len(streams) == 1:
        return streams[0]
    counts = _packets(av, source)
    real = [stream for stream in streams if not _is_cover(av, stream)] or streams

    def has_motion(stream: Any) -> bool:
        return counts.get(stream.index, stream.frames) not in (1, 2)

    best = max(
        real, key=lambda stream: (has_motion(stream), stream.width * stream.height, -stream.index)
    )
    others = [stream for stream in real if stream is not best and has_motion(stream)]
    if others:
        shown = ", ".join(
            f"{streams.index(stream)} ({stream.width}x{stream.height})" for stream in others
        )
        notice(
            Noticed(
                f"stream {streams.index(best)} is read; other video streams: {shown} (--stream"
                " reads another)"
            )
        )
    return best


def _is_cover(av: Any, stream: Any) -> bool:
    disposition = getattr(stream, "disposition", 0)
    kinds = av.stream.Disposition
    return bool(disposition & (kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image))


def _packets(av: Any, source: str) -> dict[int, int]:
    """Return how many packets each video stream has at a file's beginning; nothing for what cannot
    be read twice.
    """
    if source == STDIN or STREAM.match(source):
        return {}
    with _opened(av, source) as container:
        counts = dict.fromkeys((stream.index for stream in container.streams.video), 0)
        for packet in islice(container.demux(*container.streams.video), PROBED):
            counts[packet.stream.index] += bool(packet.size)
    return counts


def _upright(frame: Any, shape: Fraction | None = None) -> np.ndarray:
    """RGB `[H,W,3]` in square pixels, turned as the video's metadata say (a telephone held
    upright).
    """
    image = frame.to_ndarray(format="rgb24")
    if shape and shape != 1:
        size = (max(1, round(image.shape[1] * float(shape))), image.shape[0])
        image = cv2.resize(
            image, size, interpolation=cv2.INTER_LINEAR if shape > 1 else cv2.INTER_AREA
        )
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _has_end(source: str) -> bool:
    """Return whether an address is a file with a known length."""
    if not source.lower().startswith(("http://", "https://")):
        return False
    av = library("reading videos")
    try:
        with _opened(av, source) as container:
            return bool(container.duration)
    except (av.FFmpegError, OSError):
        return False


def frame_count(source: str, clip: Clip = Clip()) -> int | None:
    """Return the number of frames for the progress bar, from the header; None for a stream."""
    if source == STDIN or STREAM.match(source):
        return None
    av = library("reading videos")
    try:
        with _opened(av, source) as container:
            stream = _chosen(av, source, container, clip=clip, notice=lambda what: None)
            rate = float(stream.average_rate or USUAL_RATE)
            frames = stream.frames or round((container.duration or 0) / 1e6 * rate)
            return clip.length(max(1, frames), rate)
    except (av.FFmpegError, OSError, BadFile, UnicodeEncodeError):
        # refused by name when it is read
        return 1


def library(what: str) -> Any:
    """Import PyAV. Raises FgdaError that says how to install it."""
    try:
        import av
    except ImportError:
        raise FgdaError(f"{what} needs the package av: pip install 'fgda[video]'") from None
    return av
