"""Sizes: how images and labels are resized, and at which size an image enters the network
(docs/input-size.md).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..runtime.errors import UsageError
from ..settings import LARGEST_SIDE

Size = tuple[int, int]  # width, height
Resample = Literal["area", "bicubic", "bilinear", "linear"]
# pixels that enter a network: 8K video
LARGEST_AREA = 2**25
# relative difference up to which two aspects count as the same
SAME_ASPECT = 0.05


def resize_image(image: np.ndarray, size: Size, resample: Resample = "area") -> np.ndarray:
    """Resize an RGB uint8 image to (width, height); an image of that size is returned as it is,
    without a copy.

    `area`: mean over the covered pixels where it shrinks, bilinear where it grows. `bicubic` and
    `bilinear`: Pillow's, as the published data loaders and evaluations resize. `linear`: OpenCV's
    between four pixels, as mmsegmentation does.
    """
    import cv2

    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    if resample in ("bicubic", "bilinear"):
        from PIL import Image

        return np.asarray(
            Image.fromarray(image).resize(tuple(size), Image.Resampling[resample.upper()])
        )
    how = cv2.INTER_AREA if resample == "area" and image.shape[1] > size[0] else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), tuple(size), interpolation=how)


def resize_ids(ids: np.ndarray, size: Size) -> np.ndarray:
    """Resize labels, masks or id maps `[H,W]` to (width, height): the pixel at the centre, as
    Pillow's nearest.

    OpenCV's plain INTER_NEAREST takes the pixel at the corner, which shifts labels half a pixel off
    their image; its INTER_NEAREST_EXACT is Pillow's from OpenCV 5 on alone.
    """
    if (ids.shape[1], ids.shape[0]) == tuple(size):
        return ids
    return ids.take(_centres(ids.shape[0], size[1]), 0).take(_centres(ids.shape[1], size[0]), 1)


def cut_to(pixels: np.ndarray, like: Size) -> np.ndarray:
    """Return the largest middle part of an image or label `[H,W,...]` that has the aspect of
    (width, height).
    """
    height, width = pixels.shape[:2]
    factor = min(width / like[0], height / like[1])
    wide, high = (
        max(1, min(own, round(side * factor)))
        for own, side in ((width, like[0]), (height, like[1]))
    )
    left = (width - wide) // 2
    top = (height - high) // 2
    return np.ascontiguousarray(pixels[top : top + high, left : left + wide])


def _centres(inputs: int, outputs: int) -> np.ndarray:
    """The input pixel in which the centre of each output pixel lies; centres are added up one by
    one, as Pillow does.
    """
    step = inputs / outputs
    return np.cumsum(np.concatenate([[step / 2], np.full(outputs - 1, step)])).astype(np.int64)


def same_aspect(first: Size, second: Size) -> bool:
    return abs(first[0] / first[1] / (second[0] / second[1]) - 1) <= SAME_ASPECT


@dataclass(frozen=True)
class InputRule:
    """The size at which an image enters the network; one rule for validation, evaluate, predict,
    compare and report.

    An image of the aspect of `size`, or of `trained_on` (the images that the preset squeezes to
    `size`), enters at `size`. Where these are `rows` of frames, a whole frame enters as much higher
    than `size` as it is: what it shows is as large as in training. Every other image keeps its
    aspect and enters with as many pixels as `size` has. Several scales multiply this size.
    """

    size: Size
    # width and height of the images that were resized to `size`. None: same aspect
    trained_on: Size | None = None
    resample: Resample = "area"
    # every image enters at `size`, as in the published evaluations
    squeeze_all: bool = False
    # every image keeps its aspect and fits into `size`, as mmsegmentation resizes
    within: bool = False
    # the rows that were kept of the frames, in percent of their height from the top
    rows: tuple[float, float] | None = None

    def __call__(self, width: int, height: int) -> Size:
        """Return the network size of an image of this width and height."""
        if self.within:
            scale = min(self.size[0] / width, self.size[1] / height)
            return tuple(max(32, int(side * scale + 0.5)) for side in (width, height))
        if self.squeeze_all or any(
            same_aspect((width, height), like) for like in (self.size, self.trained_on or self.size)
        ):
            return self.size
        if self.rows is not None and same_aspect((width, height), self._whole(self.trained_on)):
            return self.whole_size
        scale = (self.size[0] * self.size[1] / (width * height)) ** 0.5
        return tuple(
            int(np.clip(round(side * scale / 8) * 8, 64, 8192)) for side in (width, height)
        )

    @property
    def whole_size(self) -> Size:
        """Return the size at which a whole frame enters, of which `rows` were trained on."""
        width, height = self._whole(self.size)
        return width, max(32, round(height / 8) * 8)

    def rows_in_words(self) -> str:
        """Return what a network with `rows` was trained on, as messages begin."""
        return "trained on rows {:g} to {:g} % of each frame".format(*self.rows)

    def _whole(self, part: Size | None) -> tuple[int, float]:
        """Width and height of a frame, given those of its rows (None: of `size`)."""
        width, height = part or self.size
        top, bottom = self.rows or (0, 100)
        return width, height * 100 / (bottom - top)

    def to_json(self) -> dict:
        return {
            "size": list(self.size),
            "trained_on": list(self.trained_on) if self.trained_on else None,
            "resample": self.resample,
            "squeeze_all": self.squeeze_all,
            **({"within": True} if self.within else {}),
            **({"rows": list(self.rows)} if self.rows else {}),
        }

    def resize(self, image: np.ndarray, size: Size) -> np.ndarray:
        return resize_image(image, size, self.resample)

    @classmethod
    def from_json(cls, value: dict) -> InputRule:
        """Read an input rule. Raises ValueError (pydantic's) for a damaged one."""
        from pydantic import ConfigDict, TypeAdapter, with_config

        # a key that is not known may decide what is computed
        strict = with_config(ConfigDict(extra="forbid"))(cls)
        rule = TypeAdapter(strict).validate_python(value)
        too_large = max(rule.size) > LARGEST_SIDE or rule.size[0] * rule.size[1] > LARGEST_AREA
        if min(*rule.size, *(rule.trained_on or rule.size)) < 1 or too_large:
            raise ValueError(f"an input size of {rule.size[0]}x{rule.size[1]}")
        if rule.rows is not None and not 0 <= rule.rows[0] < rule.rows[1] <= 100:
            raise ValueError(f"rows {rule.rows[0]:g} to {rule.rows[1]:g} of a frame")
        return rule


def parse_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Read `1280x720` as (1280, 720). Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text.lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 32 or max(size) > LARGEST_SIDE:
        raise UsageError(
            f"{option} {text}: write it as WIDTHxHEIGHT, from 32x32 to {LARGEST_SIDE} a side, e.g."
            " 1280x720"
        )
    return size


def typed_pair(pair: list[float]) -> str:
    """Return a size (whole pixels) or rows (percent) of a manifest as `parse_size` and `parse_rows`
    read them.
    """
    return ("x" if isinstance(pair[0], int) else ":").join(f"{part:g}" for part in pair)


def parse_rows(text: str | None) -> tuple[float, float] | None:
    """Read `29:70`, percent of the height from the top, as (29.0, 70.0). Raises UsageError."""
    if text is None:
        return None
    try:
        top, bottom = (float(part.removesuffix("%")) for part in text.split(":"))
    except ValueError:
        top = bottom = math.nan
    if not 0 <= top < bottom <= 100:
        raise UsageError(
            f"--rows {text}: write it as TOP:BOTTOM in percent of the height, e.g. 29:70"
        )
    return top, bottom
