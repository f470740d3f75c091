"""Evaluation: images at the evaluation size, logits at the label's own size, exact counts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data.classes import ClassSet
from ..data.loader import resize, to_tensor
from ..data.store import Item, PreparedDataset
from ..errors import FgdaError
from ..losses import upsample
from ..metrics import ConfusionMatrix
from ..models.deeplab import DeepLabV2
from ..reporter import Reporter
from .compute import Precision


@dataclass(frozen=True)
class Views:
    """Test-time augmentation: mean of the class probabilities over scales and mirrors."""

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


def forward_logits(model: DeepLabV2, images: Tensor, precision: Precision) -> Tensor:
    """Images uint8 or float `[B,3,H,W]` -> float32 logits `[B,K,h,w]`."""
    with torch.inference_mode(), precision.autocast():
        return model(images.to(precision.device)).logits.float()


def predict_scores(model: DeepLabV2, image: np.ndarray, size, out_size, precision: Precision, tta: Views) -> Tensor:
    """Scores `[K,H,W]` of one RGB image at out_size (width, height): logits, or log mean probabilities under TTA."""
    if tta == Views():
        logits = forward_logits(model, to_tensor(resize(image, size, cv2.INTER_LINEAR))[None], precision)
        return upsample(logits, (out_size[1], out_size[0]))[0]
    total: Tensor | float = 0.0
    views = [(scale, mirrored) for scale in tta.scales for mirrored in ((False, True) if tta.flip else (False,))]
    for scale, mirrored in views:
        scaled = (max(32, round(size[0] * scale)), max(32, round(size[1] * scale)))
        pixels = resize(image, scaled, cv2.INTER_LINEAR)
        logits = forward_logits(model, to_tensor(pixels[:, ::-1] if mirrored else pixels)[None], precision)
        probs = torch.softmax(upsample(logits, (out_size[1], out_size[0])), dim=1)[0]
        total = total + (probs.flip(-1) if mirrored else probs)
    return torch.log(total / len(views))


def read_ahead(read: Callable, items: list, threads: int = 2) -> Iterator:
    """`(item, read(item))` in order, read by threads while the network computes; memory stays constant."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque = deque()
        for item in items:
            pending.append((item, pool.submit(read, item)))
            if len(pending) > 2 * threads:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()


def evaluate_model(
    model: DeepLabV2,
    dataset: PreparedDataset,
    split: str,
    size: tuple[int, int],
    precision: Precision,
    reporter: Reporter,
    tta: Views = Views(),
    on_prediction: Callable[[Item, np.ndarray], None] | None = None,
    threads: int = 2,
) -> dict[str, Any]:
    """The JSON of `fgda evaluate` less its `checkpoint`. Raises FgdaError when classes and labels do not fit."""
    classes, start = dataset.classes, time.perf_counter()
    if len(classes) != model.num_classes:
        raise FgdaError(f"the model has {model.num_classes} classes, data set '{dataset.name}' has {len(classes)}")
    items = dataset.items(split, labelled=True)
    matrix = ConfusionMatrix(len(classes))
    pairs = read_ahead(lambda item: (dataset.image(item), dataset.label(item)), items, threads)
    for item, (image, label) in reporter.track(pairs, f"evaluate {dataset.name}", len(items)):
        scores = predict_scores(model, image, size, (label.shape[1], label.shape[0]), precision, tta)
        prediction = scores.argmax(0).to(torch.uint8).cpu().numpy()
        matrix.update(label, prediction)
        if on_prediction is not None:
            on_prediction(item, prediction)
    return result_json(matrix, classes, dataset.name, split, len(items), time.perf_counter() - start)


def result_json(matrix: ConfusionMatrix, classes: ClassSet, dataset: str, split: str, images: int, seconds: float) -> dict:
    iou = matrix.iou()
    return {
        "dataset": dataset,
        "split": split,
        "images": images,
        "classes": list(classes.names),
        "iou": {name: None if np.isnan(value) else float(value) for name, value in zip(classes.names, iou, strict=True)},
        "miou": matrix.miou(),
        "miou16": matrix.miou16() if classes.is_cityscapes else None,
        "miou13": matrix.miou13() if classes.is_cityscapes else None,
        "pixel_accuracy": matrix.pixel_accuracy(),
        "confusion": matrix.counts.tolist(),
        "seconds": round(seconds, 3),
    }


def evaluate_file(
    path: Path,
    dataset: PreparedDataset,
    split: str,
    precision: Precision,
    reporter: Reporter,
    tta: Views = Views(),
    on_prediction: Callable[[Item, np.ndarray], None] | None = None,
    threads: int = 2,
) -> dict[str, Any]:
    """Evaluate one checkpoint at the size its preset names."""
    from .checkpoint import load_model

    model, info = load_model(path)
    model = precision.place(model)
    result = evaluate_model(model, dataset, split, info["size"], precision, reporter, tta, on_prediction, threads)
    return {"checkpoint": str(path), **result}


def headings(paths: list[Path]) -> list[str]:
    """Short distinct names: the run folder's where the file is a run's checkpoint."""
    names = [path.parent.parent.name if path.parent.name == "checkpoints" else path.stem for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
