"""Confusion matrix, IoU and the means the literature reports; boundary IoU, calibration, and
intervals over images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .data.classes import IGNORE_INDEX, NAMES, NOT_IN_SYNTHIA13, NOT_IN_SYNTHIA16

# the score without labels of a network that predicts far fewer classes than it began with
COLLAPSED = -100.0

# names of the keys of results, as tables and pages show them
MEANS = {
    "miou": "mIoU",
    "miou16": "mIoU (16)",
    "miou13": "mIoU (13)",
    "pixel_accuracy": "pixel accuracy",
}
SCORES = MEANS | {
    "source_miou": "mIoU on the source's held-out images",
    "label_free": "score without labels (points)",
}


@dataclass
class ConfusionMatrix:
    """Count pixels exactly: int64 `[K,K]`, rows are the truth, columns the prediction."""

    num_classes: int
    counts: np.ndarray = field(default=None)

    def __post_init__(self):
        if self.counts is None:
            self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(
        self, truth: np.ndarray, prediction: np.ndarray, ignore_index: int = IGNORE_INDEX
    ) -> None:
        """Count two arrays of train ids of one shape. Raises ValueError for ids that are neither a
        class nor ignored.
        """
        truth = np.asarray(truth).ravel()
        prediction = np.asarray(prediction).ravel()
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has {truth.size} pixels, prediction {prediction.size}")
        k = self.num_classes
        valid = truth != ignore_index
        truth = truth[valid].astype(np.int64)
        prediction = prediction[valid].astype(np.int64)
        for name, ids in (("truth", truth), ("prediction", prediction)):
            if ids.size and (ids.min() < 0 or ids.max() >= k):
                raise ValueError(
                    f"{name} holds id {ids.max() if ids.max() >= k else ids.min()}, classes are 0"
                    f" to {k - 1}"
                )
        self.counts += np.bincount(truth * k + prediction, minlength=k * k).reshape(k, k)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.num_classes, self.counts + other.counts)

    def iou(self) -> np.ndarray:
        """Return IoU in percent `[K]` float64; NaN for a class absent from both truth and
        prediction.
        """
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts)
        return np.where(union > 0, 100.0 * hits / np.maximum(union, 1), np.nan)

    def miou(self, leave_out: tuple[int, ...] = ()) -> float | None:
        """Return the mean IoU in percent over the classes that have one, without `leave_out`; None
        when there is none.
        """
        values = np.delete(self.iou(), list(leave_out))
        return None if np.isnan(values).all() else float(np.nanmean(values))

    def miou16(self) -> float | None:
        """Return the mean IoU over Cityscapes' classes that SYNTHIA has."""
        return self.miou(tuple(NAMES.index(name) for name in NOT_IN_SYNTHIA16))

    def miou13(self) -> float | None:
        return self.miou(tuple(NAMES.index(name) for name in NOT_IN_SYNTHIA13))

    def pixel_accuracy(self) -> float | None:
        total = int(self.counts.sum())
        return 100.0 * int(np.diag(self.counts).sum()) / total if total else None


def boundary(ids: np.ndarray, num_classes: int, width: int) -> np.ndarray:
    """Return bool `[H,W]`: the pixels within `width` pixels (rows, columns, diagonals) of another
    class or of the image's border.

    They are the pixels that an erosion of each class's mask takes away, as [Boundary IoU] defines
    the inner boundary; pixels of no class (255) have none.
    """
    import cv2

    kernel = np.ones((3, 3), np.uint8)
    border = np.zeros(ids.shape, bool)
    for k in range(num_classes):
        mask = (ids == k).astype(np.uint8)
        if mask.any():
            inner = cv2.erode(
                mask, kernel, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0
            )
            border |= (mask & ~inner & 1).astype(bool)
    return border


# width of a boundary as a share of the image's diagonal, as in [Boundary IoU], COCO, Cityscapes
BOUNDARY_SHARE = 0.02


@dataclass
class BoundaryCounts:
    """Count pixels of boundary IoU ([Boundary IoU] eq. 2): IoU of the two masks' inner boundaries,
    summed over all images.
    """

    num_classes: int
    share: float = BOUNDARY_SHARE
    # int64 [2,K]: intersection, union
    counts: np.ndarray = field(default=None)

    def __post_init__(self):
        if self.counts is None:
            self.counts = np.zeros((2, self.num_classes), np.int64)

    def update(
        self, truth: np.ndarray, prediction: np.ndarray, ignore_index: int = IGNORE_INDEX
    ) -> None:
        """Count two maps `[H,W]`; pixels that the truth ignores belong to no class of the
        prediction either.
        """
        prediction = np.where(truth == ignore_index, np.uint8(ignore_index), prediction)
        width = max(1, round(self.share * float(np.hypot(*truth.shape))))
        of_truth, of_prediction = (
            boundary(ids, self.num_classes, width) for ids in (truth, prediction)
        )
        k = self.num_classes + 1
        first = np.where(of_truth, np.minimum(truth, k - 1), k - 1)
        second = np.where(of_prediction, np.minimum(prediction, k - 1), k - 1)
        both = np.bincount(first[first == second], minlength=k)[:-1]
        sizes = (
            np.bincount(first.ravel(), minlength=k)[:-1]
            + np.bincount(second.ravel(), minlength=k)[:-1]
        )
        self.counts += np.stack([both, sizes - both])

    def iou(self) -> np.ndarray:
        """Return boundary IoU in percent `[K]`; NaN for a class absent from both."""
        return np.where(
            self.counts[1] > 0, 100.0 * self.counts[0] / np.maximum(self.counts[1], 1), np.nan
        )


@dataclass
class Calibration:
    """Count pixels, right pixels and summed confidence in equal bins of confidence, `[3,bins]`."""

    bins: int = 15
    counts: np.ndarray = field(default=None)

    def __post_init__(self):
        if self.counts is None:
            self.counts = np.zeros((3, self.bins))

    def update(
        self,
        truth: np.ndarray,
        prediction: np.ndarray,
        confidence: np.ndarray,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        valid = truth != ignore_index
        right = (truth == prediction)[valid]
        confidence = confidence[valid].astype(np.float64)
        # (low, high], as Guo et al. 2017
        bins = np.clip(np.ceil(confidence * self.bins).astype(int) - 1, 0, self.bins - 1)
        self.counts += [
            np.bincount(bins, weights, self.bins)
            for weights in (np.ones_like(confidence), right, confidence)
        ]

    def error(self) -> float | None:
        """Return the expected calibration error in percent (Guo et al. 2017, eq. 3); None without a
        pixel.
        """
        pixels, right, confidence = self.counts
        return (
            float(100 * np.abs(right - confidence).sum() / pixels.sum()) if pixels.sum() else None
        )


def class_counts(matrix: np.ndarray) -> np.ndarray:
    """Return pixels of a confusion matrix `[K,K]` by class, int64 `[3,K]`: right ones, those of the
    truth, those predicted.
    """
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])


def resampled_iou(counts: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Return IoU in percent `[resamples,K]` of images drawn with replacement, NaN for a class that
    none of them shows.

    `counts` are the images' `class_counts`, `[N,3,K]`. Equal arguments draw the same images, so
    that the results of two networks can be subtracted.
    """
    n = len(counts)
    hits = counts[:, 0].astype(np.float64)
    unions = counts[:, 1] + counts[:, 2] - hits
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)  # [resamples,N]
    hits = times @ hits
    unions = times @ unions
    return np.where(unions > 0, 100.0 * hits / np.maximum(unions, 1), np.nan)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """Return the percentile interval of resampled values; None where there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
