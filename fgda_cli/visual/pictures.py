"""Pictures: colour maps, overlays, heat maps of the entropy, sheets with a legend.

All are RGB uint8 `[H,W,3]`.
"""

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
    # what fits beside a swatch, a letter being 9 pixels wide
    letters = max(4, (cell - 40) // 9)
    picture = np.full((rows * 26 + 14, width, 3), PAPER, np.uint8)
    for index, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x = 10 + cell * (index % columns)
        y = 10 + 26 * (index // columns)
        cv2.rectangle(picture, (x, y), (x + 26, y + 18), colour, -1)
        # a frame, without which light colours would be lost on the paper
        cv2.rectangle(picture, (x, y), (x + 26, y + 18), INK, 1)
        write(picture, name[:letters], (x + 34, y + 14))
    return picture


# pixels of the colour bar's column
BAR = 64


def heat(values: np.ndarray) -> np.ndarray:
    """Convert values `[H,W]` in [0,1] to RGB: dark is 0, bright is 1."""
    grey = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def heat_with_bar(values: np.ndarray) -> np.ndarray:
    """Draw the heat map at its own size, and right of it a bar from 0 to 1."""
    column = _colour_bar(values.shape[0])
    return np.ascontiguousarray(np.hstack([heat(values), column]))


def _colour_bar(height: int) -> np.ndarray:
    """RGB `[height,BAR,3]`: a bar from 1 above to 0 below, with numbers where there is room."""
    column = np.full((height, BAR, 3), PAPER, np.uint8)
    margin = min(12, height // 4)
    scale = np.linspace(1, 0, max(1, height - 2 * margin), dtype=np.float32)[:, None]
    column[margin : margin + len(scale), 8:26] = heat(np.repeat(scale, 18, axis=1))
    if height < 48:
        return column
    cv2.rectangle(column, (8, margin), (25, height - margin - 1), INK, 1)
    for value in (0.0, 0.5, 1.0) if height >= 96 else (0.0, 1.0):
        y = int(margin + (1 - value) * (len(scale) - 1))
        cv2.line(column, (26, y), (30, y), INK, 1)
        write(column, f"{value:g}", (33, y + 4), scale=0.4)
    return column


GAP = 6
HEAD = 26


def grid(rows: list[list[np.ndarray | None]], headings: list[str], width: int = 256) -> np.ndarray:
    """Draw rows of RGB pictures under one heading a column; the first picture's aspect sets a row's
    height.

    None leaves a cell empty.
    """
    firsts = [next(picture for picture in row if picture is not None) for row in rows]
    heights = [_scaled_height(first, width, most=4 * width) for first in firsts]
    full_height = HEAD + sum(height + GAP for height in heights) + GAP
    full_width = len(headings) * (width + GAP) + GAP
    sheet = np.full((full_height, full_width, 3), PAPER, np.uint8)
    for column, heading in enumerate(headings):
        write(sheet, heading, (GAP + column * (width + GAP), HEAD - 8))
    y = HEAD
    for pictures, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(pictures):
            if picture is None:
                continue
            _place(sheet, picture, (GAP + column * (width + GAP), y), (width, height))
        y += height + GAP
    return sheet


def _scaled_height(picture: np.ndarray, width: int, most: int) -> int:
    """The height of a picture drawn `width` wide, from 16 to `most`."""
    height = round(width * picture.shape[0] / picture.shape[1])
    return int(np.clip(height, 16, most))


def _place(
    sheet: np.ndarray, picture: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    """Draw a picture into a sheet; its upper left corner is (x, y), its size (width, height)."""
    x, y = corner
    width, height = size
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    sheet[y : y + height, x : x + width] = small


def contact_sheet(
    cells: list[tuple[np.ndarray, str, str]], classes: ClassSet, columns: int = 5, width: int = 260
) -> np.ndarray:
    """Draw RGB pictures in reading order, two lines of text below each, and the legend of the
    classes at the end.
    """
    columns = max(1, min(columns, len(cells)))
    text = 40
    heights = [_scaled_height(picture, width, most=2 * width) for picture, _, _ in cells]
    # a row is as high as its highest picture
    rows = [max(heights[first : first + columns]) for first in range(0, len(cells), columns)]
    full_height = sum(row + text + GAP for row in rows) + GAP
    sheet = np.full((full_height, columns * (width + GAP) + GAP, 3), PAPER, np.uint8)
    for number, (picture, name, words) in enumerate(cells):
        row, column = divmod(number, columns)
        x = GAP + column * (width + GAP)
        y = GAP + sum(above + text + GAP for above in rows[:row])
        _place(sheet, picture, (x, y), (width, heights[number]))
        below = y + rows[row] + 15
        # the end of a long name tells frames apart
        write(sheet, name[-width // 8 :], (x, below), scale=0.42)
        write(sheet, words, (x, below + 17), scale=0.42)
    return with_legend(sheet, classes)


def with_legend(sheet: np.ndarray, classes: ClassSet) -> np.ndarray:
    """Add the class legend below a sheet."""
    key = legend(classes, columns=max(2, sheet.shape[1] // 170), width=sheet.shape[1])
    return np.vstack([sheet, key])
