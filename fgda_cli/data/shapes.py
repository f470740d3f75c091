"""Labels drawn from outlines and run lengths (COCO, Labelme)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .classes import IGNORE_INDEX
from .images import MAX_PIXELS, BadFile

# pixels from the origin beyond which no outline reaches
FAR = 1e6
Polygon = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Shape:
    """An area of one class: the union of outlines, or run lengths (COCO), or a mask `[h,w]` at a
    place (Labelme).
    """

    train_id: int
    polygons: tuple[Polygon, ...] = ()
    # {"size": [H, W], "counts": list or string}
    runs: Any = None
    mask: tuple[int, int, np.ndarray] | None = None  # x, y, values


@dataclass(frozen=True)
class Shapes:
    """All areas of one image of `size` (width, height)."""

    size: tuple[int, int]
    shapes: tuple[Shape, ...]

    def stamp(self) -> str:
        """Return a hash of the content, for the cache."""
        return hashlib.sha256(repr((self.size, self.shapes)).encode()).hexdigest()[:16]


def draw(drawing: Shapes) -> np.ndarray:
    """Draw shapes as train ids, uint8 `[H,W]`; later shapes cover earlier ones, 255 elsewhere.

    Raises BadFile.
    """
    width, height = drawing.size
    size = drawing.size
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise BadFile(f"its image is said to be {width}x{height}")
    label = np.full((height, width), IGNORE_INDEX, np.uint8)
    for shape in drawing.shapes:
        if shape.polygons:
            label[inside(size, shape.polygons)] = shape.train_id
        if shape.runs is not None:
            label[decode_runs(size, shape.runs)] = shape.train_id
        if shape.mask is not None:
            x, y, values = shape.mask
            left = max(0, -x)
            top = max(0, -y)
            window = label[max(0, y) : y + values.shape[0], max(0, x) : x + values.shape[1]]
            mask = values[top : top + window.shape[0], left : left + window.shape[1]]
            window[mask > 0] = shape.train_id
    return label


def inside(size: tuple[int, int], polygons: Sequence[Polygon]) -> np.ndarray:
    """Return the pixels `[H,W]` whose centre lies within any of the outlines; x and y count from
    the image's upper left corner.

    Outlines are united, as pycocotools does: parts of one object may overlap, and neither COCO nor
    Labelme has holes. An outline that crosses itself is filled by the even-odd rule. The drawing
    functions of image libraries colour every pixel that an outline touches: a pole one pixel wide
    becomes two.
    """
    width, height = size
    filled = np.zeros((height, width), bool)
    for polygon in polygons:
        points = _points(polygon)
        # Its own box, not the whole image, is filled.
        left, right = (
            int(np.clip(math.floor(x), 0, width))
            for x in (points[:, 0].min(), points[:, 0].max() + 1)
        )
        top, bottom = (
            int(np.clip(math.floor(y), 0, height))
            for y in (points[:, 1].min(), points[:, 1].max() + 1)
        )
        toggles = np.zeros((bottom - top, right - left + 1), bool)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            rows = np.arange(max(top, math.ceil(y0 - 0.5)), min(bottom, math.ceil(y1 - 0.5)))
            if len(rows):
                crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(np.int64)
                toggles[rows - top, columns - left] ^= True
        filled[top:bottom, left:right] |= np.logical_xor.accumulate(toggles, axis=1)[
            :, : right - left
        ]
    return filled


def _points(polygon: Polygon) -> np.ndarray:
    """`[N,2]` float64. Raises BadFile."""
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise BadFile("an outline is not a list of at least three points")
    if not np.isfinite(points).all() or np.abs(points).max() > FAR:
        raise BadFile("an outline has a point that is not finite, or far from any image")
    return points


def decode_runs(size: tuple[int, int], runs: Any) -> np.ndarray:
    """Decode COCO's run lengths (down the columns, zeros first, plain or compressed) to a mask
    `[H,W]`. Raises BadFile.
    """
    width, height = size
    if not isinstance(runs, dict) or runs.get("size") != [height, width]:
        raise BadFile(f"run lengths that are not of its size, {width}x{height}")
    counts = runs.get("counts")
    counts = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(
        type(count) is int and 0 <= count <= width * height for count in counts
    ):
        raise BadFile("run lengths that cannot be read")
    if sum(counts) != width * height:
        raise BadFile(f"run lengths of {sum(counts)} pixels, the image has {width * height}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Each count in groups of 5 bits from character 48 on, the lowest first; from the fourth on
    less the one two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise BadFile("run lengths that cannot be read")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts
