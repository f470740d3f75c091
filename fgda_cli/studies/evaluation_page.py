"""The page of `fgda evaluate --report`: scores of the checkpoints, what changed between them, and
their frames to look around in.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.classes import union_of
from ..data.images import apart, evenly_spaced, write_image
from ..data.store import Item, PreparedDataset
from ..inference.evaluate import EvaluationResult
from ..inference.tta import Decision
from ..metrics import MEANS, ConfusionMatrix
from ..runtime.distributed import ProcessGroup
from ..runtime.files import make_folder
from ..runtime.reporter import Reporter
from ..visual import html
from ..visual.plots import reliability
from ..visual.tables import show
from .changes import LEAST
from .compare import Scene
from .look import MOST_CHECKPOINTS, of_how_many, script, viewer

# frames of the page, evenly spaced
EVENLY = 20
# further ones: the worst, the best, those that lost most, and those that gained most
EXTREMES = 4
# bars of classes whose interval lies on one side of 0, and of all others
LOST = "#c43c28"
GAINED = "#2271b1"
UNCLEAR = "#9aa5b1"


class KeptPredictions:
    """The predictions of one checkpoint: train ids exactly, entropies in 256 steps."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, item: Item, decision: Decision, counts: ConfusionMatrix) -> None:
        write_image(self._path(item.name, "ids"), decision.train_ids, compression=1, sync=False)
        if decision.entropy is not None:
            entropy = np.round(decision.entropy * 255).astype(np.uint8)
            write_image(self._path(item.name, "entropy"), entropy, compression=1, sync=False)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        """Return `train_ids` uint8 and `entropy` float32, `[H,W]`, of an image by its name."""
        ids, entropy = (
            cv2.imdecode(np.fromfile(self._path(name, part), np.uint8), cv2.IMREAD_UNCHANGED)
            for part in ("ids", "entropy")
        )
        return {"train_ids": ids, "entropy": entropy.astype(np.float32) / 255}

    def _path(self, name: str, part: str) -> Path:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:24]
        return self.folder / f"{digest}-{part}.png"


@contextmanager
def kept_below(report: Path | None, process_group: ProcessGroup) -> Iterator[Path | None]:
    """Yield a folder for the predictions of a report, which all processes share; it is deleted at
    the end.
    """
    if report is None:
        yield None
        return
    folder = report / ".fgda-predictions"

    def make() -> int:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        return 0

    process_group.first_decides(make)
    try:
        yield folder
    finally:
        if process_group.is_first:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Candidate:
    """A checkpoint that is evaluated: its name in tables, its content, and the files whose mean it
    is the first of.
    """

    path: Path
    heading: str
    content: dict[str, Any]
    together: tuple[Path, ...] = ()
    result: EvaluationResult | None = None
    kept: KeptPredictions | None = None

    @property
    def folder(self) -> str:
        """Return the name of its folder below the one for predictions."""
        return self.heading.strip("./").replace("/", "_")


def evaluation_page(
    candidates: list[Candidate], dataset: PreparedDataset, split: str, reporter: Reporter
) -> str:
    """Return the page. Its frames show the predictions that were scored, by up to four of the
    candidates.
    """
    first = candidates[0]
    result = first.result
    changed = [one for one in candidates if one.result.change is not None]
    shown = candidates[:MOST_CHECKPOINTS]
    own = [one.result.classes for one in shown]
    items = chosen_frames(shown, dataset.items(split, labelled=True))
    frames = viewer(
        reporter.track(_scenes(dataset, items, shown), "looking", len(items)),
        [one.heading for one in shown],
        own,
        classes=union_of([*own, dataset.classes]),
        sort="lost" if changed else "worst",
    )
    note = (
        "An image's mIoU is over the classes that it shows or was given. On the page are"
        f" {EVENLY} frames evenly spaced, the worst and the best, and those that changed most."
        f"{of_how_many(len(candidates))}"
    )
    return html.page(
        "Evaluation",
        [
            f"{result.dataset} / {result.split}, {result.images} images (pixels {result.data})",
            f"{result.tta.describe()}, protocol {result.protocol}",
        ],
        html.cards(_means(candidates)),
        *(_change_section(first, one) for one in changed),
        *(_classes(one) for one in candidates),
        html.section("Frames", frames, note),
        *(section for one in candidates for section in _errors(one)),
        script=script(),
    )


def _means(candidates: list[Candidate]) -> dict[str, str]:
    """Every mean of one checkpoint, or the mIoU of each of several."""
    if len(candidates) > 1:
        return {f"mIoU of {one.heading}": f"{show(one.result.miou)} %" for one in candidates}
    tree = candidates[0].result.to_json()
    return {name: f"{show(tree[key])} %" for key, name in MEANS.items() if tree[key] is not None}


def _classes(one: Candidate) -> str:
    """The IoU by class of one checkpoint, and what it is."""
    result = one.result
    together = "mean of " if len(result.checkpoints) > 1 else ""
    stage = f"{result.info['stage']} {result.info['method']}"
    facts = (
        f"{together}{', '.join(result.checkpoints)} · {stage}, iteration"
        f" {result.info['iteration']} · {result.seconds:.0f} s"
    )
    table = html.iou_rows(result.to_json(), result.classes.palette)
    return html.section(f"{one.heading}: IoU by class", table, facts)


def _errors(one: Candidate) -> Iterator[str]:
    """Yield the calibration, if it was measured, and the confusions of one checkpoint."""
    tree = one.result.to_json()
    if "calibration" in tree:
        note = (
            f"Expected calibration error {show(tree['calibration']['ece'])} %; bars below the line"
            " are too sure."
        )
        plot = html.figure_svg(reliability(tree["calibration"]))
        yield html.section(f"{one.heading}: calibration", plot, note)
    note = "Rows are the truth, columns the prediction, percent of each row."
    yield html.section(f"{one.heading}: confusions", html.confusion_heat(tree), note)


def chosen_frames(shown: list[Candidate], items: list[Item]) -> list[Item]:
    """Return the frames of the page in order: some evenly spaced, the worst and the best of the
    last candidate, and those that lost and gained most from the first to each of the others.
    """
    first, *others = (one.result.counts.scores for one in shown)
    last = others[-1] if others else first
    rankings = [(last, 1), (last, -1)]
    for scores in others:
        gains = {name: scores[name] - first[name] for name in first.keys() & scores.keys()}
        rankings += [(gains, 1), (gains, -1)]
    wanted = {item.name for item in evenly_spaced(items, EVENLY)}
    for values, sign in rankings:
        ranked = sorted(values, key=lambda name: (sign * values[name], name))
        wanted.update(apart(ranked, EXTREMES, values))
    return [item for item in items if item.name in wanted]


def _scenes(dataset: PreparedDataset, items: list[Item], shown: list[Candidate]) -> Iterator[Scene]:
    for item in items:
        image = np.ascontiguousarray(dataset.image(item))
        predictions = [one.kept[item.name] for one in shown]
        yield Scene(
            image, dataset.label(item), dataset.classes, name=item.name, predictions=predictions
        )


def _change_section(first: Candidate, other: Candidate) -> str:
    change = other.result.change
    note = (
        f"Points of IoU; intervals of 95 % over {change['resamples']} draws of the"
        f" {change['drawn']}, the same for both. Red: worse beyond the interval (negative"
        " transfer), blue: better."
    )
    return html.section(f"{first.heading} → {other.heading}", _bars(first, other), note)


def _bars(first: Candidate, other: Candidate) -> str:
    """A table of IoU by class, with a bar from 0 for each change and its interval as a line."""
    change: dict[str, Any] = other.result.change
    entries = {"mean": change["miou"], **change["iou"]}
    bounds = [
        bound
        for entry in entries.values()
        for bound in (entry["change"], *(entry["interval"] or ()))
    ]
    # the longest bar reaches the end of its track
    reach = max(map(abs, bounds)) or 1.0
    rows = []
    for name, entry in entries.items():
        points = entry["change"]
        low, high = entry["interval"] or (points, points)
        is_clear = abs(points) >= LEAST
        colour = UNCLEAR
        if is_clear and high < 0:
            colour = LOST
        elif is_clear and low > 0:
            colour = GAINED
        span = f"{low:+.1f} to {high:+.1f}" if entry["interval"] else "–"
        bar = html.change_bar(points / reach, low / reach, high / reach, colour=colour)
        # "mean" is no class
        before, after = (show(one.result.iou.get(name, one.result.miou)) for one in (first, other))
        rows.append((escape(name), before, after, f"{points:+.1f}", span, bar))
    headings = ("class", "IoU % before", "after", "change", "95 %", "")
    return html.table(headings, rows, kinds=["span", "track"])
