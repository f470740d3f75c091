"""Columns beside IoU in tables of classes: what an evaluation was asked for besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .tables import show, show_interval


@dataclass(frozen=True)
class Column:
    """One column: its heading, the text of a class, and that of the mean over classes."""

    heading: str
    of_class: Callable[[str], str]
    of_mean: str


def columns_of(result: dict[str, Any]) -> list[Column]:
    """Return the columns of a result of `evaluate`; the terminal and the pages show the same."""
    columns = []
    if spans := result.get("intervals"):
        columns.append(
            Column(
                "95 %",
                lambda name: show_interval(spans["iou"].get(name)),
                show_interval(spans["miou"]),
            )
        )
    if borders := result.get("boundary"):
        columns.append(
            Column("boundary", lambda name: show(borders["iou"].get(name)), show(borders["miou"]))
        )
    return columns
