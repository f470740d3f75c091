"""Tables of IoU for the terminal: results of `evaluate`, and what changed between two; at most 80
columns wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics import MEANS
from .tables import show, show_interval, under

if TYPE_CHECKING:
    from rich.table import Table


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


# columns that every table fits
WIDTH = 80
# checkpoints beside each other, by number
ABREAST = 7


def iou_table(headings: list[str], results: list[dict[str, Any]]):
    """Return results of `evaluate` as a table for the terminal: a line above, one row a class, the
    means below.

    Checkpoints stand beside each other under their headings where that fits 80 columns; else each
    has a number, its means are a row of a table of their own, and the classes follow, some
    checkpoints at a time.
    """
    from rich.console import Console, Group

    title = (
        f"IoU % on {results[0]['dataset']} / {results[0]['split']} ({results[0]['images']} images)"
    )
    beside = _beside(headings, results, means=True)
    needed = (
        17
        + sum(max(len(heading), 6) + 3 for heading in headings)
        + (14 if _spans(results) and len(results) == 1 else 0)
    )
    if len(results) == 1 or (
        needed <= WIDTH and Console(width=WIDTH).measure(beside).minimum <= WIDTH
    ):
        return under(title, beside)
    numbers = [str(number) for number in range(1, len(results) + 1)]
    parts = [_means(headings, numbers, results)]
    for first in range(0, len(results), ABREAST):
        columns = slice(first, first + ABREAST)
        parts.append(_beside(numbers[columns], results[columns], means=False))
    return under(title, Group(*parts))


def _spans(results: list[dict[str, Any]]) -> bool:
    return any(result.get("intervals") for result in results)


def _beside(headings: list[str], results: list[dict[str, Any]], means: bool):
    """A column a checkpoint, a row a class that any of them has."""
    from rich.table import Table

    # columns that belong to one result do not fit beside several
    is_alone = len(results) == 1 and means
    columns = columns_of(results[0]) if is_alone else []
    table = Table()
    table.add_column("class", no_wrap=True)
    for heading in (*headings, *(column.heading for column in columns)):
        table.add_column(heading, justify="right", overflow="fold")
    for name in dict.fromkeys(name for result in results for name in result["classes"]):
        more = (column.of_class(name) for column in columns)
        table.add_row(name, *(show(result["iou"].get(name)) for result in results), *more)
    if means:
        table.add_section()
        _add_means(table, results, columns, is_alone)
    return table


def _add_means(
    table: Table, results: list[dict[str, Any]], columns: list[Column], is_alone: bool
) -> None:
    """Add the rows below the classes: mIoU and other means that any result has."""
    if any("shared" in result for result in results):
        count = len(results[0]["shared"]["classes"])
        table.add_row(
            f"mIoU of {count}",
            *(show(result["shared"]["miou"]) for result in results),
            style="bold",
        )
    for key, label in MEANS.items():
        if any(result.get(key) is not None for result in results):
            own = " (own)" if key == "miou" and "shared" in results[0] else ""
            more = (column.of_mean if key == "miou" else "" for column in columns)
            table.add_row(
                f"{label}{own}",
                *(show(result.get(key)) for result in results),
                *more,
                style="bold" if key == "miou" else "",
            )
    for label, value in _extra_means(results):
        if not is_alone or label == "calibration error":
            table.add_row(label, *(value(result) for result in results))


def _extra_means(results: list[dict[str, Any]]):
    """Label and text of what `--boundary`, `--intervals` and `--calibration` added."""
    rows = []
    if all(result.get("boundary") for result in results):
        rows.append(("boundary mIoU", lambda result: show(result["boundary"]["miou"])))
    if all(result.get("intervals") for result in results):
        rows.append(
            (
                "mIoU, 95 %",
                lambda result: show_interval(
                    (result.get("shared") or {}).get("interval") or result["intervals"]["miou"]
                ),
            )
        )
    if all(result.get("calibration") for result in results):
        rows.append(("calibration error", lambda result: show(result["calibration"]["ece"])))
    return rows


SHORT = {
    "mIoU (16)": "of 16",
    "mIoU (13)": "of 13",
    "pixel accuracy": "pixels",
    "boundary mIoU": "border",
    "mIoU, 95 %": "95 %",
    "calibration error": "ECE",
}


def _means(headings: list[str], numbers: list[str], results: list[dict[str, Any]]):
    """A row a checkpoint."""
    from rich.table import Table

    columns = [
        (label, lambda result, key=key: show(result.get(key)))
        for key, label in MEANS.items()
        if any(result.get(key) is not None for result in results)
    ]
    if "shared" in results[0]:
        count = len(results[0]["shared"]["classes"])
        columns.insert(0, (f"of {count}", lambda result: show(result["shared"]["miou"])))
        columns = [("own mIoU" if label == "mIoU" else label, value) for label, value in columns]
    columns += _extra_means(results)
    table = Table()
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("checkpoint", overflow="fold")
    for label, _ in columns:
        table.add_column(SHORT.get(label, label), justify="right", no_wrap=True)
    for number, heading, result in zip(numbers, headings, results, strict=True):
        table.add_row(number, heading, *(value(result) for _, value in columns))
    return table


def change_table(heading: str, change: dict[str, Any]):
    """Return a change of IoU by class with its interval; classes that it clearly harmed or helped
    are marked.
    """
    from rich.table import Table

    table = Table()
    for title, justify in (("class", "left"), ("change", "right"), ("95 %", "right"), ("", "left")):
        table.add_column(title, justify=justify, no_wrap=True)
    for name, entry in (*change["iou"].items(), ("mIoU", change["miou"])):
        bounds = entry["interval"]
        span = f"{bounds[0]:+.1f} to {bounds[1]:+.1f}" if bounds else "–"
        mark = "worse" if name in change["harmed"] else "better" if name in change["helped"] else ""
        if name == "mIoU" and bounds:
            mark = "worse" if bounds[1] < 0 else "better" if bounds[0] > 0 else ""
        table.add_row(
            name, f"{entry['change']:+.1f}", span, mark, style="bold" if name == "mIoU" else ""
        )
    return under(heading, table)
