"""Confusion matrix, IoU and the means the literature reports."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .data.classes import IGNORE_INDEX, NAMES, NOT_IN_SYNTHIA13, NOT_IN_SYNTHIA16


@dataclass
class ConfusionMatrix:
    """Exact int64 counts `[K,K]`, rows = truth, columns = prediction."""

    num_classes: int
    counts: np.ndarray = field(default=None)

    def __post_init__(self):
        if self.counts is None:
            self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray, ignore_index: int = IGNORE_INDEX) -> None:
        """Count two arrays of train ids of one shape. Raises ValueError for ids that are neither a class nor ignored."""
        truth, prediction = np.asarray(truth).ravel(), np.asarray(prediction).ravel()
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has {truth.size} pixels, prediction {prediction.size}")
        k = self.num_classes
        valid = truth != ignore_index
        truth, prediction = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        for name, ids in (("truth", truth), ("prediction", prediction)):
            if ids.size and (ids.min() < 0 or ids.max() >= k):
                raise ValueError(f"{name} holds id {ids.max() if ids.max() >= k else ids.min()}, classes are 0 to {k - 1}")
        self.counts += np.bincount(truth * k + prediction, minlength=k * k).reshape(k, k)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.num_classes, self.counts + other.counts)

    def iou(self) -> np.ndarray:
        """IoU in percent `[K]` float64; NaN for a class absent from both truth and prediction."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts)
        return np.where(union > 0, 100.0 * hits / np.maximum(union, 1), np.nan)

    def miou(self, leave_out: tuple[int, ...] = ()) -> float | None:
        """Mean IoU in percent over the classes that have one, without `leave_out`; None when there is none."""
        values = np.delete(self.iou(), list(leave_out))
        return None if np.isnan(values).all() else float(np.nanmean(values))

    def miou16(self) -> float | None:
        """Of the 19 Cityscapes classes, without those that SYNTHIA lacks."""
        return self.miou(tuple(NAMES.index(name) for name in NOT_IN_SYNTHIA16))

    def miou13(self) -> float | None:
        return self.miou(tuple(NAMES.index(name) for name in NOT_IN_SYNTHIA13))

    def pixel_accuracy(self) -> float | None:
        total = int(self.counts.sum())
        return 100.0 * int(np.diag(self.counts).sum()) / total if total else None
