"""The label-free score and verdict: a model's signals against those of the model that it began as.

The score is the change of mIoU that the signals let expect, by a linear rule fitted on runs whose
labels are known (docs/experiments.md; `python benchmarks/verdicts.py` makes the table anew).
Entropy is not in it: methods minimise it, and a collapsed network has the least. Agreement between
views alone would not do, because self-training raises it even where it confirms its own errors:
borders of such predictions leave the edges of the image, and such networks have moved away from
what their batch norm was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..metrics import COLLAPSED
from .observe import Observed

Kind = Literal["helped", "no clear change", "cannot tell", "collapsed or harmful"]

# points of mIoU for a change by 1 of each signal, fitted on 47 runs of three pairs of domains
# (benchmarks/verdicts.json)
WEIGHTS = {"edges": 69.5, "steady_scale": 41.3, "bn_distance": -2.8}
# points that the score errs by, on pairs that it was not fitted on
SPREAD = 2.5
# fewer different frames than this are warned of
FEW_FRAMES = 10
# frames that each network was looked at on
FITTED_ON = 40
# a score up to this reads "no clear change"
SMALL = 1.0
# probabilities from which the sign of a change, or that it is small, is told; below: "cannot tell"
SURE = 0.7
# The most that a sign is said to be sure: of the runs judged after the fit 34 of 36 were right, and
# one of the two others had a score of -6.8, which a normal distribution excludes.
MOST_SURE = 0.95
LIKELY = 0.5
# share of its former diversity below which a network counts as collapsed
FEWER = 0.65
# share of pixels from which a class counts as seen
SEEN = 0.003
# share of its former pixels below which a class counts as vanished
VANISHED = 0.1
# change of a class's share of all pixels that is worth a look
MOVED = 0.03
# classes that are named, at most
NAMED = 5


@dataclass(frozen=True)
class Verdict:
    """A verdict: `score` in points of mIoU, `confidence` that its sign (or smallness) is right,
    `words` on classes.
    """

    kind: Kind
    score: float
    confidence: float
    words: tuple[str, ...]
    # "vanished", "moved" -> names
    classes: dict[str, list[str]]
    # standard deviation of the score's error, points of mIoU
    spread: float = SPREAD

    def in_words(self) -> str:
        return in_words(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.kind,
            "score": round(self.score, 3),
            "confidence": round(self.confidence, 3),
            "spread": round(self.spread, 3),
            "words": list(self.words),
            **self.classes,
        }


def in_words(verdict: dict[str, Any]) -> str:
    """Return the sentence of a verdict as it is saved."""
    if verdict["score"] <= COLLAPSED:
        return "collapsed"
    kind = verdict["verdict"]
    expected = f"{verdict['score']:+.1f} points of mIoU to expect"
    if kind == "cannot tell":
        return f"cannot tell ({expected}, give or take {verdict.get('spread', SPREAD):.1f})"
    of_what = " that mIoU moved by less than 3 points" if kind == "no clear change" else ""
    return f"{kind} ({expected}, {100 * verdict['confidence']:.0f} % sure{of_what})"


def changes(before: Observed, after: Observed) -> dict[str, float]:
    """Return the score's parts: the differences of how often class borders lie on edges, of the
    agreement with an enlarged view, and of the distance from batch norm's running statistics.
    """
    return {name: after.signals[name] - before.signals[name] for name in WEIGHTS}


def has_collapsed(before: Observed, after: Observed) -> bool:
    return after.signals["diversity"] < FEWER * before.signals["diversity"]


def score(before: Observed, after: Observed) -> float:
    """Return the expected change of mIoU in points; -100 for a collapsed model. Compare models of
    one start by it.
    """
    if has_collapsed(before, after):
        return COLLAPSED
    return sum(WEIGHTS[name] * value for name, value in changes(before, after).items())


def verdict_on(before: Observed, after: Observed, names: tuple[str, ...]) -> Verdict:
    """Return the verdict on a model that began as `before`; `names` are its classes."""
    class_names = classes_in_words(before, after, names)
    value = score(before, after)
    frames = after.different or FITTED_ON
    # more cautious than 1/2, chance alone: few frames are alike too
    spread = SPREAD * max(1.0, FITTED_ON / frames) ** 0.75
    # probability that mIoU fell
    below = 0.5 * (1 + math.erf(-value / spread / math.sqrt(2)))
    if value <= COLLAPSED:
        kind = "collapsed or harmful"
        confidence = 1.0
    elif abs(value) <= SMALL:
        confidence = _within(value, 3.0, spread)
        kind = "no clear change" if confidence >= LIKELY else "cannot tell"
    else:
        confidence = min(max(below, 1 - below), MOST_SURE)
        kind = (
            "cannot tell"
            if confidence < SURE
            else "helped"
            if value > 0
            else "collapsed or harmful"
        )
    words = _words(before, after, names, class_names=class_names)
    if frames < FEW_FRAMES:
        words.insert(
            0,
            f"only {frames} different frame{'s' if frames > 1 else ''} looked at: too few to"
            " tell by",
        )
    return Verdict(kind, value, confidence, words=tuple(words), classes=class_names, spread=spread)


def _within(value: float, reach: float, spread: float) -> float:
    """Return the probability that the change is less than `reach` points either way."""
    low, high = ((bound - value) / spread / math.sqrt(2) for bound in (-reach, reach))
    return 0.5 * (math.erf(high) - math.erf(low))


def classes_in_words(
    before: Observed, after: Observed, names: tuple[str, ...]
) -> dict[str, list[str]]:
    """Return names of the classes that vanished, and of others whose share of the pixels moved
    most.
    """
    was = before.shares
    now = after.shares
    vanished = (was >= SEEN) & (now < VANISHED * was)
    moves = np.where(vanished, 0, np.abs(now - was))
    moved = [i for i in np.argsort(-moves, kind="stable") if moves[i] >= MOVED]
    return {
        "vanished": [name for name, is_so in zip(names, vanished, strict=True) if is_so],
        "moved": [names[i] for i in moved[:NAMED]],
    }


def _words(
    before: Observed, after: Observed, names: tuple[str, ...], class_names: dict[str, list[str]]
) -> list[str]:
    def share(name: str) -> str:
        k = names.index(name)
        return (
            f"{name} ({100 * before.shares[k]:.1f} % of the pixels, now"
            f" {100 * after.shares[k]:.1f})"
        )

    said = []
    if has_collapsed(before, after):
        most = int(after.shares.argmax())
        said.append(
            f"collapsed: {names[most]} takes {100 * after.shares[most]:.0f} % of the pixels"
        )
    for kind, words in (("vanished", "vanished"), ("moved", "grew or shrank most")):
        if class_names[kind]:
            listed = ", ".join(map(share, class_names[kind]))
            said.append(f"{words}, look whether rightly: {listed}")
    return said
