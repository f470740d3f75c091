"""Evaluate one or several checkpoints on one data set: results, saved predictions, a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassSet
from ..data.store import Item, PreparedDataset, open_anywhere
from ..inference.counts import Extras
from ..inference.evaluate import EvaluationResult, Manner, evaluate_file, headings
from ..inference.outputs import Ids, SavedIds
from ..inference.tta import Decision, TestTimeAugmentation
from ..metrics import ConfusionMatrix
from ..models.checkpoint import load
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup, join
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..runtime.written import planned
from .changes import change
from .evaluation_page import Candidate, KeptPredictions, evaluation_page, kept_below
from .report import check_page, write_page
from .verdict import start_of

# draws of the images, for intervals
RESAMPLES = 1000


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `fgda evaluate`; data and split are what the checkpoints' presets name where None
    is given.
    """

    data: str | None
    split: str | None
    root: Path
    precision: Precision
    tta: TestTimeAugmentation = TestTimeAugmentation()
    protocol: str | None = None
    save_predictions: Path | None = None
    ids: str = "train"
    report: Path | None = None
    threads: int | None = None
    extras: Extras = Extras()
    # average all checkpoints' probabilities: one result
    mean: bool = False


@dataclass(frozen=True)
class Receivers:
    """Hands each prediction to those that want it."""

    each: list[Any] = field(default_factory=list)

    def __call__(self, item: Item, decision: Decision, counts: ConfusionMatrix) -> None:
        for receive in self.each:
            receive(item, decision, counts)


def evaluate_all(
    paths: list[Path], wanted: EvaluationOptions, reporter: Reporter
) -> tuple[list[str], list[EvaluationResult]]:
    """Return a heading and the result for each checkpoint; files go where `wanted` says.

    Raises UsageError for checkpoints whose presets name different data, before anything is
    evaluated.
    """
    group = join(wanted.precision.device)
    candidates = _candidates(paths, wanted, reporter)
    dataset, split = _one_dataset(candidates, wanted)
    check_page(wanted.report)
    saved = [
        _saved(one, candidates, dataset, split=split, wanted=wanted, group=group, reporter=reporter)
        for one in candidates
    ]
    with kept_below(wanted.report, group) as folder:
        for number, one in enumerate(candidates):
            receivers = Receivers([] if saved[number] is None else [saved[number]])
            if folder is not None:
                one.kept = KeptPredictions(folder / str(number))
                receivers.each.append(one.kept)
            manner = Manner(
                wanted.tta,
                wanted.extras,
                wanted.threads,
                process_group=group,
                on_prediction=receivers if receivers.each else None,
                with_entropy=folder is not None,
            )
            one.result = evaluate_file(
                one.path,
                dataset,
                split,
                precision=wanted.precision,
                reporter=reporter,
                manner=manner,
                protocol=wanted.protocol,
                content=one.content,
                with_paths=one.together,
            )
            first = candidates[0].result
            if number and wanted.extras.resamples and _comparable(candidates[0], one, reporter):
                one.result.change = change(first, one.result)
        results = [one.result for one in candidates]
        share_classes(results, reporter)
        if wanted.report is not None and group.is_first:
            page = evaluation_page(candidates, dataset, split, reporter=reporter)
            write_page(wanted.report, page, reporter)
    return [one.heading for one in candidates], results


def _candidates(
    paths: list[Path], wanted: EvaluationOptions, reporter: Reporter
) -> list[Candidate]:
    if wanted.mean:
        return [
            Candidate(
                paths[0],
                f"mean of {len(paths)}",
                load(paths[0], exported=True),
                together=tuple(paths[1:]),
            )
        ]
    paths = start_first(paths, reporter)
    return [
        Candidate(path, heading, load(path, exported=True))
        for path, heading in zip(paths, headings(paths), strict=True)
    ]


def _one_dataset(
    candidates: list[Candidate], wanted: EvaluationOptions
) -> tuple[PreparedDataset, str]:
    """Return the data set and split of all candidates. Raises UsageError where their presets name
    different ones, FgdaError for images without labels.
    """
    named: dict[tuple[str, str], Candidate] = {}
    for one in candidates:
        evaluation = one.content["preset"]["data"]["evaluation"]
        name = wanted.data or evaluation["dataset"]
        split = wanted.split or ("val" if wanted.data else evaluation.get("split", "val"))
        named.setdefault((name, split), one)
    opened = {key: open_anywhere(wanted.root, key[0]) for key in named}
    data = {key: dataset.pixels(key[1]) for key, dataset in opened.items()}
    if len(set(data.values())) > 1:
        first, second, *_ = ((*key, one) for key, one in named.items())
        raise UsageError(
            f"{first[2].path} is evaluated on {first[0]} / {first[1]}, {second[2].path} on"
            f" {second[0]} / {second[1]}: they are compared on one data set\nname it with --data"
            " (and --split)"
        )
    key, dataset = next(iter(opened.items()))
    try:
        dataset.items(key[1], labelled=True)
    except FgdaError as error:
        checkpoint = candidates[0].path
        raise FgdaError(
            f"{error}\nname labelled images with --data, or judge without labels: fgda verdict"
            f" {checkpoint}"
        ) from error
    return dataset, key[1]


def _saved(
    one: Candidate,
    candidates: list[Candidate],
    dataset: PreparedDataset,
    split: str,
    wanted: EvaluationOptions,
    group: ProcessGroup,
    reporter: Reporter,
) -> SavedIds | None:
    """Return what writes a candidate's predicted ids; None where they are not asked for."""
    if wanted.save_predictions is None:
        return None
    out = wanted.save_predictions / (one.folder if len(candidates) > 1 else "")
    ids = Ids(wanted.ids, ClassSet.from_json(one.content["classes"]))
    if ids.note():
        reporter.decide(ids.note())
    names = [f"{item.name}.png" for item in dataset.items(split, labelled=True)]
    return SavedIds(out, ids, planned(out, names, group))


def start_first(paths: list[Path], reporter: Reporter) -> list[Path]:
    """Return the checkpoints in order: one that others began as comes before them, because changes
    are counted from it.
    """
    starts = {
        start.resolve()
        for path in paths
        if (start := start_of(path)) is not None and start.is_file()
    }
    first = [path for path in paths if path.resolve() in starts]
    if len(first) != 1 or first[0] == paths[0]:
        return paths
    reporter.decide(f"changes are counted from {first[0]}, from which the others were adapted")
    return [*first, *(path for path in paths if path != first[0])]


def share_classes(results: list[EvaluationResult], reporter: Reporter) -> None:
    """Add the mean over the classes that all results were evaluated on, where these differ;
    said.
    """
    shared = [
        name for name in results[0].evaluated if all(name in result.evaluated for result in results)
    ]
    if all(set(result.evaluated) == set(shared) for result in results):
        return
    reporter.decide(
        f"the checkpoints have different classes: compared on the {len(shared)} that all have"
        f" ({', '.join(shared) or 'none'}); each one's own mIoU is over its own classes"
    )
    for result in results:
        known = [result.iou[name] for name in shared if result.iou[name] is not None]
        result.shared = {
            "classes": shared,
            "miou": float(np.mean(known)) if known else None,
            "interval": result.interval_of(tuple(shared)),
        }


def _comparable(first: Candidate, other: Candidate, reporter: Reporter) -> bool:
    """Return whether both were counted on the same data in the same classes; report why not."""
    one = first.result
    two = other.result
    same = (
        one.classes == two.classes
        and one.data == two.data
        and one.counts.images.keys() == two.counts.images.keys()
    )
    if not same:
        reporter.decide(
            f"{other.heading} is not compared with {first.heading}: their classes or images differ"
        )
    return same
