"""A playable file of pictures, written in the order of their times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.video import library
from ..runtime.files import whole_file

# unit of the times in the file, seconds
TICK = Fraction(1, 90_000)
# Numbers of FFmpeg: colours are written as players assume them, and say so.
LIMITED = 1
BT709 = 1
# the first that the library has
ENCODERS = ("libx264", "h264", "mpeg4")


@dataclass
class VideoFile:
    """One MP4, written frame by frame as they come in order; it takes its name when it is
    closed.
    """

    path: Path
    # frames a second, on average
    rate: float
    stack: ExitStack = field(default_factory=ExitStack)
    container: Any = None
    stream: Any = None
    # time of the first frame
    first: float | None = None
    # the time of the one before, in ticks
    last: int = -1

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Add an RGB picture `[H,W,3]`, shown at its own time, counted from the first one's. Later
        pictures are resized to the first one's size, whose sides are made even, as the format asks.
        """
        av = library("--save video")
        if self.container is None:
            self._open(av, picture)
        size = (self.stream.width, self.stream.height)
        picture = np.ascontiguousarray(picture[: size[1], : size[0]])
        if picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.color_range = LIMITED
        frame.colorspace = BT709
        self.first = seconds if self.first is None else self.first
        self.last = max(self.last + 1, round((seconds - self.first) / TICK))
        frame.pts = self.last
        frame.time_base = TICK
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def _open(self, av: Any, picture: np.ndarray) -> None:
        partial = self.stack.enter_context(whole_file(self.path))
        self.container = self.stack.enter_context(av.open(str(partial), mode="w", format="mp4"))
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        self.stream = self.container.add_stream(
            encoder, rate=Fraction(self.rate).limit_denominator(1001)
        )
        self.stream.width, self.stream.height = (
            max(2, side - side % 2) for side in picture.shape[1::-1]
        )
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = TICK
        coded = self.stream.codec_context
        coded.color_range = LIMITED
        coded.colorspace = coded.color_primaries = coded.color_trc = BT709
        if encoder == "libx264":
            self.stream.options = {"crf": "20", "preset": "veryfast"}

    def close(self) -> None:
        if self.container is not None:
            for packet in self.stream.encode(None):
                self.container.mux(packet)
        self.stack.close()

    def give_up(self, error: BaseException) -> None:
        """Delete an unfinished file."""
        self.stack.__exit__(type(error), error, error.__traceback__)


class InOrder:
    """Calls `act(item)` for items that threads hand in with their numbers 0, 1, 2, … in any order,
    in order.
    """

    def __init__(self, act: Callable[[Any], None]):
        self.act = act
        self.lock = threading.Lock()
        self.waiting = {}
        self.next = 0

    def put(self, number: int, item: Any) -> None:
        with self.lock:
            self.waiting[number] = item
            while self.next in self.waiting:
                self.act(self.waiting.pop(self.next))
                self.next += 1
