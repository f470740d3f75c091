"""Evaluation: images enter by the model's input rule, logits at the label's own size, exact counts, classes by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import NOT_IN_SYNTHIA13, NOT_IN_SYNTHIA16, ClassMatch, ClassSet, match_classes, mean_without
from ..data.geometry import InputRule
from ..data.names import shown
from ..data.store import AnyDataset, Item
from ..metrics import ConfusionMatrix
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from .counts import EvaluationCounts, Extras
from .pipeline import batched_by, images_per_batch, read_ahead, share, write_behind
from .predict import predict
from .tta import TestTimeAugmentation, decide_each, view_logits

OnPrediction = Callable[[Item, np.ndarray, ConfusionMatrix], None]  # an image, its train ids, its own counts


@dataclass(frozen=True)
class Manner:
    """How an evaluation computes, what it counts beside IoU, and who receives each prediction.

    `on_prediction` gets every image, `on_totals` what was counted of all.
    """

    tta: TestTimeAugmentation = TestTimeAugmentation()
    extras: Extras = Extras()
    threads: int | None = None
    process_group: ProcessGroup = ProcessGroup()
    on_prediction: OnPrediction | None = None
    on_totals: Callable[[EvaluationCounts], None] | None = None


def evaluate_model(
    model: Segmenter,
    classes: ClassSet,
    dataset: AnyDataset,
    split: str,
    precision: Precision,
    reporter: Reporter,
    manner: Manner = Manner(),
    others: tuple[Segmenter, ...] = (),
) -> dict[str, Any]:
    """Return the JSON of `fgda evaluate` without its `checkpoint`; each of several processes gets the whole.

    Class probabilities are averaged with those of `others`, networks of the same classes. `classes` are the model's; the data
    set's are matched to them by name. Raises FgdaError when they do not fit.
    """
    start, extras, process_group = time.perf_counter(), manner.extras, manner.process_group
    match = match_classes(classes, dataset.classes, "the model", dataset.name)
    to_ours = None if match.is_identity else match.table()
    items = dataset.items(split, labelled=True)
    totals, mine = EvaluationCounts(len(classes), extras), share(items, process_group)
    pairs = read_ahead(lambda item: (dataset.image(item), dataset.label(item)), mine, manner.threads)
    tracked = reporter.track(pairs, f"evaluate {dataset.name}", len(mine))
    rule = model.input_rule
    batches = batched_by(lambda pair: rule(*pair[0].size), tracked, lambda size: images_per_batch(size, precision.device))
    with write_behind(manner.threads) as submit:
        for size, batch in batches:
            labels = [label if to_ours is None else to_ours[label] for _, (_, label) in batch]
            images = [image for _, (image, _) in batch]
            views = view_logits(model, images, size, precision, manner.tta, others)
            sizes = [(label.shape[1], label.shape[0]) for label in labels]
            decisions = decide_each(views, sizes, with_confidence=extras.calibration, align_corners=model.align_corners)
            for (item, _), label, decision in zip(batch, labels, decisions, strict=True):
                counts = totals.add(item.name, label, decision)
                if manner.on_prediction is not None:
                    submit(manner.on_prediction, item, decision.train_ids, counts)
    totals.join(process_group)
    if manner.on_totals is not None:
        manner.on_totals(totals)
    seconds = time.perf_counter() - start
    result = result_json(totals.matrix, match, dataset.name, split, len(items), seconds, rule)
    return result | totals.extra_json(classes.names, match.shared)


def result_json(
    matrix: ConfusionMatrix,
    match: ClassMatch,
    dataset: str,
    split: str,
    images: int,
    seconds: float,
    rule: InputRule,
) -> dict[str, Any]:
    """Return IoU in percent of the classes that model and data set share; others are null and enter no mean."""
    names, shared = match.ours.names, match.shared

    def mean(over: tuple[str, ...] | None) -> float | None:
        return None if over is None else matrix.miou(tuple(k for k, name in enumerate(names) if name not in over))

    iou = dict(zip(names, matrix.iou(), strict=True))
    return {
        "dataset": dataset,
        "split": split,
        "images": images,
        "classes": list(names),
        "iou": {name: float(iou[name]) if name in shared and not np.isnan(iou[name]) else None for name in names},
        "miou": mean(shared),
        "miou16": mean(mean_without(NOT_IN_SYNTHIA16, shared)),
        "miou13": mean(mean_without(NOT_IN_SYNTHIA13, shared)),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "confusion": matrix.counts.tolist(),
        "seconds": round(seconds, 3),
        "evaluated": list(shared),
        "input": rule.to_json(),
    }


def evaluate_file(
    path: Path,
    dataset: AnyDataset,
    split: str,
    precision: Precision,
    reporter: Reporter,
    manner: Manner = Manner(),
    protocol: str | None = None,
    content: dict[str, Any] | None = None,
    with_paths: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Evaluate one checkpoint as its input rule says, or as `protocol` does ("paper": squeezed by Pillow's bicubic).

    `content` is the file's, where it is loaded already; `with_paths` are checkpoints whose probabilities are averaged with its.
    Raises UsageError for those of other classes, sizes or ways to enlarge.
    """
    model, info, others = open_networks(path, with_paths, precision, content)
    if protocol == "paper" and info["stage"] == "import" and model.input_rule.resample not in ("area", "bicubic"):
        reporter.decide(f"{path}: --protocol paper is not applied: images enter as this file's authors resize them")
    elif protocol is not None:
        model.input_rule = with_protocol(model.input_rule, protocol)
    match = match_classes(info["classes"], dataset.classes, str(path), dataset.name)
    if match.describe():
        reporter.decide(f"{dataset.name}: {match.describe()}")
    result = evaluate_model(model, info["classes"], dataset, split, precision, reporter, manner, others)
    _say_untaught(path, content or {}, result["iou"], reporter)
    together = {"with": [str(other) for other in with_paths]} if with_paths else {}
    return {"checkpoint": str(path), **together, **result}


def _say_untaught(path: Path, content: dict[str, Any], iou: dict[str, float | None], reporter: Reporter) -> None:
    """Say which classes of the mean the source never showed, and the mean without them."""
    absent = [name for name in content.get("untaught") or () if iou.get(name) is not None]
    taught = [value for name, value in iou.items() if value is not None and name not in absent]
    if absent and taught:
        reporter.decide(
            f"{path}: its source never shows {shown(absent)}; mIoU over the other {len(taught)} classes: {np.mean(taught):.1f}"
        )


def open_networks(
    path: Path, with_paths: tuple[Path, ...], precision: Precision, content: dict[str, Any] | None = None
) -> tuple[Segmenter, dict[str, Any], tuple[Segmenter, ...]]:
    """Return a checkpoint's network and facts, and the networks whose probabilities are averaged with its.

    `content` is the file's, where it is loaded already. Raises UsageError for others that do not fit.
    """
    from ..models.checkpoint import load, load_model, model_of

    model, info = model_of(content or load(path, exported=True), path)
    others = []
    for other_path in with_paths:
        other, facts = load_model(other_path, exported=True)
        for what, theirs, ours in (
            ("classes", facts["classes"].names, info["classes"].names),
            ("input sizes", other.input_rule, model.input_rule),
            ("align_corners", other.align_corners, model.align_corners),
        ):
            if theirs != ours:
                raise UsageError(f"{other_path} and {path} have other {what}: their mean cannot be taken")
        others.append(precision.to_device(other))
    return precision.to_device(model), info, tuple(others)


class AsEvaluated:
    """Predict single images as an evaluation did: by the same networks, input rule and views. For pages of its result."""

    def __init__(self, result: dict[str, Any], precision: Precision, tta: TestTimeAugmentation):
        others = tuple(Path(text) for text in result.get("with", ()))
        self.model, self.info, self.others = open_networks(Path(result["checkpoint"]), others, precision)
        self.model.input_rule = InputRule.from_json(result["input"])
        self.classes: ClassSet = self.info["classes"]
        self.precision, self.tta = precision, tta

    def __call__(self, image: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Return `train_ids` and `entropy` of an RGB uint8 image `[H,W,3]` at (width, height)."""
        return predict(self.model, image, self.precision, self.tta, size, self.others)


def with_protocol(rule: InputRule, protocol: str) -> InputRule:
    paper = protocol == "paper"
    return replace(rule, resample="bicubic" if paper else "area", squeeze_all=paper, within=False)


def headings(paths: list[Path]) -> list[str]:
    """Return short distinct names of checkpoints: the run folder's where there is one."""
    names = [path.parent.parent.name if path.parent.name == "checkpoints" else path.stem for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
