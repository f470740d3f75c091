"""Whether labels lie on their images, whose strong edges are where classes meet, and whether
colours are what labels say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from .geometry import resize_ids, resize_image
from .images import evenly_spaced, read_rgb
from .layouts.base import Pair

# pairs that are looked at, how many of them are needed to say something, and their width then
PAIRS = 8
LEAST = 4
WIDTH = 256
# mean difference of the borders' rank (0 to 1) from which on another orientation fits better;
# right labels of four data sets fit better than wrong ones by 0.05 to 0.18
CLEAR = 0.03
TURNS = {
    "upside down": lambda ids: ids[::-1],
    "mirrored": lambda ids: ids[:, ::-1],
    "turned by 180 degrees": lambda ids: ids[::-1, ::-1],
}
# share of an image from which its sky is looked at
SEEN = 0.01
# how much redder than blue (of 255) a sky is when channels are swapped; the median of three data
# sets is -10, -18 and -35
RED = 5.0


def border_rank(image: np.ndarray, ids: np.ndarray) -> float:
    """Return the mean rank (0 to 1) of the image gradient on the borders of ids `[H,W]`: 0.5 by
    chance, NaN without a border.
    """
    border = np.zeros(ids.shape, bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    if not border.any():
        return float("nan")
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    # the image's noise is no edge
    grey = cv2.GaussianBlur(grey, (0, 0), 1.0)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    gradient = np.hypot(across, down)
    # a border one pixel off is on the edge still
    gradient = cv2.dilate(gradient, np.ones((3, 3), np.uint8))
    # how many pixels of the image have a weaker gradient than each pixel of the border
    weaker = np.searchsorted(np.sort(gradient.ravel()), gradient[border])
    return float(weaker.mean() / gradient.size)


# an image RGB `[h,w,3]` and train ids `[h,w]`, both WIDTH wide
Sample = tuple[np.ndarray, np.ndarray]


def samples_of(pairs: Sequence[Pair], read_label: Callable[[Path], np.ndarray]) -> list[Sample]:
    """Return some pairs whose labels are images, reduced; those that cannot be read are left
    out.
    """
    samples = []
    for pair in evenly_spaced([pair for pair in pairs if _is_drawn(pair)], PAIRS):
        try:
            image = read_rgb(pair.image)
            ids = read_label(pair.label)
        except Exception:  # noqa: BLE001 - refused later, by name, whatever is wrong with it
            continue
        if ids.shape != image.shape[:2]:
            continue
        size = (WIDTH, max(8, round(WIDTH * ids.shape[0] / ids.shape[1])))
        samples.append((resize_image(image, size), resize_ids(ids, size)))
    return samples


def better_orientation(samples: list[Sample]) -> str | None:
    """Return how labels would have to be turned to lie on their images, in words, where that fits
    every sample better; None otherwise. Simulators that read a frame back from a GPU write it
    upside down.
    """
    if len(samples) < LEAST:
        return None
    as_they_are = np.array([border_rank(image, ids) for image, ids in samples])
    gains = {
        name: np.array([border_rank(image, turn(ids)) for image, ids in samples]) - as_they_are
        for name, turn in TURNS.items()
    }
    best = max(gains, key=lambda name: gains[name].mean())
    # NaN, of a label of one class, is not > 0
    return best if (gains[best] > 0).all() and gains[best].mean() > CLEAR else None


def has_red_sky(samples: list[Sample], sky: int) -> bool:
    """Return whether the sky is redder than blue in nearly all samples that show one: images whose
    channels were written in BGR order look so, and sunsets, and nights under lamps.
    """
    reds = []
    for image, ids in samples:
        pixels = image[ids == sky].astype(np.float64)
        if len(pixels) >= SEEN * ids.size:
            red, _, blue = pixels.mean(0)
            reds.append(red - blue)
    return len(reds) >= LEAST and float(np.quantile(reds, 0.25)) > 0 and np.median(reds) > RED


def has_sky_below(samples: list[Sample], sky: int, road: int) -> bool:
    """Return whether the sky lies below the road in all samples that show both: frames that are
    upside down with their labels, or ids read by another numbering.
    """
    below = []
    for _, ids in samples:
        heights = [np.nonzero(ids == train_id)[0] for train_id in (sky, road)]
        if min(map(len, heights)) >= SEEN * ids.size:
            of_sky, of_road = (rows.mean() for rows in heights)
            below.append(of_sky > of_road)
    return len(below) >= LEAST and all(below)


def _is_drawn(pair: Pair) -> bool:
    """Whether a pair's label is an image of its own."""
    return pair.label is not None and pair.shapes is None
