"""Open and compare the data sets of a stage: classes, sizes, the input rule; decisions are
printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.classes import NOT_IN_SYNTHIA13, NOT_IN_SYNTHIA16, ClassSet, match_classes, mean_without
from ..data.geometry import InputRule, same_aspect
from ..data.labelled_subset import chosen_labels
from ..data.store import (
    AnyDataset,
    Item,
    PartOf,
    PreparedDataset,
    contents_hash,
    open_dataset,
    open_domain,
    rows_of,
    typical_size,
)
from ..methods.base import Method
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..settings import Data, Domain, Preset


@dataclass(frozen=True)
class Datasets:
    """The prepared data sets of a stage; `evaluation` None when there is nothing labelled to
    validate on.
    """

    classes: ClassSet
    source: AnyDataset | None
    target: AnyDataset | None
    labelled: AnyDataset | None
    evaluation: PreparedDataset | None
    untrained: tuple[int, ...]
    rule: InputRule

    def pixels(self) -> list[tuple[str, str, str, str]]:
        """Return what training reads: (domain, data set, split, hash of its images and labels), a
        line for each data set.
        """
        found = [
            (domain, part.name, "train", part.pixels("train"))
            for domain, dataset in (("source", self.source), ("target", self.target))
            if dataset is not None
            for part in getattr(dataset, "parts", [dataset])
        ]
        if self.labelled is not None:
            images = self.labelled.items("train", labelled=True)
            found.append(
                (
                    "labelled",
                    self.labelled.name,
                    "train",
                    contents_hash([(self.labelled, images)])[:12],
                )
            )
        return found


def open_datasets(
    preset: Preset,
    root: Path,
    method: type[Method],
    reporter: Reporter,
    start: dict[str, Any] | None = None,
) -> Datasets:
    """Open and compare all data sets of a stage, which begins as the checkpoint `start`.

    Raises FgdaError for one that is missing or does not fit, UsageError for a method without a
    source that has no start.
    """
    data = preset.data
    _check_roles(data)
    if method.uses_source:
        source = open_domain(root, data.source.dataset, data.source.weights)
        classes = source.classes
    else:
        source = None
        classes = _classes_of(start, preset.method.name)
    target = (
        open_domain(root, data.target.dataset, data.target.weights) if method.uses_target else None
    )
    labelled = _labelled(preset, root, target, classes=classes, reporter=reporter)
    evaluation = _evaluation(preset, root, classes, reporter=reporter)
    _say_shared(
        source,
        target,
        labelled=labelled,
        evaluated=evaluation,
        split=data.evaluation.split,
        reporter=reporter,
    )
    untrained = _untrained(preset, classes)
    for domain, dataset in ((data.source, source), (data.target, target)):
        if dataset is not None:
            _say_sizes(domain, dataset, reporter)
    if target is not None and evaluation is not None:
        _warn_of_other_rows(target, evaluation, data.evaluation.split, reporter=reporter)
    if data.evaluation.protocol == "paper":
        for dataset in (source, target):
            if dataset is not None and dataset.resample != "bicubic" and dataset.size is not None:
                reporter.decide(
                    f"{dataset.name} was resized by area; the published loaders use bicubic:"
                    " prepare it with --resample bicubic"
                )
    return Datasets(
        classes,
        source,
        target,
        labelled=labelled,
        evaluation=evaluation,
        untrained=untrained,
        rule=make_rule(preset, evaluation, target, reporter=reporter),
    )


def _warn_of_other_rows(
    target: AnyDataset, evaluation: PreparedDataset, split: str, reporter: Reporter
) -> None:
    """Warn where the target is trained on other rows of its frames than are evaluated."""
    trained = rows_of(target, "train")
    evaluated = rows_of(evaluation, split)
    if not set(evaluated) <= set(trained):
        reporter.warn(
            f"{target.name} is trained on {_rows_in_words(trained)}, and {evaluation.name} /"
            f" {split} evaluated on {_rows_in_words(evaluated)}: prepare both alike"
        )


def _rows_in_words(found: list[tuple[float, float] | None]) -> str:
    return " and ".join(
        "whole frames" if rows is None else "rows {:g} to {:g} %".format(*rows) for rows in found
    )


def _check_roles(data: Data) -> None:
    """Raise UsageError for a data set that is joined with itself, and for validation on what is
    trained on.
    """
    for name, domain in (("source", data.source), ("target", data.target)):
        joined = () if isinstance(domain.dataset, str) else domain.dataset
        if len(set(joined)) < len(joined):
            raise UsageError(
                f"data.{name}.dataset: one data set is named twice ({', '.join(joined)})\n"
                f"data.{name}.weights says how often the images of each are drawn"
            )
    if data.source.validation == "train":
        raise UsageError(
            "data.source.validation: train is the split that is trained on: name one that is held"
            " out (fgda prepare … --hold-out 15)"
        )


def _classes_of(start: dict[str, Any] | None, method: str) -> ClassSet:
    if start is None:
        raise UsageError(
            f"method {method} uses no source: it needs a trained model to start from (--init CKPT)"
        )
    try:
        return ClassSet.from_json(start["classes"])
    except (KeyError, ValueError) as error:
        raise FgdaError(
            f"the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})"
        ) from error


def make_rule(
    preset: Preset,
    evaluation: PreparedDataset | None,
    target: AnyDataset | None,
    reporter: Reporter,
) -> InputRule:
    """Return the rule for the size at which images enter the network, from the preset and the
    target's images.
    """
    wanted = preset.data.evaluation
    if wanted.size != preset.data.target.size:
        shown = ["x".join(map(str, size)) for size in (wanted.size, preset.data.target.size)]
        reporter.decide(
            f"images are evaluated at {shown[0]}, the target is trained at {shown[1]}"
            " (data.evaluation.size)"
        )
    if wanted.protocol == "paper":
        return InputRule(wanted.size, None, "bicubic", squeeze_all=True)
    if evaluation is not None:
        seen: tuple[AnyDataset, str] = (evaluation, wanted.split)
    elif target is not None:
        seen = (target, "train")
    else:
        return InputRule(wanted.size)
    like = typical_size(seen[0].items(seen[1]))
    trained_on = None if same_aspect(like, wanted.size) else like
    rows = rows_of(*seen)
    return InputRule(wanted.size, trained_on, rows=rows[0] if len(rows) == 1 else None)


def _labelled(
    preset: Preset, root: Path, target: AnyDataset | None, classes: ClassSet, reporter: Reporter
) -> AnyDataset | None:
    """Return the target images whose labels may be used (data.target.labelled), and report them."""
    wanted = preset.data.target.labelled
    if wanted is None or target is None:
        return None
    is_part = isinstance(wanted, int) or wanted == "all" or Path(wanted).is_file()
    labelled = (
        PartOf(target, chosen_labels(target, wanted, preset.run.seed))
        if is_part
        else open_domain(root, wanted)
    )
    if labelled.classes.names != classes.names:
        raise FgdaError(
            f"{labelled.name} and the source have different classes:"
            f" {', '.join(labelled.classes.names)}"
        )
    count = len(labelled.items("train", labelled=True))
    of = f" of {len(target.items('train'))}" if is_part else ""
    reporter.decide(
        f"labels of {count}{of} images of {labelled.name} are used in adaptation"
        f" (data.target.labelled: {wanted})"
    )
    return labelled


def _say_shared(
    source: AnyDataset | None,
    target: AnyDataset | None,
    labelled: AnyDataset | None,
    evaluated: PreparedDataset | None,
    split: str,
    reporter: Reporter,
) -> None:
    """Report images that are in two roles: in both domains, or trained on and evaluated on."""
    of_target = () if target is None else target.items("train")
    if source is not None:
        both = _shared(source.items("train"), of_target)
        if both:
            reporter.warn(
                f"{len(both)} images are in the source and in the target, e.g. {both[0].name}:"
                " between equal domains there is nothing to adapt"
            )
    if evaluated is None:
        return
    images = evaluated.items(split)
    for dataset in (source, labelled):
        both = () if dataset is None else _shared(dataset.items("train"), images)
        if both:
            reporter.warn(
                f"{len(both)} images whose labels training uses are also evaluated on, e.g."
                f" {both[0].name}: the figures say nothing of other images"
            )
    both = _shared(of_target, images)
    if both:
        reporter.decide(
            f"{len(both)} target images are also evaluated on, e.g. {both[0].name}: adaptation sees"
            " them, though not their labels"
        )


def _shared(first: Sequence[Item], second: Sequence[Item]) -> list[Item]:
    """Return the images of the first that the second has too: the same file, or equal pixels."""
    # a data set has tens of thousands of items and one folder
    real = {folder: folder.resolve() for folder in {item.folder for item in (*first, *second)}}
    files = {(real[item.folder], item.image) for item in second}
    pixels = {item.raw_hash for item in second if item.raw_hash is not None}
    return [
        item
        for item in first
        if (real[item.folder], item.image) in files or item.raw_hash in pixels
    ]


def _evaluation(
    preset: Preset, root: Path, classes: ClassSet, reporter: Reporter
) -> PreparedDataset | None:
    """Return the labelled images for validation; report and return None when there are none."""
    wanted = preset.data.evaluation
    tell = reporter.decide if preset.run.select == "label-free" else reporter.warn
    try:
        dataset = open_dataset(root, wanted.dataset)
        dataset.items(wanted.split, labelled=True)
    except FgdaError as error:
        tell(f"no labels to validate by during training: {error}")
        return None
    match = match_classes(classes, dataset.classes, "the source", what_theirs=dataset.name)
    if match.describe():
        reporter.decide(f"validation: {match.describe()}")
    left_out = {"miou": None, "miou16": NOT_IN_SYNTHIA16, "miou13": NOT_IN_SYNTHIA13}[wanted.metric]
    if left_out is not None and mean_without(left_out, match.shared) is None:
        reporter.decide(
            f"data.evaluation.metric: {wanted.metric} needs Cityscapes' classes, so miou picks"
            " best.pth"
        )
    return dataset


def _untrained(preset: Preset, classes: ClassSet) -> tuple[int, ...]:
    """Train ids of data.untrained. Raises UsageError for one that the source does not have."""
    names = []
    for entry in preset.data.untrained:
        known = entry in classes.names if isinstance(entry, str) else 0 <= entry < len(classes)
        if not known:
            raise UsageError(
                f"data.untrained: {entry} is not one of the {len(classes)} classes:"
                f" {', '.join(classes.names)}\nset data.untrained to ids or names of these, e.g."
                " --set data.untrained=[]"
            )
        names.append(classes.names.index(entry) if isinstance(entry, str) else entry)
    if len(set(names)) == len(classes):
        raise UsageError("data.untrained: every class is left out, so there is nothing to train")
    return tuple(sorted(set(names)))


def _say_sizes(domain: Domain, dataset: AnyDataset, reporter: Reporter) -> None:
    """Report a cache smaller than the training size, and images that training squeezes to another
    aspect.
    """
    own = typical_size(dataset.items("train"))
    cached = dataset.size
    width, height = domain.size
    if (
        cached is not None
        and (cached[0] < width or cached[1] < height)
        and (own[0] > cached[0] or own[1] > cached[1])
    ):
        reporter.warn(
            f"{dataset.name} was prepared at {cached[0]}x{cached[1]} and is enlarged to"
            f" {width}x{height}; better: fgda prepare … --size {width}x{height}"
        )
    largest = tuple(round(domain.scale[1] * side) for side in domain.size)
    if domain.crop is not None and (domain.crop[0] > largest[0] or domain.crop[1] > largest[1]):
        reporter.warn(
            "crops of {}x{} of {} are larger than its images ({}x{} at the largest scale): the"
            " rest of each crop is void".format(*domain.crop, dataset.name, *largest)
        )
    if not same_aspect(own, domain.size):
        factor = width / height / (own[0] / own[1])
        fitting = (
            round((width * height * own[0] / own[1]) ** 0.5 / 8) * 8,
            round((width * height * own[1] / own[0]) ** 0.5 / 8) * 8,
        )
        reporter.decide(
            f"{dataset.name} ({own[0]}x{own[1]}) is trained at {width}x{height}:"
            f" {'widened' if factor > 1 else 'narrowed'} by {max(factor, 1 / factor):.2f} (its own"
            f" aspect: {fitting[0]}x{fitting[1]})"
        )
