"""Sheets that set pictures side by side under headings."""

from __future__ import annotations

import cv2
import numpy as np

from ..data.classes import ClassSet
from .colour import PAPER, legend, write

GAP = 6
HEAD = 26


def grid(rows: list[list[np.ndarray | None]], headings: list[str], width: int = 256) -> np.ndarray:
    """Draw rows of RGB pictures under one heading a column; the first picture's aspect sets a row's
    height.

    None leaves a cell empty.
    """
    firsts = [next(picture for picture in row if picture is not None) for row in rows]
    heights = [
        int(np.clip(round(width * first.shape[0] / first.shape[1]), 16, 4 * width))
        for first in firsts
    ]
    sheet = np.full(
        (
            HEAD + sum(height + GAP for height in heights) + GAP,
            len(headings) * (width + GAP) + GAP,
            3,
        ),
        PAPER,
        np.uint8,
    )
    for column, heading in enumerate(headings):
        write(sheet, heading, (GAP + column * (width + GAP), HEAD - 8))
    y = HEAD
    for pictures, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(pictures):
            if picture is None:
                continue
            x = GAP + column * (width + GAP)
            small = cv2.resize(
                np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA
            )
            sheet[y : y + height, x : x + width] = small
        y += height + GAP
    return sheet


def contact_sheet(
    cells: list[tuple[np.ndarray, str, str]], classes: ClassSet, columns: int = 5, width: int = 260
) -> np.ndarray:
    """Draw RGB pictures in reading order, two lines of text below each, and the legend of the
    classes at the end.
    """
    columns = max(1, min(columns, len(cells)))
    text = 40
    heights = [
        int(np.clip(round(width * picture.shape[0] / picture.shape[1]), 16, 2 * width))
        for picture, _, _ in cells
    ]
    rows = [max(heights[first : first + columns]) for first in range(0, len(cells), columns)]
    sheet = np.full(
        (sum(row + text + GAP for row in rows) + GAP, columns * (width + GAP) + GAP, 3),
        PAPER,
        np.uint8,
    )
    for number, (picture, *lines) in enumerate(cells):
        x = GAP + (number % columns) * (width + GAP)
        y = GAP + sum(row + text + GAP for row in rows[: number // columns])
        small = cv2.resize(
            np.ascontiguousarray(picture), (width, heights[number]), interpolation=cv2.INTER_AREA
        )
        sheet[y : y + heights[number], x : x + width] = small
        for line, words in enumerate(lines):
            write(
                sheet,
                words[-width // 8 :] if line == 0 else words,
                (x, y + rows[number // columns] + 15 + 17 * line),
                scale=0.42,
            )
    return with_legend(sheet, classes)


def with_legend(sheet: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Add the class legend below a sheet."""
    key = legend(classes, columns=max(2, sheet.shape[1] // 170), width=sheet.shape[1])
    return np.vstack([sheet, key])
