"""Colour maps, overlays and legends; all pictures are RGB uint8 `[H,W,3]`."""

from __future__ import annotations

import cv2
import numpy as np

from ..data.classes import ClassSet

INK = (30, 30, 30)
PAPER = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def colourise(train_ids: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Return train ids `[H,W]` in the class set's colours; ignored pixels are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    return table[train_ids]


def overlay(
    image: np.ndarray, train_ids: np.ndarray, classes: ClassSet, alpha: float = 0.5
) -> np.ndarray:
    """Blend the image with its colour map."""
    return cv2.addWeighted(
        np.ascontiguousarray(image), 1 - alpha, colourise(train_ids, classes), alpha, 0
    )


def write(
    picture: np.ndarray, text: str, origin: tuple[int, int], scale: float = 0.5, colour=INK
) -> None:
    cv2.putText(picture, text, origin, FONT, scale, colour, 1, cv2.LINE_AA)


def legend(classes: ClassSet, columns: int = 4, width: int = 760) -> np.ndarray:
    """Draw swatches and names of all classes, row by row."""
    rows = -(-len(classes) // columns)
    cell = width // columns
    picture = np.full((rows * 26 + 14, width, 3), PAPER, np.uint8)
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x = 10 + cell * (index % columns)
        y = 10 + 26 * (index // columns)
        cv2.rectangle(picture, (x, y), (x + 26, y + 18), colour, -1)
        cv2.rectangle(picture, (x, y), (x + 26, y + 18), INK, 1)
        write(picture, name[: max(4, (cell - 40) // 9)], (x + 34, y + 14))
    return picture
