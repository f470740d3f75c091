"""Counts of an evaluation, image by image, and the scores made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..metrics import BoundaryCounts, Calibration, ConfusionMatrix, interval, resampled_iou
from ..runtime.distributed import ProcessGroup
from .tta import Decision


@dataclass(frozen=True)
class Extras:
    """Scores beside IoU: boundary IoU, calibration, intervals from a number of resamples of the images (0: none)."""

    boundary: bool = False
    calibration: bool = False
    resamples: int = 0


class EvaluationCounts:
    """Counts of one evaluation, those of all processes after `join`."""

    def __init__(self, num_classes: int, extras: Extras):
        self.extras, self.matrix = extras, ConfusionMatrix(num_classes)
        self.boundary = BoundaryCounts(num_classes) if extras.boundary else None
        self.calibration = Calibration() if extras.calibration else None
        self.images: dict[str, list[list[int]]] | None = {} if extras.resamples else None

    def add(self, name: str, label: np.ndarray, decision: Decision) -> ConfusionMatrix:
        """Count an image; returns its own matrix."""
        own = ConfusionMatrix(self.matrix.num_classes)
        own.update(label, decision.train_ids)
        self.matrix += own
        if self.boundary is not None:
            self.boundary.update(label, decision.train_ids)
        if self.calibration is not None:
            self.calibration.update(label, decision.train_ids, decision.confidence)
        if self.images is not None:
            self.images[name] = own.counts.tolist()
        return own

    def join(self, process_group: ProcessGroup) -> None:
        """Give every process the counts of all."""
        for part in (self.matrix, self.boundary, self.calibration):
            if part is not None:
                part.counts = process_group.sum(torch.from_numpy(part.counts)).numpy()
        if self.images is not None:
            self.images = {name: counts for part in process_group.gather(self.images) for name, counts in part.items()}

    def per_image(self) -> np.ndarray:
        """Return confusion matrices `[N,K,K]`, images in the order of their names."""
        return np.array([self.images[name] for name in sorted(self.images)], np.int64)

    def extra_json(self, names: tuple[str, ...], shared: tuple[str, ...]) -> dict[str, Any]:
        """Return the scores beside IoU, in percent, of the classes that model and data set share."""
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
                "ece": self.calibration.error(), "pixels": pixels, "right": right, "confidence": confidence,
            }  # fmt: skip
        if self.images is not None:
            drawn = resampled_iou(self.per_image(), self.extras.resamples)[:, used]
            scores["intervals"] = {
                "resamples": self.extras.resamples,
                "images": len(self.images),
                "miou": interval(mean_of(drawn)),
                "iou": {names[k]: interval(drawn[:, column]) for column, k in enumerate(used)},
            }
        return scores


def mean_of(drawn: np.ndarray) -> np.ndarray:
    """Return the mean `[R]` of resampled IoU `[R,K]` over all classes that any resample has, NaN for one that misses a class.

    A mean over fewer classes would be of something else: without its rarest class, it is higher.
    """
    shown = ~np.isnan(drawn).all(0)
    return drawn[:, shown].mean(1) if shown.any() else np.full(len(drawn), np.nan)
