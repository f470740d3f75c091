"""Charts, drawn by matplotlib without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.files import whole_file


def bars(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Draw one bar a method: mean mIoU with its spread, single seeds as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.0 * len(rows), 3.6), layout="constrained")
    axes = figure.subplots()
    names = [plain(row["method"]) for row in rows]
    axes.bar(
        names,
        [row["mean"] for row in rows],
        yerr=[row["spread"] or 0 for row in rows],
        capsize=4,
        color="#4682b4",
    )
    for position, row in enumerate(rows):
        axes.plot(
            [position] * len(row["seeds"]),
            list(row["seeds"].values()),
            "o",
            color="#222222",
            markersize=3,
        )
        axes.annotate(
            f"{row['mean']:.1f}",
            (position, 1),
            ha="center",
            va="bottom",
            color="white",
            fontweight="bold",
        )
    axes.set_ylabel("mIoU %")
    axes.set_title(plain(title))
    axes.tick_params(axis="x", rotation=30)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def label_curves(path: Path, curves: dict[str, list[dict[str, Any]]], title: str) -> None:
    """Draw mIoU over the number of labelled target images, a line a method; labels that are no
    number stand last, by name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    ticks = list(dict.fromkeys(row["labels"] for rows in curves.values() for row in rows))
    ticks.sort(key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0))
    for name, rows in curves.items():
        places = [ticks.index(row["labels"]) for row in rows]
        order = sorted(range(len(rows)), key=places.__getitem__)
        means, spreads = ([rows[n][key] or 0 for n in order] for key in ("mean", "spread"))
        axes.errorbar(
            [places[n] for n in order],
            means,
            yerr=spreads,
            marker="o",
            capsize=4,
            label=plain(name),
        )
    axes.set_xticks(range(len(ticks)), [Path(tick).name for tick in ticks])
    axes.set_xlabel("labelled target images")
    axes.set_ylabel("mIoU %")
    axes.set_title(plain(title))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def reliability(calibration: dict[str, Any]):
    """Draw how often predictions of a confidence are right, a bar a bin (the diagonal is perfect),
    and their number below.
    """
    from matplotlib.figure import Figure

    pixels = calibration["pixels"]
    right = calibration["right"]
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes, below = figure.subplots(2, height_ratios=[3, 1], sharex=True)
    width = 1 / len(pixels)
    total = max(sum(pixels), 1)
    middles = [(place + 0.5) * width for place in range(len(pixels))]
    axes.bar(
        middles,
        [r / p if p else 0 for r, p in zip(right, pixels, strict=True)],
        width,
        color="#4682b4",
        edgecolor="white",
    )
    axes.plot([0, 1], [0, 1], "--", color="#5a6673", linewidth=1)
    axes.set_ylabel("share that is right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    below.bar(middles, [100 * p / total for p in pixels], width, color="#9aa5b1", edgecolor="white")
    below.set_ylabel("pixels %")
    below.set_xlabel("confidence")
    return figure


def plain(text: str) -> str:
    """Return a name as matplotlib shows it: no formula between dollar signs, and not hidden for a
    leading underscore.
    """
    return (
        text.replace("$", r"\$").replace("_", " _", 1)
        if text.startswith("_")
        else text.replace("$", r"\$")
    )


def curves(
    series: dict[str, list[tuple[int, float]]],
    over: str = "iteration",
    of: str = "",
    log: bool = True,
    sides: int = 0,
):
    """Draw one line a name, `of` over `over`; the axis is logarithmic (`log`) when the values span
    decades. Where the names are of `sides`, all of one first, a side has a colour. The figure is
    small, so that its words can be read on a telephone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    of_side = len(series) // sides if sides else 1
    for number, (name, points) in enumerate(series.items()):
        marker = "o" if len(points) < 12 else None
        axes.plot(
            *zip(*points, strict=True),
            label=plain(name),
            color=f"C{number // of_side}",
            linestyle=("-", "--")[number % of_side],
            linewidth=1.4,
            marker=marker,
            markersize=3,
        )
    values = [value for points in series.values() for _, value in points if value > 0]
    if log and values and max(values) > 30 * min(values):
        axes.set_yscale("log")
    axes.set_xlabel(over)
    axes.set_ylabel(of)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
