"""Entropy heat maps (eq. 4) with a colour bar."""

from __future__ import annotations

import cv2
import numpy as np

from .colour import INK, PAPER, write

# pixels of the colour bar's column
BAR = 64


def heat(values: np.ndarray) -> np.ndarray:
    """Convert values `[H,W]` in [0,1] to RGB: dark is 0, bright is 1."""
    grey = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def heat_with_bar(values: np.ndarray) -> np.ndarray:
    """Draw the heat map at its own size, and right of it a bar from 0 to 1."""
    height = values.shape[0]
    column = np.full((height, BAR, 3), PAPER, np.uint8)
    margin = min(12, height // 4)
    scale = np.linspace(1, 0, max(1, height - 2 * margin), dtype=np.float32)[:, None]
    column[margin : margin + len(scale), 8:26] = heat(np.repeat(scale, 18, axis=1))
    if height >= 48:
        cv2.rectangle(column, (8, margin), (25, height - margin - 1), INK, 1)
        for value in (0.0, 0.5, 1.0) if height >= 96 else (0.0, 1.0):
            y = int(margin + (1 - value) * (len(scale) - 1))
            cv2.line(column, (26, y), (30, y), INK, 1)
            write(column, f"{value:g}", (33, y + 4), scale=0.4)
    return np.ascontiguousarray(np.hstack([heat(values), column]))
