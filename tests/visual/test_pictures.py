"""Pictures: right colours, right sizes."""

from __future__ import annotations

import numpy as np

from fgda_cli.data.classes import CITYSCAPES, PALETTE, ClassSet, distinct_palette
from fgda_cli.visual.pictures import (
    BAR,
    GAP,
    colourise,
    grid,
    heat,
    heat_with_bar,
    legend,
    overlay,
    with_legend,
)


def test_colourise_uses_the_palette_and_black_for_ignored():
    picture = colourise(np.array([[0, 18, 255]], np.uint8), CITYSCAPES)
    assert picture[0].tolist() == [list(PALETTE[0]), list(PALETTE[18]), [0, 0, 0]]


def test_overlay_is_half_way():
    image = np.full((1, 1, 3), 100, np.uint8)
    assert (
        np.abs(
            overlay(image, np.zeros((1, 1), np.uint8), CITYSCAPES)[0, 0] - np.array([114, 82, 114])
        ).max()
        <= 1
    )


def test_legend_shows_every_colour_for_any_number_of_classes():
    for classes in (
        CITYSCAPES,
        ClassSet(("one",), distinct_palette(1)),
        ClassSet(tuple(f"class {k}" for k in range(30)), distinct_palette(30)),
    ):
        colours = {tuple(c) for c in legend(classes).reshape(-1, 3).tolist()}
        assert set(classes.palette) <= colours


def test_heat_goes_from_dark_to_bright_and_its_bar_spans_the_scale():
    scale = heat(np.linspace(0, 1, 5)[None]).astype(int).sum(2)[0]
    assert (np.diff(scale) > 0).all()
    picture = heat_with_bar(np.zeros((120, 40), np.float32))
    assert picture.shape == (120, 40 + BAR, 3)
    column = picture[14:106, 40 + 15].astype(int).sum(1)
    assert column[0] > column[-1]


def test_grid_places_every_picture():
    colours = [np.full((4, 8, 3), value, np.uint8) for value in (10, 120, 230)]
    sheet = grid([colours, colours[::-1]], ["a", "b", "c"], width=40)
    # and rows of 20, as high as pictures of 2:1 ask for
    assert sheet.shape[1] == 3 * (40 + GAP) + GAP
    assert with_legend(sheet, CITYSCAPES).shape[1] == sheet.shape[1]
    for value in (10, 120, 230):
        assert (sheet == value).all(axis=2).sum() >= 2 * 40 * 20


def test_no_line_of_a_table_is_broken_at_80_columns():
    from rich.console import Console

    from fgda_cli.data.classes import NAMES
    from fgda_cli.visual.iou_tables import iou_table

    values = {
        "dataset": "playground-street",
        "split": "val",
        "images": 100,
        "classes": list(NAMES),
        "miou": 11.0,
        "miou16": 12.0,
        "miou13": 13.0,
        "pixel_accuracy": 50.0,
        "iou": dict.fromkeys(NAMES, 12.3),
    }
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(iou_table(["source only", "adapted"], [values, values]))
    lines = console.export_text().splitlines()
    assert lines[0] == "IoU % on playground-street / val (100 images)"
    # title, head, classes, rule, means, foot
    assert len(lines) == 1 + 3 + 19 + 1 + 4 + 1
