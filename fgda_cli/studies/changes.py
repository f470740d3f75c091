"""Changes from one checkpoint to another on the same labelled images: by class with intervals, and
the frames that show them.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.classes import ClassMatch
from ..data.images import apart
from ..data.store import PreparedDataset
from ..inference.counts import mean_of
from ..inference.evaluate import EvaluationResult
from ..metrics import interval
from ..visual import html
from ..visual.colour import colourise, error_map
from ..visual.tables import show

if TYPE_CHECKING:
    from .evaluation import Candidate

# points of IoU: less is no change, however narrow its interval
LEAST = 0.1
# frames that lost most, and that gained most
SHOWN = 4


def change(first: EvaluationResult, other: EvaluationResult) -> dict[str, Any]:
    """Return the JSON of a change in points of IoU: by class and in the mean, each with the
    interval over the same resampled images. `harmed` and `helped` name the classes whose interval
    excludes 0 and that changed by at least 0.1.

    Both means are over the classes that the truth shows: one that a network calls where no label
    has it would enter one mean and not the other. Raises ValueError for results of different data.
    """
    if first.data != other.data:
        raise ValueError("results of different data cannot be compared")
    shown = first.counts.shown()
    names = first.classes.names
    used = [names.index(name) for name in first.evaluated if shown[names.index(name)]]
    drawn = [result.counts.resampled[1] for result in (first, other)]
    exact = [result.counts.matrix.iou() for result in (first, other)]
    by_class = {
        names[k]: {
            "change": float(exact[1][k] - exact[0][k]),
            "interval": None if drawn[0] is None else interval(drawn[1][:, k] - drawn[0][:, k]),
        }
        for k in used
    }
    mean = {
        "change": float(np.mean(exact[1][used]) - np.mean(exact[0][used])) if used else 0.0,
        "interval": (
            None
            if drawn[0] is None
            else interval(mean_of(drawn[1][:, used]) - mean_of(drawn[0][:, used]))
        ),
    }
    clear = {
        name: e
        for name, e in by_class.items()
        if e["interval"] is not None and abs(e["change"]) >= LEAST
    }
    return {
        "from": first.checkpoints[0],
        "over": [names[k] for k in used],
        "resamples": first.counts.extras.resamples,
        "drawn": first.counts.resampled[0],
        "miou": mean,
        "iou": by_class,
        "harmed": [name for name, entry in clear.items() if entry["interval"][1] < 0],
        "helped": [name for name, entry in clear.items() if entry["interval"][0] > 0],
    }


def comparison_page(judged: list[Candidate], dataset: PreparedDataset, look: str) -> str:
    """Return a page of the first checkpoint against each of the others; `look` is the path of the
    page to look around in.

    Pictures are of the predictions that were scored.
    """
    first, *others = judged
    result = first.result
    facts = [
        f"{result.dataset} / {result.split}, {result.images} images, {result.tta.describe()}",
        f"from {first.heading}",
    ]
    figures = {f"mIoU of {one.heading}": f"{one.result.miou:.1f} %" for one in judged}
    legend = html.legend(result.classes.names, result.classes.palette)
    sections = []
    for other in others:
        change = other.result.change
        note = (
            f"Points of IoU; intervals of 95 % over {change['resamples']} draws of the"
            f" {change['drawn']}, the same for both. Red: worse beyond the interval (negative"
            " transfer), blue: better."
        )
        sections.append(
            html.section(f"{first.heading} → {other.heading}", _bars(first, other), note)
        )
        before = result.counts.scores
        after = other.result.counts.scores
        order = sorted(set(before) & set(after), key=lambda name: after[name] - before[name])
        lost = [name for name in order if after[name] < before[name]]
        gained = [name for name in order[::-1] if after[name] > before[name]]
        worst = apart(lost, SHOWN, order)
        best = apart(gained, SHOWN, order)
        for title, names in (("Frames that lost most", worst), ("Frames that gained most", best)):
            if names:
                sections.append(
                    html.section(title, legend + _frames(names, first, other, dataset=dataset))
                )
    return html.page("Comparison", facts, html.cards(figures), html.look_link(look), *sections)


def _bars(first: Candidate, other: Candidate) -> str:
    """A table of IoU by class, with a bar from 0 for each change and its interval as a line."""
    change = other.result.change
    entries = {"mean": change["miou"], **change["iou"]}
    reach = (
        max(abs(bound) for e in entries.values() for bound in (e["change"], *(e["interval"] or ())))
        or 1.0
    )
    rows = []
    for name, entry in entries.items():
        low, high = entry["interval"] or (entry["change"], entry["change"])
        clear = abs(entry["change"]) >= LEAST
        colour = "#c43c28" if clear and high < 0 else "#2271b1" if clear and low > 0 else "#9aa5b1"
        span = f"{low:+.1f} to {high:+.1f}" if entry["interval"] else "–"
        bar = html.change_bar(entry["change"] / reach, low / reach, high / reach, colour=colour)
        before, after = (show(one.result.iou.get(name, one.result.miou)) for one in (first, other))
        rows.append((escape(name), before, after, f"{entry['change']:+.1f}", span, bar))
    headings = ("class", "IoU % before", "after", "change", "95 %", "")
    return html.table(headings, rows, kinds=["span", "track"])


def _frames(names: list[str], first: Candidate, other: Candidate, dataset: PreparedDataset) -> str:
    items = {item.name: item for item in dataset.items(first.result.split, labelled=True)}
    parts = []
    for name in names:
        image = np.ascontiguousarray(dataset.image(items[name]))
        figures = [html.image(image, "image", photo=True)]
        for one in (first, other):
            classes = one.result.classes
            truth = ClassMatch(classes, dataset.classes).table()[dataset.label(items[name])]
            if one is first:
                figures.append(html.image(colourise(truth, classes), "truth"))
            ids = one.kept[name]["train_ids"]
            figures += [
                html.image(colourise(ids, classes), one.heading),
                html.image(error_map(image, truth, ids), "errors"),
            ]
        before, after = (one.result.counts.scores[name] for one in (first, other))
        parts.append(html.scene(name, f"mIoU {before:.1f} → {after:.1f} %", figures))
    return "".join(parts)
