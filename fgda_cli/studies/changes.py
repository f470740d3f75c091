"""Changes from one checkpoint to another on the same labelled images, by class with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..inference.counts import mean_of
from ..inference.evaluate import EvaluationResult
from ..metrics import interval

# points of IoU: less is no change, however narrow its interval
LEAST = 0.1


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
