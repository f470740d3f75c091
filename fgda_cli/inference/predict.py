"""Prediction on images of any size, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..data.images import BadFile
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter
from .inputs import Input, frame_count, read_chunks
from .pipeline import batched, images_per_batch, write_behind
from .tta import TestTimeAugmentation, decide, decide_each, view_logits


def network_size(model: Segmenter, image: np.ndarray) -> tuple[int, int]:
    """Width and height at which an RGB image `[H,W,3]` enters the network: the model's rule, or the image's own."""
    height, width = image.shape[:2]
    return (width, height) if model.input_rule is None else model.input_rule(width, height)


def predict(
    model: Segmenter,
    image: np.ndarray,
    precision: Precision | None = None,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    out_size: tuple[int, int] | None = None,
) -> dict:
    """RGB uint8 `[H,W,3]` -> `train_ids` uint8 `[H,W]`, `entropy` float32 `[H,W]` in [0,1] (eq. 4), at the image's size.

    out_size (width, height), when given, is the size of the result, as evaluation wants the label's.

    Raises ValueError for an array of another kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"predict takes RGB uint8 [H,W,3], not {image.dtype} {list(image.shape)}")
    precision = precision or Precision("fp32", next(model.parameters()).device)
    views = view_logits(model, [image], network_size(model, image), precision, tta)
    size = out_size or (image.shape[1], image.shape[0])
    found = decide(views, size, with_entropy=True, align_corners=model.align_corners)
    return {"train_ids": found.train_ids, "entropy": found.entropy}


def predict_many(
    model: Segmenter,
    images: list[np.ndarray],
    precision: Precision,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    with_entropy: bool = True,
) -> list[dict]:
    """`predict` of each image; those of one network size are computed in batches."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(network_size(model, image), []).append(index)
    found: dict[int, dict] = {}
    for size, indices in groups.items():
        for batch in batched(indices, images_per_batch(size, precision.device)):
            views = view_logits(model, [images[index] for index in batch], size, precision, tta)
            sizes = [(images[index].shape[1], images[index].shape[0]) for index in batch]
            decisions = decide_each(views, sizes, with_entropy=with_entropy, align_corners=model.align_corners)
            for index, decision in zip(batch, decisions, strict=True):
                found[index] = {"train_ids": decision.train_ids, "entropy": decision.entropy}
    return [found[index] for index in range(len(images))]


class Counts(NamedTuple):
    """Images and frames predicted, and inputs that could not be read."""

    done: int
    bad: int


def predict_inputs(
    model: Segmenter,
    inputs: list[Input],
    precision: Precision,
    reporter: Reporter,
    write: Callable[[Input, np.ndarray, dict], None],
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    threads: int = 2,
    process_group: ProcessGroup = ProcessGroup(),
    label: str = "predict",
    with_entropy: bool = True,
    max_pixels: int | None = None,
) -> Counts:
    """`write(input, image, result of predict)`, in threads, for each that can be read; the others are warned of.

    The counts are those of all processes.
    """
    done = bad = 0
    total = sum(frame_count(item) if item.is_video else 1 for item in inputs) // process_group.size
    with reporter.progress(label, total) as advance, write_behind(threads) as submit:
        for chunk in read_chunks(inputs, threads, process_group, max_pixels):
            good = [(item, image) for item, image in chunk if not isinstance(image, BadFile)]
            for item, reason in chunk:
                if isinstance(reason, BadFile):
                    reporter.warn(f"{item.path}: {reason}")
            bad, done = bad + len(chunk) - len(good), done + len(good)
            results = predict_many(model, [image for _, image in good], precision, tta, with_entropy)
            for (item, image), result in zip(good, results, strict=True):
                submit(write, item, image, result)
            advance(len(chunk))
    counts = process_group.sum(torch.tensor([done, bad], device=precision.device))
    return Counts(*counts.tolist())


def fail_on_bad(bad: int, total: int) -> None:
    """Raises FgdaError when inputs could not be read: said last, after the others' results."""
    if bad:
        raise FgdaError(f"{bad} of {total} inputs could not be read (see the warnings above)")
