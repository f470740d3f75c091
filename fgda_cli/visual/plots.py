"""Charts, drawn by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.files import whole_file


def bars(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """One bar a method: mean mIoU with its spread, single seeds as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.0 * len(rows), 3.6), layout="constrained")
    axes = figure.subplots()
    names = [row["method"] for row in rows]
    axes.bar(names, [row["mean"] for row in rows], yerr=[row["spread"] or 0 for row in rows], capsize=4, color="#4682b4")
    for place, row in enumerate(rows):
        axes.plot([place] * len(row["seeds"]), list(row["seeds"].values()), "o", color="#222222", markersize=3)
        axes.annotate(f"{row['mean']:.1f}", (place, 1), ha="center", va="bottom", color="white", fontweight="bold")
    axes.set_ylabel("mIoU %")
    axes.set_title(title)
    axes.tick_params(axis="x", rotation=30)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
