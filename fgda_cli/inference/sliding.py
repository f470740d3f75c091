"""Sliding windows: a network that takes small images sees a large one part by part, its logits
blended into one map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..chunked import index_of, reading_matrix
from ..losses import upsample

# weight of a point half a pixel beyond a window's outermost pixels
GAP = 1e-9


@dataclass(frozen=True)
class SlidingWindow:
    """Width and height of a window in the resized image, and the least share by which neighbours
    overlap.

    `blend` says how they become one map: "taper" by weights that fall to a window's border, at the
    network's stride; "mean" as the published evaluations (mmsegmentation, HRDA, MIC): the plain
    mean at the image's size.
    """

    size: tuple[int, int]
    overlap: float = 0.25
    blend: Literal["taper", "mean"] = "taper"

    def strides(self, length: int, window: int) -> list[int]:
        """Return where windows begin along a side in the published evaluations: by even steps, the
        last one moved back to the end.
        """
        step = max(1, int(window * (1 - self.overlap)))
        count = max(length - window + step - 1, 0) // step + 1
        return [max(0, min(index * step, length - window)) for index in range(count)]

    def starts(self, length: int, window: int) -> list[int]:
        """Return where windows begin along a side: evenly spaced, the first at 0, the last at the
        end.
        """
        if window >= length:
            return [0]
        step = max(1, int(window * (1 - self.overlap)))
        count = -(-(length - window) // step) + 1
        return [round(index * (length - window) / (count - 1)) for index in range(count)]


def sliding_logits(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    window: SlidingWindow,
    align_corners: bool = True,
) -> Tensor:
    """Return logits `[B,K,h,w]` of images `[B,3,H,W]` at the network's stride, as one forward pass
    of the whole image would.

    Each window's logits are read off at the whole map's points that lie in it, and averaged with
    weights that fall linearly to the window's border. Memory: one window's activations and the map.
    A window that covers the image is one plain forward.
    """
    height, width = images.shape[-2:]
    wide = min(window.size[0], width)
    high = min(window.size[1], height)
    if (high, wide) == (height, width):
        return forward(images)
    if window.blend == "mean":
        return _plain_mean(forward, images, window, size=(high, wide), align_corners=align_corners)
    total = weights = None
    for top in window.starts(height, high):
        for left in window.starts(width, wide):
            logits = forward(images[..., top : top + high, left : left + wide])
            if total is None:
                h, w = (
                    _points(whole, part, count, align_corners=align_corners)
                    for whole, part, count in zip(
                        (height, width), (high, wide), logits.shape[-2:], strict=True
                    )
                )
                total = logits.new_zeros(*logits.shape[:2], h, w)
                weights = logits.new_zeros(h, w)
            rows, down, vertical = _read_off(
                total.shape[2],
                height,
                top,
                part=high,
                count=logits.shape[2],
                like=logits,
                align_corners=align_corners,
            )
            columns, across, horizontal = _read_off(
                total.shape[3],
                width,
                left,
                part=wide,
                count=logits.shape[3],
                like=logits,
                align_corners=align_corners,
            )
            weight = vertical[:, None] * horizontal[None]
            total[..., rows, columns] += torch.matmul(torch.matmul(down, logits), across.T) * weight
            weights[rows, columns] += weight
    return total / weights


def _plain_mean(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    window: SlidingWindow,
    size: tuple[int, int],
    align_corners: bool,
) -> Tensor:
    """Logits `[B,K,H,W]`: each window's, enlarged to its (high, wide) pixels, averaged."""
    height, width = images.shape[-2:]
    high, wide = size
    total = None
    for top in window.strides(height, high):
        for left in window.strides(width, wide):
            rows = slice(top, top + high)
            columns = slice(left, left + wide)
            logits = upsample(forward(images[..., rows, columns]), size, align_corners)
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
                counts = logits.new_zeros(height, width)
            total[..., rows, columns] += logits
            counts[rows, columns] += 1
    return total / counts


def _points(whole: int, part: int, count: int, align_corners: bool) -> int:
    """Points of the whole map along a side, as dense as the `count` points of a window."""
    if align_corners:
        return max(2, round((whole - 1) * (count - 1) / max(part - 1, 1)) + 1)
    return max(1, round(whole * count / part))


def _read_off(
    points: int, whole: int, start: int, part: int, count: int, like: Tensor, align_corners: bool
) -> tuple[slice, Tensor, Tensor]:
    """Along a side: which points of the whole map lie in a window, the matrix `[n, count]` that
    reads them off the window's logits (linear), and their weights `[n]`."""
    position = index_of(
        torch.arange(points, dtype=torch.float64), whole, points, align_corners=align_corners
    )
    inside = torch.nonzero((position >= start - 0.5) & (position <= start + part - 0.5)).flatten()
    local = (position[inside] - start).clamp(0, part - 1)
    matrix = reading_matrix(index_of(local, count, part, align_corners=align_corners), count)
    weight = torch.minimum(local, part - 1 - local) + 1
    weight[local != position[inside] - start] = (
        # The point lies between two windows that do not overlap: it counts only if no window holds
        # it.
        GAP
    )
    first = int(inside[0])
    return slice(first, first + len(inside)), matrix.to(like), weight.to(like)
