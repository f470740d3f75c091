"""Evaluation: images at the evaluation size, logits at the label's own size, exact counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..chunked import Upsampled
from ..data.classes import ClassSet
from ..data.loader import resize, to_tensor
from ..data.store import Item, PreparedDataset
from ..losses import entropy_map
from ..metrics import ConfusionMatrix
from ..models.segmenter import DeepLabV2
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter
from .pipeline import batched, images_per_batch, read_ahead, share, write_behind

OnPrediction = Callable[[Item, np.ndarray, ConfusionMatrix], None]  # an image, its train ids, its own counts


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Test-time augmentation: mean of the class probabilities over scales and mirrors."""

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


def forward_logits(model: DeepLabV2, images: Tensor, precision: Precision) -> Tensor:
    """Images uint8 or float `[B,3,H,W]` -> float32 logits `[B,K,h,w]`."""
    with torch.inference_mode(), precision.autocast():
        return model(images.to(precision.device)).logits.float()


def view_logits(
    model: DeepLabV2, images: list[np.ndarray], size: tuple[int, int], precision: Precision, tta: TestTimeAugmentation
) -> list[Tensor]:
    """Logits `[B,K,h,w]` of RGB images in each view, mirrored ones turned back; size (width, height) is scale 1."""
    found = []
    for scale in tta.scales:
        scaled = size if scale == 1 else tuple(max(32, round(side * scale)) for side in size)
        batch = torch.stack([to_tensor(resize(image, scaled, cv2.INTER_LINEAR)) for image in images])
        found.append(forward_logits(model, batch, precision))
        if tta.flip:
            found.append(forward_logits(model, batch.flip(-1), precision).flip(-1))
    return found


def decide_each(views: list[Tensor], out_sizes: list[tuple[int, int]], with_entropy: bool = False) -> Iterator:
    """`decide` for each image of a batch."""
    for index, size in enumerate(out_sizes):
        yield decide([logits[index : index + 1] for logits in views], size, with_entropy)


def decide(views: list[Tensor], out_size: tuple[int, int], with_entropy: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Train ids uint8 `[H,W]` and entropy float32 `[H,W]` in [0,1] at out_size (width, height), a few rows at a time.

    Several views are averaged in probability.
    """
    size = (out_size[1], out_size[0])
    maps = [Upsampled(logits, size) for logits in views]
    train_ids = np.empty(size, np.uint8)
    entropy = np.empty(size, np.float32) if with_entropy else None
    with torch.inference_mode():
        for rows in maps[0].chunks():
            scores = maps[0].rows(rows)
            if len(maps) > 1:
                probs = sum((torch.softmax(view.rows(rows), 1) for view in maps[1:]), torch.softmax(scores, 1))
                scores = torch.log(probs / len(maps))
            # max, not argmax: the same index, found four times as fast on a processor
            train_ids[rows] = scores.max(1).indices[0].to(torch.uint8).cpu().numpy()
            if entropy is not None:
                entropy[rows] = entropy_map(scores)[0].clamp(0, 1).cpu().numpy()
    return train_ids, entropy


def evaluate_model(
    model: DeepLabV2,
    dataset: PreparedDataset,
    split: str,
    size: tuple[int, int],
    precision: Precision,
    reporter: Reporter,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    on_prediction: OnPrediction | None = None,
    threads: int = 2,
    process_group: ProcessGroup = ProcessGroup(),
) -> dict[str, Any]:
    """The JSON of `fgda evaluate` less its `checkpoint`; each of several processes gets the whole.

    Raises FgdaError when classes and labels do not fit.
    """
    classes, start = dataset.classes, time.perf_counter()
    if len(classes) != model.num_classes:
        raise FgdaError(f"the model has {model.num_classes} classes, {dataset.folder} has {len(classes)}")
    items = dataset.items(split, labelled=True)
    matrix, mine = ConfusionMatrix(len(classes)), share(items, process_group)
    pairs = read_ahead(lambda item: (dataset.image(item), dataset.label(item)), mine, threads)
    batches = batched(reporter.track(pairs, f"evaluate {dataset.name}", len(mine)), images_per_batch(size, precision.device))
    with write_behind(threads) as submit:
        for batch in batches:
            labels = [label for _, (_, label) in batch]
            views = view_logits(model, [image for _, (image, _) in batch], size, precision, tta)
            decisions = decide_each(views, [(label.shape[1], label.shape[0]) for label in labels])
            for (item, _), label, (prediction, _) in zip(batch, labels, decisions, strict=True):
                counts = ConfusionMatrix(len(classes))
                counts.update(label, prediction)
                matrix += counts
                if on_prediction is not None:
                    submit(on_prediction, item, prediction, counts)
    matrix.counts = process_group.sum(torch.from_numpy(matrix.counts).to(precision.device)).cpu().numpy()
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
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    on_prediction: OnPrediction | None = None,
    threads: int = 2,
    process_group: ProcessGroup = ProcessGroup(),
) -> dict[str, Any]:
    """Evaluate one checkpoint at the size its preset names."""
    from ..models.checkpoint import load_model

    model, info = load_model(path)
    model = precision.to_device(model)
    result = evaluate_model(model, dataset, split, info["size"], precision, reporter, tta, on_prediction, threads, process_group)
    return {"checkpoint": str(path), **result}


def headings(paths: list[Path]) -> list[str]:
    """Short distinct names: the run folder's where the file is a run's checkpoint."""
    names = [path.parent.parent.name if path.parent.name == "checkpoints" else path.stem for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
