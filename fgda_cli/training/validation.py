"""Validators that score the model during training, by labels or by signals on unlabelled target
images; one picks the best.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ..data.classes import ClassSet
from ..data.geometry import InputRule
from ..data.images import evenly_spaced
from ..data.store import AnyDataset
from ..inference.evaluate import Manner, evaluate_model
from ..methods.base import Method
from ..models import checkpoint
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..settings import Domain, Preset
from ..signals.observe import Frames, Observed, frames_of, observe
from ..signals.score import FEW_FRAMES, Verdict, score, verdict_on
from .datasets import Datasets

# frames for the signals, evenly spread over the target's training images
FRAMES = 40


@dataclass
class LabelFree:
    """Score a model by its signals against those of the model that the run began as (`before`,
    saved with the run).
    """

    build: Callable[[dict], Segmenter]
    frames: Frames
    names: tuple[str, ...]
    precision: Precision
    before: Observed | None = None
    after: Observed | None = None
    # iteration of the network that gave `after`
    iteration: int | None = None

    def fit(self, state: dict, limit: float) -> None:
        """Observe fewer frames, ten at least, where all would take more than a fiftieth of a time
        limit (seconds).
        """
        model = self.build(state)
        start = time.monotonic()
        observe(model, Frames(self.frames.images[:1]), self.precision)
        seconds = time.monotonic() - start
        self.use(max(FEW_FRAMES, int(limit / 50 / seconds)))

    def use(self, count: int) -> None:
        self.frames = Frames(evenly_spaced(self.frames.images, count))

    def look(self, state: dict) -> Observed:
        return observe(self.build(state), self.frames, self.precision)

    def score(self, state: dict, iteration: int) -> float:
        """Return the expected change of mIoU, in points, since the first model that was scored,
        which has 0.

        A second call for the same iteration returns the cached score.
        """
        if iteration != self.iteration:
            self.after = self.look(state)
            self.iteration = iteration
        if self.before is None:
            self.before = self.after
        return score(self.before, self.after)

    def verdict(self) -> Verdict | None:
        """Return the verdict on the model that was scored last."""
        return (
            None
            if self.before is None or self.after is None
            else verdict_on(self.before, self.after, self.names)
        )


@dataclass
class Validators:
    """Validators of a run, which map a model's state to metrics; `picks_by_labels` says whose score
    sets best.pth.
    """

    by_labels: Callable[[dict], dict[str, Any]] | None = None
    label_free: LabelFree | None = None
    picks_by_labels: bool = True
    # scores held-out source images; if there is one, it picks the best checkpoint
    by_source: Callable[[dict], dict[str, Any]] | None = None

    @property
    def picks_label_free(self) -> bool:
        return not self.picks_by_labels and self.label_free is not None


def make_validators(
    preset: Preset,
    stage: str,
    method: type[Method],
    data: Datasets,
    precision: Precision,
    group: ProcessGroup,
    reporter: Reporter,
) -> Validators:
    """Return the validators that run.select asks for, and report the choice."""

    # Random weights for each look would cost more than the look at few images.
    network = cache(
        lambda: precision.to_device(checkpoint.build_model(preset.model, len(data.classes))).eval()
    )

    def build(state: dict, rule: InputRule = data.rule) -> Segmenter:
        model = network()
        model.load_state_dict(state)
        model.input_rule = rule
        return model

    wanted = preset.run.select
    classes = data.classes
    split = preset.data.evaluation.split
    by_labels = None
    if data.evaluation is not None:
        by_labels = partial(_by_labels, build, data.evaluation, split, classes, precision, group)
    label_free = None
    if stage == "adapt" and data.target is not None:
        label_free = LabelFree(
            build,
            frames_of(data.target, "train", data.rule, count=FRAMES),
            classes.names,
            precision=precision,
        )
    guarded = wanted == "auto" and method.guarded
    picks_by_labels = by_labels is not None and wanted != "label-free" and not guarded
    by_source = None
    if stage == "pretrain" and preset.data.source.validation is not None and wanted != "labels":
        rule = InputRule(_typical_size(preset.data.source))
        by_source = partial(
            _by_labels,
            partial(build, rule=rule),
            data.source,
            preset.data.source.validation,
            classes,
            precision,
            group,
        )
        reporter.decide(
            f"best.pth is picked by the split {preset.data.source.validation} of {data.source.name}"
        )
    if stage == "adapt":
        how = (
            f"the labels of {data.evaluation.name}" if picks_by_labels else "signals without labels"
        )
        if picks_by_labels or label_free is not None:
            reporter.decide(f"best.pth is picked by {how} (run.select: {wanted})")
    return Validators(by_labels, label_free, picks_by_labels, by_source=by_source)


def _typical_size(domain: Domain) -> tuple[int, int]:
    """Return the size of a domain's images at the geometric mean of its random scales, sides
    multiples of 8.
    """
    factor = (domain.scale[0] * domain.scale[1]) ** 0.5
    return tuple(round(side * factor / 8) * 8 for side in domain.size)


def check_selection(preset: Preset, stage: str, method: type[Method], data: Datasets) -> None:
    """Check run.select and the validation split. Raises UsageError when the data does not allow
    them.
    """
    wanted = preset.run.select
    held_out = preset.data.source.validation
    if stage == "pretrain" and held_out is not None:
        try:
            data.source.items(held_out, labelled=True)
        except FgdaError as error:
            raise UsageError(f"data.source.validation: {error}") from None
    if (
        stage == "pretrain"
        and wanted == "label-free"
        and held_out is None
        and preset.run.patience is not None
    ):
        raise UsageError(
            "run.patience waits for a better score, and pretrain has none: run.select is label-free"
            " and data.source.validation names no split\nhold one out (prepare … --hold-out 15,"
            " data.source.validation=val), or leave run.patience out"
        )
    if wanted == "labels" and data.evaluation is None:
        raise UsageError(
            "run.select: labels needs labelled images of the target (data.evaluation): set it to"
            " label-free"
        )
    if wanted == "label-free" and data.target is None and stage == "adapt":
        raise UsageError(
            f"run.select: label-free needs a target: method {preset.method.name} reads none"
        )


def _by_labels(
    build: Callable[[dict], Segmenter],
    dataset: AnyDataset,
    split: str,
    classes: ClassSet,
    precision: Precision,
    group: ProcessGroup,
    state: dict,
) -> dict[str, Any]:
    manner = Manner(process_group=group)
    return evaluate_model(
        build(state),
        classes,
        dataset,
        split=split,
        precision=precision,
        reporter=Reporter(quiet=True),
        manner=manner,
    ).to_json()
