"""What looks at a network on its way: labels where there are any, signals on unlabelled target frames; which picks the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..config.schema import Preset
from ..inference.evaluate import evaluate_model
from ..inference.label_free import Verdict, judge, score
from ..inference.unlabelled import Frames, Observed, frames_of, observe
from ..methods.base import Method
from ..models import checkpoint
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from .setup import Datasets

FRAMES = 40  # of the target, evenly spread over its training images


@dataclass
class LabelFree:
    """The signals of a network against those of the one that the run began as (`before`; saved with the run)."""

    build: Callable[[dict], Segmenter]
    frames: Frames
    names: tuple[str, ...]
    precision: Precision
    before: Observed | None = None
    after: Observed | None = None
    iteration: int | None = None  # whose network `after` is of

    def look(self, state: dict) -> Observed:
        return observe(self.build(state), self.frames, self.precision)

    def score(self, state: dict, iteration: int) -> float:
        """Points of mIoU that the signals let expect beyond the start; 0 of the first network that is looked at. That of the
        iteration that was looked at last is not looked at again."""
        if iteration != self.iteration:
            self.after, self.iteration = self.look(state), iteration
        if self.before is None:
            self.before = self.after
        return score(self.before, self.after)

    def verdict(self) -> Verdict | None:
        """On the network that was looked at last."""
        return None if self.before is None or self.after is None else judge(self.before, self.after, self.names)


@dataclass
class Judges:
    """`by_labels`: a model's state to metrics. `picks_by_labels` says whose score sets best.pth; neither: none is set."""

    by_labels: Callable[[dict], dict[str, Any]] | None = None
    label_free: LabelFree | None = None
    picks_by_labels: bool = True

    @property
    def picks_label_free(self) -> bool:
        return not self.picks_by_labels and self.label_free is not None


def make_judges(
    preset: Preset,
    stage: str,
    method: type[Method],
    data: Datasets,
    precision: Precision,
    group: ProcessGroup,
    reporter: Reporter,
) -> Judges:
    """Who judges, as run.select says; said aloud. `check_selection` has asked whether the data allows it."""

    def build(state: dict) -> Segmenter:
        model = checkpoint.build_model(preset.model, len(data.classes))
        model.load_state_dict(state)
        model.input_rule = data.rule
        return precision.to_device(model).eval()

    wanted, classes = preset.run.select, data.classes
    by_labels = None if data.evaluation is None else partial(_by_labels, build, preset, data, precision, group)
    label_free = None
    if stage == "adapt" and data.target is not None:
        label_free = LabelFree(build, frames_of(data.target, "train", data.rule, FRAMES), classes.names, precision)
    guarded = wanted == "auto" and method.guarded
    picks_by_labels = by_labels is not None and wanted != "label-free" and not guarded
    if stage == "adapt":
        how = f"the labels of {data.evaluation.name}" if picks_by_labels else "signals without labels"
        if picks_by_labels or label_free is not None:
            reporter.decide(f"best.pth is picked by {how} (run.select: {wanted})")
    return Judges(by_labels, label_free, picks_by_labels)


def check_selection(preset: Preset, stage: str, method: type[Method], data: Datasets) -> None:
    """Raises UsageError for a run.select that the data does not allow."""
    wanted = preset.run.select
    if wanted == "labels" and data.evaluation is None:
        raise UsageError("run.select: labels needs labelled images of the target (data.evaluation): set it to label-free")
    if wanted == "label-free" and data.target is None and stage == "adapt":
        raise UsageError(f"run.select: label-free needs a target: method {preset.method.name} reads none")


def _by_labels(
    build: Callable[[dict], Segmenter], preset: Preset, data: Datasets, precision: Precision, group: ProcessGroup, state: dict
) -> dict[str, Any]:
    split, quiet = preset.data.evaluation.split, Reporter(quiet=True)
    return evaluate_model(build(state), data.classes, data.evaluation, split, precision, quiet, process_group=group)
