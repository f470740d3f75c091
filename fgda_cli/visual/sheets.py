"""Sheets that set pictures side by side under headings."""

from __future__ import annotations

import cv2
import numpy as np

from ..data.classes import ClassSet
from .colour import PAPER, legend, write

GAP, HEAD = 6, 26


def grid(rows: list[list[np.ndarray]], headings: list[str], cell: tuple[int, int]) -> np.ndarray:
    """Rows of RGB pictures, each resized to `cell` (width, height), under one heading a column."""
    width, height = cell
    sheet = np.full((HEAD + len(rows) * (height + GAP) + GAP, len(headings) * (width + GAP) + GAP, 3), PAPER, np.uint8)
    for column, heading in enumerate(headings):
        write(sheet, heading, (GAP + column * (width + GAP), HEAD - 8))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            x, y = GAP + column * (width + GAP), HEAD + row * (height + GAP)
            small = cv2.resize(np.ascontiguousarray(picture), cell, interpolation=cv2.INTER_AREA)
            sheet[y : y + height, x : x + width] = small
    return sheet


def with_legend(sheet: np.ndarray, classes: ClassSet) -> np.ndarray:
    """The class legend below a sheet."""
    key = legend(classes, columns=max(2, sheet.shape[1] // 170), width=sheet.shape[1])
    return np.vstack([sheet, key])
