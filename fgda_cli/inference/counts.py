"""Counts of an evaluation, image by image, and the scores made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..metrics import (
    BoundaryCounts,
    Calibration,
    ConfusionMatrix,
    class_counts,
    interval,
    resampled_iou,
)
from ..runtime.distributed import ProcessGroup
from .tta import Decision

# images, or sequences, from which an interval is drawn: of fewer it would be too narrow
LEAST_DRAWN = 10


@dataclass(frozen=True)
class Extras:
    """Scores beside IoU: boundary IoU, calibration, intervals from a number of resamples of the
    images (0: none).
    """

    boundary: bool = False
    calibration: bool = False
    resamples: int = 0


class EvaluationCounts:
    """Counts of one evaluation, those of all processes after `join`."""

    def __init__(self, num_classes: int, extras: Extras):
        self.extras = extras
        self.matrix = ConfusionMatrix(num_classes)
        self.boundary = BoundaryCounts(num_classes) if extras.boundary else None
        self.calibration = Calibration() if extras.calibration else None
        # By image: pixels by class, right ones, the truth's, those predicted; and the image's own
        # mIoU.
        self.images: dict[str, list[list[int]]] = {}
        self.scores: dict[str, float] = {}

    def add(self, name: str, label: np.ndarray, decision: Decision) -> ConfusionMatrix:
        """Count an image; returns its own matrix."""
        own = ConfusionMatrix(self.matrix.num_classes)
        own.update(label, decision.train_ids)
        self.matrix += own
        if self.boundary is not None:
            self.boundary.update(label, decision.train_ids)
        if self.calibration is not None:
            self.calibration.update(label, decision.train_ids, decision.confidence)
        self.images[name] = class_counts(own.counts).tolist()
        score = own.miou()
        if score is not None:
            self.scores[name] = score
        return own

    def join(self, process_group: ProcessGroup) -> None:
        """Give every process the counts of all."""
        for part in (self.matrix, self.boundary, self.calibration):
            if part is not None:
                part.counts = process_group.sum(torch.from_numpy(part.counts)).numpy()
        if process_group.size > 1:
            parts = process_group.gather([self.images, self.scores])
            self.images = {name: counts for images, _ in parts for name, counts in images.items()}
            self.scores = {name: score for _, scores in parts for name, score in scores.items()}

    def shown(self) -> np.ndarray:
        """Return which classes the truth of any image shows, bool `[K]`."""
        return self.matrix.counts.sum(1) > 0

    def drawn_units(self) -> tuple[str, np.ndarray]:
        """Return what intervals draw, and its counts by class `[N,3,K]` in the order of names.

        Frames of one sequence are alike, so sequences are drawn where names have enough folders,
        else images.
        """
        names = sorted(self.images)
        by_folder: dict[str, list[str]] = {}
        for name in names:
            by_folder.setdefault(name.rpartition("/")[0], []).append(name)
        if len(by_folder) >= LEAST_DRAWN:
            sums = [
                np.sum([self.images[name] for name in group], axis=0)
                for group in by_folder.values()
            ]
            return "sequences", np.array(sums, np.int64)
        return "images", np.array([self.images[name] for name in names], np.int64)

    @cached_property
    def resampled(self) -> tuple[str, np.ndarray | None]:
        """What is drawn, and IoU `[resamples,K]` of the draws; None where there are too few to draw
        from. Ask after `join`.
        """
        what, counts = self.drawn_units()
        return what, (
            resampled_iou(counts, self.extras.resamples) if len(counts) >= LEAST_DRAWN else None
        )

    def extra_json(self, names: tuple[str, ...], shared: tuple[str, ...]) -> dict[str, Any]:
        """Return the scores beside IoU, in percent, of the classes that model and data set
        share.
        """
        used = [names.index(name) for name in shared]
        scores: dict[str, Any] = {}
        if self.boundary is not None:
            iou = self.boundary.iou()
            values = {names[k]: None if np.isnan(iou[k]) else float(iou[k]) for k in used}
            known = [value for value in values.values() if value is not None]
            scores["boundary"] = {
                "width": self.boundary.share,
                "iou": values,
                "miou": float(np.mean(known)) if known else None,
            }
        if self.calibration is not None:
            pixels, right, confidence = (row.tolist() for row in self.calibration.counts)
            scores["calibration"] = {
                "ece": self.calibration.error(),
                "pixels": pixels,
                "right": right,
                "confidence": confidence,
            }
        if self.extras.resamples:
            scores["intervals"] = self._intervals(names, used)
        return scores

    def _intervals(self, names: tuple[str, ...], used: list[int]) -> dict[str, Any]:
        what, drawn = self.resampled
        by_class = {names[k]: None if drawn is None else interval(drawn[:, k]) for k in used}
        return {
            "resamples": self.extras.resamples,
            "images": len(self.images),
            "drawn": what,
            "miou": None if drawn is None else interval(mean_of(drawn[:, used])),
            "iou": by_class,
        }


def mean_of(drawn: np.ndarray) -> np.ndarray:
    """Return the mean `[R]` of resampled IoU `[R,K]` over all classes that any resample has, NaN
    for one that misses a class.

    A mean over fewer classes would be of something else: without its rarest class, it is higher.
    """
    shown = ~np.isnan(drawn).all(0)
    return drawn[:, shown].mean(1) if shown.any() else np.full(len(drawn), np.nan)
