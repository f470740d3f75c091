"""Evaluate one or several checkpoints: results, saved predictions, pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassSet
from ..data.store import Item, PreparedDataset, open_anywhere
from ..inference.counts import EvaluationCounts, Extras
from ..inference.evaluate import Manner, evaluate_file, headings
from ..inference.outputs import Ids, SavedIds
from ..inference.tta import TestTimeAugmentation
from ..metrics import ConfusionMatrix
from ..models.checkpoint import load
from ..runtime.devices import Precision
from ..runtime.distributed import join
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter
from .changes import Evaluated, change, comparison_page
from .compare import from_dataset
from .look import LOOK, MOST_CHECKPOINTS, look_page
from .report import ImageScores, evaluation_page, write_page
from .verdict import start_of

RESAMPLES = 1000  # of the images, for intervals
LOOKED_AT = 20  # images of the page to look in, evenly spaced


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `fgda evaluate`."""

    data: str | None  # name or folder; None: what each checkpoint's preset names
    split: str
    root: Path
    precision: Precision
    tta: TestTimeAugmentation = TestTimeAugmentation()
    protocol: str | None = None
    save_predictions: Path | None = None
    ids: str = "train"
    report: Path | None = None
    threads: int | None = None
    extras: Extras = Extras()
    mean: bool = False  # one result, of the mean of all checkpoints' probabilities

    def dataset_for(self, content: dict[str, Any]) -> PreparedDataset:
        name = self.data or content["preset"]["data"]["evaluation"]["dataset"]
        return open_anywhere(self.root, name)


@dataclass(frozen=True)
class Keep:
    """Keeps each evaluated image's score, and its ids when they are saved."""

    scores: ImageScores
    save: SavedIds | None

    def __call__(self, item: Item, train_ids: np.ndarray, counts: ConfusionMatrix) -> None:
        self.scores(item, train_ids, counts)
        if self.save is not None:
            self.save(item, train_ids)


def evaluate_all(paths: list[Path], wanted: EvaluationOptions, reporter: Reporter) -> tuple[list[str], list[dict[str, Any]]]:
    """Return a heading and the JSON of `evaluate` for each checkpoint; files go where `wanted` says."""
    group = join(wanted.precision.device)
    if not wanted.mean:
        paths = start_first(paths, reporter)
    names = headings(paths)
    judged: list[Evaluated] = []
    together = tuple(paths[1:]) if wanted.mean else ()
    if together:
        paths, names = paths[:1], [f"mean of {len(paths)}"]
    for path, heading in zip(paths, names, strict=True):
        content = load(path, exported=True)
        try:
            dataset, classes = wanted.dataset_for(content), ClassSet.from_json(content["classes"])
        except (KeyError, TypeError, ValueError) as error:
            raise FgdaError(f"{path}: the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})") from error
        below = heading.strip("./").replace("/", "_") if len(paths) > 1 else ""
        saved = wanted.save_predictions and SavedIds(wanted.save_predictions / below, Ids(wanted.ids, classes))
        keep = Keep(ImageScores(), saved)
        counted: list[EvaluationCounts] = []
        manner = Manner(wanted.tta, wanted.extras, wanted.threads, group, keep, counted.append)
        result = evaluate_file(
            path, dataset, wanted.split, wanted.precision, reporter, manner, wanted.protocol, content, together
        )
        parts = group.gather(keep.scores.scores)
        scores = {name: score for part in parts for name, score in part.items()}
        judged.append(Evaluated(heading, result, counted[0], scores))
        if len(judged) > 1 and wanted.extras.resamples and _comparable(judged[0], judged[-1], reporter):
            result["change"] = change(judged[0], judged[-1])
        if wanted.report is not None and group.is_first:
            page = evaluation_page(result, scores, dataset, wanted.precision, wanted.tta, f"{'../' if below else ''}{LOOK}")
            reporter.say(f"report: {write_page(wanted.report / below / 'index.html', page)}")
    share_classes([one.result for one in judged], reporter)
    changed = [judged[0], *(one for one in judged[1:] if "change" in one.result)]
    if wanted.report is not None and group.is_first:
        shown, scenes = paths[:MOST_CHECKPOINTS], from_dataset(dataset, judged[-1].result["split"], LOOKED_AT)
        write_page(wanted.report / LOOK, look_page(scenes, shown, headings(shown), wanted.precision, reporter))
    if wanted.report is not None and group.is_first and len(changed) > 1:
        page = comparison_page(changed, dataset, wanted.precision, wanted.tta, LOOK)
        reporter.say(f"comparison: {write_page(wanted.report / 'index.html', page)}")
    return names, [one.result for one in judged]


def start_first(paths: list[Path], reporter: Reporter) -> list[Path]:
    """Return the checkpoints in order: one that others began as comes before them, because changes are counted from it."""
    starts = {start.resolve() for path in paths if (start := start_of(path)) is not None and start.is_file()}
    first = [path for path in paths if path.resolve() in starts]
    if len(first) != 1 or first[0] == paths[0]:
        return paths
    reporter.decide(f"changes are counted from {first[0]}, from which the others were adapted")
    return [*first, *(path for path in paths if path != first[0])]


def share_classes(results: list[dict[str, Any]], reporter: Reporter) -> None:
    """Add the mean over the classes that all results were evaluated on, where these differ; said."""
    shared = [name for name in results[0]["evaluated"] if all(name in result["evaluated"] for result in results)]
    if all(set(result["evaluated"]) == set(shared) for result in results):
        return
    reporter.decide(
        f"the checkpoints have different classes: compared on the {len(shared)} that all have ({', '.join(shared) or 'none'}); "
        "each one's own mIoU is over its own classes"
    )
    for result in results:
        known = [result["iou"][name] for name in shared if result["iou"][name] is not None]
        result["shared"] = {"classes": shared, "miou": float(np.mean(known)) if known else None}


def _comparable(first: Evaluated, other: Evaluated, reporter: Reporter) -> bool:
    """Return whether both were counted on the same images in the same classes; report why not."""
    same = first.result["classes"] == other.result["classes"] and first.totals.images.keys() == other.totals.images.keys()
    if not same:
        reporter.decide(f"{other.heading} is not compared with {first.heading}: their classes or images differ")
    return same
