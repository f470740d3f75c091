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
from ..losses import entropy_map
from ..metrics import ConfusionMatrix
from ..models.deeplab import DeepLabV2
from ..reporter import Reporter
from ..strips import Upsampled
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


def view_logits(model: DeepLabV2, image: np.ndarray, size: tuple[int, int], precision: Precision, tta: Views) -> list[Tensor]:
    """Logits `[1,K,h,w]` of one RGB image in each view, mirrored ones turned back; size (width, height) is scale 1."""
    found = []
    for scale in tta.scales:
        scaled = size if scale == 1 else tuple(max(32, round(side * scale)) for side in size)
        pixels = resize(image, scaled, cv2.INTER_LINEAR)
        found.append(forward_logits(model, to_tensor(pixels)[None], precision))
        if tta.flip:
            found.append(forward_logits(model, to_tensor(pixels[:, ::-1])[None], precision).flip(-1))
    return found


def decide(views: list[Tensor], out_size: tuple[int, int], with_entropy: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Train ids uint8 `[H,W]` and entropy float32 `[H,W]` in [0,1] at out_size (width, height), a few rows at a time.

    Several views are averaged in probability.
    """
    size = (out_size[1], out_size[0])
    maps = [Upsampled(logits, size) for logits in views]
    train_ids = np.empty(size, np.uint8)
    entropy = np.empty(size, np.float32) if with_entropy else None
    with torch.inference_mode():
        for rows in maps[0].strips():
            scores = maps[0].rows(rows)
            if len(maps) > 1:
                probs = sum((torch.softmax(view.rows(rows), 1) for view in maps[1:]), torch.softmax(scores, 1))
                scores = torch.log(probs / len(maps))
            train_ids[rows] = scores.argmax(1)[0].to(torch.uint8).cpu().numpy()
            if entropy is not None:
                entropy[rows] = entropy_map(scores)[0].clamp(0, 1).cpu().numpy()
    return train_ids, entropy


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
        prediction, _ = decide(view_logits(model, image, size, precision, tta), (label.shape[1], label.shape[0]))
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
