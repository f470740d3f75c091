"""Evaluation: images enter by the model's input rule, logits at the label's own size, exact counts,
classes by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import (
    NOT_IN_SYNTHIA13,
    NOT_IN_SYNTHIA16,
    ClassMatch,
    ClassSet,
    match_classes,
    mean_without,
)
from ..data.geometry import InputRule
from ..data.names import shown
from ..data.store import AnyDataset, Item
from ..metrics import ConfusionMatrix, interval
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import UsageError
from ..runtime.record import run_of
from ..runtime.reporter import Reporter
from .counts import LEAST_DRAWN, EvaluationCounts, Extras, mean_of
from .pipeline import batched_by, images_per_batch, read_ahead, share, write_behind
from .tta import Decision, TestTimeAugmentation, decide_each, naming, view_logits

# an image, its prediction, its own counts
OnPrediction = Callable[[Item, Decision, ConfusionMatrix], None]


@dataclass(frozen=True)
class Manner:
    """How an evaluation computes, what it counts beside IoU, and who receives each prediction.

    `on_prediction` gets every image; `with_entropy` computes its entropy too.
    """

    tta: TestTimeAugmentation = TestTimeAugmentation()
    extras: Extras = Extras()
    threads: int | None = None
    process_group: ProcessGroup = ProcessGroup()
    on_prediction: OnPrediction | None = None
    with_entropy: bool = False


@dataclass
class EvaluationResult:
    """An evaluation of one network, or of the mean of several: what was evaluated on what, how, and
    all counts.

    Everything that shows or compares evaluations reads it. `data` is a hash of the images and
    labels: two results are of the same data only where it is equal.
    """

    checkpoints: tuple[str, ...]
    dataset: str
    data: str
    split: str
    match: ClassMatch
    counts: EvaluationCounts
    rule: InputRule
    protocol: str
    tta: TestTimeAugmentation
    seconds: float
    # the first checkpoint's own facts
    info: dict[str, Any] = field(default_factory=dict)
    # change of IoU from another result (studies/changes.py)
    change: dict[str, Any] | None = None
    # the mean over the classes that several results have
    shared: dict[str, Any] | None = None

    @property
    def classes(self) -> ClassSet:
        return self.match.ours

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Return the classes that model and data set share."""
        return self.match.shared

    @property
    def images(self) -> int:
        return len(self.counts.images)

    @property
    def iou(self) -> dict[str, float | None]:
        """Return IoU in percent by class; None for one that is not evaluated, or that neither truth
        nor prediction has.
        """
        values = dict(zip(self.classes.names, self.counts.matrix.iou(), strict=True))
        return {
            name: float(value) if name in self.evaluated and not np.isnan(value) else None
            for name, value in values.items()
        }

    @property
    def miou(self) -> float | None:
        return self.mean(self.evaluated)

    def mean(self, over: tuple[str, ...] | None) -> float | None:
        """Return the mean IoU over some classes; None without any."""
        if over is None:
            return None
        return self.counts.matrix.miou(
            tuple(k for k, name in enumerate(self.classes.names) if name not in over)
        )

    def interval_of(self, over: tuple[str, ...]) -> tuple[float, float] | None:
        """Return the interval of the mean over some classes; None where none was asked for, or
        images are too few.
        """
        drawn = self.counts.resampled[1] if self.counts.extras.resamples else None
        if drawn is None:
            return None
        return interval(mean_of(drawn[:, [self.classes.names.index(name) for name in over]]))

    def unlabelled_classes(self) -> list[str]:
        """Return classes that were predicted though no label shows them: they enter the mean with
        0.
        """
        shown = self.counts.shown()
        predicted = self.counts.matrix.counts.sum(0) > 0
        return [
            name
            for k, name in enumerate(self.classes.names)
            if name in self.evaluated and predicted[k] and not shown[k]
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `fgda evaluate`."""
        together = {"with": list(self.checkpoints[1:])} if len(self.checkpoints) > 1 else {}
        more = {"change": self.change, "shared": self.shared}
        return {
            **({"checkpoint": self.checkpoints[0]} if self.checkpoints else {}),
            **together,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "classes": list(self.classes.names),
            "iou": self.iou,
            "miou": self.miou,
            "miou16": self.mean(mean_without(NOT_IN_SYNTHIA16, self.evaluated)),
            "miou13": self.mean(mean_without(NOT_IN_SYNTHIA13, self.evaluated)),
            "pixel_accuracy": self.counts.matrix.pixel_accuracy(),
            "confusion": self.counts.matrix.counts.tolist(),
            "seconds": round(self.seconds, 3),
            "evaluated": list(self.evaluated),
            "input": self.rule.to_json(),
            "data": self.data,
            "protocol": self.protocol,
            "views": self.tta.to_json(),
            **self.counts.extra_json(self.classes.names, self.evaluated),
            **{key: value for key, value in more.items() if value is not None},
        }


def evaluate_model(
    model: Segmenter,
    classes: ClassSet,
    dataset: AnyDataset,
    split: str,
    precision: Precision,
    reporter: Reporter,
    manner: Manner = Manner(),
    others: tuple[Segmenter, ...] = (),
) -> EvaluationResult:
    """Return the result of a network that is in memory; each of several processes gets the whole.

    Class probabilities are averaged with those of `others`, networks of the same classes. `classes`
    are the model's; the data set's are matched to them by name. Raises FgdaError when they do not
    fit.
    """
    start = time.perf_counter()
    extras = manner.extras
    process_group = manner.process_group
    match = match_classes(classes, dataset.classes, "the model", what_theirs=dataset.name)
    to_ours = None if match.is_identity else match.table()
    items = dataset.items(split, labelled=True)
    totals = EvaluationCounts(len(classes), extras)
    mine = share(items, process_group)
    pairs = read_ahead(
        lambda item: (dataset.image(item), dataset.label(item)), mine, manner.threads
    )
    tracked = reporter.track(pairs, f"evaluate {dataset.name}", len(mine))
    rule = model.input_rule
    batches = batched_by(
        lambda pair: rule(*pair[0].size),
        tracked,
        lambda size: images_per_batch(size, precision.device),
    )
    with write_behind(manner.threads) as submit:
        for size, batch in batches:
            labels = [label if to_ours is None else to_ours[label] for _, (_, label) in batch]
            images = [image for _, (image, _) in batch]
            with naming([item.name for item, _ in batch]):
                views = view_logits(
                    model, images, size, precision=precision, tta=manner.tta, others=others
                )
            sizes = [(label.shape[1], label.shape[0]) for label in labels]
            decisions = decide_each(
                views,
                sizes,
                with_entropy=manner.with_entropy,
                with_confidence=extras.calibration,
                align_corners=model.align_corners,
            )
            for (item, _), label, decision in zip(batch, labels, decisions, strict=True):
                counts = totals.add(item.name, label, decision)
                if manner.on_prediction is not None:
                    submit(manner.on_prediction, item, decision, counts)
    totals.join(process_group)
    return EvaluationResult(
        checkpoints=(),
        dataset=dataset.name,
        data=dataset.pixels(split),
        split=split,
        match=match,
        counts=totals,
        rule=rule,
        protocol="paper" if rule.squeeze_all else "fgda",
        tta=manner.tta,
        seconds=time.perf_counter() - start,
    )


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
) -> EvaluationResult:
    """Evaluate one checkpoint as its input rule says, or as `protocol` does ("paper": squeezed by
    Pillow's bicubic).

    `content` is the file's, where it is loaded already; `with_paths` are checkpoints whose
    probabilities are averaged with its. Raises UsageError for those of other classes, sizes or ways
    to enlarge.
    """
    from ..models.checkpoint import load, model_of

    model, info = model_of(content or load(path, exported=True), path)
    precision.to_device(model)
    others = networks_beside(path, model, info, with_paths, precision=precision)
    if (
        protocol == "paper"
        and info["stage"] == "import"
        and model.input_rule.resample not in ("area", "bicubic")
    ):
        reporter.decide(
            f"{path}: --protocol paper is not applied: images enter as this file's authors resize"
            " them"
        )
    elif protocol is not None:
        model.input_rule = with_protocol(model.input_rule, protocol)
    match = match_classes(info["classes"], dataset.classes, str(path), what_theirs=dataset.name)
    if match.describe():
        reporter.decide(f"{dataset.name}: {match.describe()}")
    if split == "train":
        _say_seen(path, info, dataset.name, reporter)
    result = evaluate_model(
        model,
        info["classes"],
        dataset,
        split=split,
        precision=precision,
        reporter=reporter,
        manner=manner,
        others=others,
    )
    result.checkpoints = tuple(map(str, (path, *with_paths)))
    result.info = info
    _say_untaught(path, info["untaught"] or (), result.iou, reporter=reporter)
    unlabelled = result.unlabelled_classes()
    if unlabelled:
        reporter.decide(
            f"{path}: predicted, but no label shows it (IoU 0 in the mean): {shown(unlabelled)}"
        )
    if extras_lack_images(result):
        reporter.decide(f"no intervals: {result.images} images, at least {LEAST_DRAWN} are needed")
    return result


def extras_lack_images(result: EvaluationResult) -> bool:
    """Return whether intervals were asked for, of too few images."""
    return bool(result.counts.extras.resamples) and result.counts.resampled[1] is None


def _say_seen(path: Path, info: dict[str, Any], name: str, reporter: Reporter) -> None:
    """Say that a checkpoint has seen a data set's training images: scores on them tell nothing of
    new ones.
    """
    data = info["preset"].get("data", {})

    def is_of(domain: str) -> bool:
        names = data.get(domain, {}).get("dataset") or ()
        return name == names if isinstance(names, str) else name in names

    in_target = info["stage"] == "adapt" and is_of("target")
    labelled = data.get("target", {}).get("labelled")
    if is_of("source") or name == labelled or (in_target and labelled is not None):
        reporter.decide(f"{path} was trained on labels of {name} / train: this is no test")
    elif in_target:
        reporter.decide(f"{path} was adapted to the images of {name} / train, without their labels")


def _say_untaught(
    path: Path, untaught: Sequence[str], iou: dict[str, float | None], reporter: Reporter
) -> None:
    """Say which classes of the mean the source never showed, and the mean without them."""
    absent = [name for name in untaught if iou.get(name) is not None]
    taught = [value for name, value in iou.items() if value is not None and name not in absent]
    if absent and taught:
        reporter.decide(
            f"{path}: its source never shows {shown(absent)}; mIoU over the other {len(taught)}"
            f" classes: {np.mean(taught):.1f}"
        )


def networks_beside(
    path: Path,
    model: Segmenter,
    info: dict[str, Any],
    with_paths: tuple[Path, ...],
    precision: Precision,
) -> tuple[Segmenter, ...]:
    """Return the networks whose probabilities are averaged with those of a checkpoint's `model`,
    whose facts are `info`. Raises UsageError for others that do not fit, and for one that is there
    twice.
    """
    from ..models.checkpoint import load_model, refuse_same

    others = []
    for other_path in with_paths:
        other, facts = load_model(other_path, exported=True)
        for what, theirs, ours in (
            ("classes", facts["classes"].names, info["classes"].names),
            ("input sizes", other.input_rule, model.input_rule),
            ("align_corners", other.align_corners, model.align_corners),
        ):
            if theirs != ours:
                raise UsageError(
                    f"{other_path} and {path} have other {what}: their mean cannot be taken"
                )
        others.append(other)
    refuse_same(zip((path, *with_paths), (model, *others), strict=True))
    return tuple(precision.to_device(other) for other in others)


def with_protocol(rule: InputRule, protocol: str) -> InputRule:
    paper = protocol == "paper"
    return replace(rule, resample="bicubic" if paper else "area", squeeze_all=paper, within=False)


def headings(paths: list[Path]) -> list[str]:
    """Return short distinct names of checkpoints: the run folder's where there is one."""
    runs = [run_of(path) for path in paths]
    names = [path.stem if run is None else run.name for path, run in zip(paths, runs, strict=True)]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]
