"""Tables fit 80 columns, and no number is cut."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from fgda_cli.visual.iou_tables import iou_table


def result(classes, miou, **more):
    iou = {name: 10.0 + 3 * k for k, name in enumerate(classes)}
    found = {
        "dataset": "set",
        "split": "val",
        "images": 9,
        "classes": list(classes),
        "iou": iou,
        "miou": miou,
        "miou16": None,
        "miou13": None,
        "pixel_accuracy": 88.8,
        "evaluated": list(classes),
    }
    return found | more


def text(table) -> str:
    console = Console(
        width=80, no_color=True, highlight=False, record=True, file=open("/dev/null", "w")
    )
    console.print(table)
    return console.export_text()


CLASSES = ("road", "traffic light", "sky")


@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_no_number_is_cut_whatever_the_number_of_checkpoints(count):
    """Case 41: "31.1–32", "30.9–31"."""
    spans = {"miou": (30.94, 31.87), "iou": dict.fromkeys(CLASSES, (1.0, 2.0))}
    names = [f"adapt-fgda-st-seed{number}" for number in range(count)]
    shown = text(
        iou_table(names, [result(CLASSES, 31.4 + k, intervals=spans) for k in range(count)])
    )
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("30.9–31.9") == count, shown
    for number in range(count):
        assert f"{31.4 + number:.1f}" in re.sub(r"\s", " ", shown)


def test_checkpoints_of_other_classes_stand_beside_each_other():
    """Case 32: a KeyError after all work; means over other classes side by side, without a word."""
    one = result(CLASSES, 50.0)
    two = result(("sky", "road"), 40.0)
    for entry in (one, two):
        entry["shared"] = {"classes": ["road", "sky"], "miou": 13.0}
    for order in ([one, two], [two, one]):
        shown = text(iou_table(["a", "b"], order))
        assert (
            "mIoU of 2" in shown
            and "mIoU (own)" in shown
            and "traffic light" in shown
            and "–" in shown
        )
