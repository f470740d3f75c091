"""Changes from one checkpoint to another on the same labelled images: by class with intervals, and the frames that show them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..data.classes import ClassMatch
from ..data.store import PreparedDataset
from ..inference.counts import EvaluationCounts, mean_of
from ..inference.evaluate import AsEvaluated
from ..inference.tta import TestTimeAugmentation
from ..metrics import interval, resampled_iou
from ..runtime.devices import Precision
from ..visual import html
from ..visual.colour import colourise, error_map

LEAST = 0.1  # points of IoU: less is no change, however narrow its interval
SHOWN = 4  # frames that lost most, and that gained most


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint's evaluation: its JSON, what was counted, and its images' own mIoU by name."""

    heading: str
    result: dict[str, Any]
    totals: EvaluationCounts
    scores: dict[str, float]


def change(first: Evaluated, other: Evaluated) -> dict[str, Any]:
    """Return the JSON of a change in points of IoU: by class and in the mean, each with the interval over the same resampled
    images. `harmed` and `helped` name the classes whose interval excludes 0 and that changed by at least 0.1.
    """
    names = first.result["classes"]
    used = [names.index(name) for name in first.result["evaluated"]]
    resamples = first.totals.extras.resamples
    drawn = [resampled_iou(one.totals.per_image(), resamples)[:, used] for one in (first, other)]
    exact = [np.array([one.result["iou"][names[k]] for k in used], float) for one in (first, other)]
    by_class = {}
    for column, k in enumerate(used):
        value = exact[1][column] - exact[0][column]
        if not np.isnan(value):
            by_class[names[k]] = {"change": float(value), "interval": interval(drawn[1][:, column] - drawn[0][:, column])}
    mean = {
        "change": other.result["miou"] - first.result["miou"],
        "interval": interval(mean_of(drawn[1]) - mean_of(drawn[0])),
    }
    clear = {name: e for name, e in by_class.items() if e["interval"] is not None and abs(e["change"]) >= LEAST}
    return {
        "from": first.result["checkpoint"],
        "miou": mean,
        "iou": by_class,
        "harmed": [name for name, entry in clear.items() if entry["interval"][1] < 0],
        "helped": [name for name, entry in clear.items() if entry["interval"][0] > 0],
    }


def comparison_page(
    judged: list[Evaluated], dataset: PreparedDataset, precision: Precision, tta: TestTimeAugmentation, look: str
) -> str:
    """Return a page of the first checkpoint against each of the others; `look` is the path of the page to look around in.

    The images of both are predicted anew for the pictures.
    """
    first, *others = judged
    facts = [f"{first.result['dataset']} / {first.result['split']}, {first.result['images']} images", f"from {first.heading}"]
    figures = {one.heading: f"{one.result['miou']:.1f} %" for one in judged}
    sections = []
    for other in others:
        change = other.result["change"]
        note = (
            f"Points of IoU; intervals of 95 % over {first.totals.extras.resamples} draws of the images, the same for both. "
            "Red: worse beyond the interval (negative transfer), blue: better."
        )
        sections.append(html.section(f"{first.heading} → {other.heading}", _bars(change), note))
        order = sorted(set(first.scores) & set(other.scores), key=lambda name: other.scores[name] - first.scores[name])
        worst = [name for name in order[:SHOWN] if other.scores[name] < first.scores[name]]
        best = [name for name in order[::-1][:SHOWN] if other.scores[name] > first.scores[name]]
        for title, names in (("Frames that lost most", worst), ("Frames that gained most", best)):
            if names:
                sections.append(html.section(title, _frames(names, first, other, dataset, precision, tta)))
    return html.page("Comparison", facts, html.cards(figures), html.look_link(look), *sections)


def _bars(change: dict[str, Any]) -> str:
    """A table with a bar from 0 for each class and its interval as a line."""
    entries = {"mean": change["miou"], **change["iou"]}
    reach = max(abs(bound) for e in entries.values() for bound in (e["change"], *(e["interval"] or ()))) or 1.0
    rows = []
    for name, entry in entries.items():
        low, high = entry["interval"] or (entry["change"], entry["change"])
        clear = abs(entry["change"]) >= LEAST
        colour = "#c43c28" if clear and high < 0 else "#2271b1" if clear and low > 0 else "#9aa5b1"
        span = f"{low:+.1f} to {high:+.1f}" if entry["interval"] else "–"
        bar = html.change_bar(entry["change"] / reach, low / reach, high / reach, colour)
        rows.append(f"<tr><td>{escape(name)}</td><td>{entry['change']:+.1f}</td><td>{span}</td><td class='track'>{bar}</td></tr>")
    head = "<thead><tr><th>class</th><th>change</th><th>95 %</th><th></th></tr></thead>"
    return f"<table class='iou'>{head}<tbody>{''.join(rows)}</tbody></table>"


def _frames(
    names: list[str],
    first: Evaluated,
    other: Evaluated,
    dataset: PreparedDataset,
    precision: Precision,
    tta: TestTimeAugmentation,
) -> str:
    items = {item.name: item for item in dataset.items(first.result["split"], labelled=True)}
    networks = [AsEvaluated(one.result, precision, tta) for one in (first, other)]
    parts = []
    for name in names:
        image = np.ascontiguousarray(dataset.image(items[name]))
        figures = [html.image(image, "image", photo=True)]
        for network, heading in zip(networks, (first.heading, other.heading), strict=True):
            truth = ClassMatch(network.classes, dataset.classes).table()[dataset.label(items[name])]
            ids = network(image, truth.shape[::-1])["train_ids"]
            figures += [html.image(colourise(ids, network.classes), heading), html.image(error_map(image, truth, ids), "errors")]
        score = f"mIoU {first.scores[name]:.1f} → {other.scores[name]:.1f} %"
        parts.append(html.scene(name, score, figures))
    return "".join(parts)
