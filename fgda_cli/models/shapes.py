"""Sizes of maps as plain numbers."""

from __future__ import annotations

from torch import Tensor


def sides(maps: Tensor) -> tuple[int, int]:
    """Return height and width of maps `[B,C,H,W]` as numbers; in a trace (TorchScript) a shape
    holds tensors.
    """
    height, width = maps.shape[-2:]
    return int(height), int(width)
