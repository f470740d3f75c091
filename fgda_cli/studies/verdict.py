"""`fgda verdict`: whether adapted networks got better on frames without labels, and what
changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassSet
from ..data.loader import training_split
from ..data.store import open_anywhere
from ..inference.inputs import spread_images
from ..models.checkpoint import load, load_model, weights_hash
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError, UsageError
from ..runtime.record import recorded
from ..runtime.reporter import Reporter
from ..signals.observe import (
    MEANINGS,
    Frames,
    Observed,
    feature_distance,
    frames_of,
    look_at_source,
    observe,
)
from ..signals.score import Verdict, verdict_on
from ..visual import html
from .compare import Scene, predicted
from .look import MOST_CHECKPOINTS, of_how_many, script, viewer

TITLES = {
    "steady_mirror": "agreement, mirrored",
    "steady_scale": "agreement, enlarged",
    "steady_light": "agreement, other light",
    "bn_distance": "distance to batch norm",
    "feature_distance": "distance of features",
}


@dataclass(frozen=True)
class VerdictOptions:
    """Options of `fgda verdict`."""

    root: Path
    images: tuple[str, ...] = ()
    data: str | None = None
    baseline: Path | None = None
    frames: int = 40
    max_pixels: int | None = None
    label_maps: bool = False


@dataclass
class ObservedCheckpoint:
    """A checkpoint, and what was found."""

    path: Path
    heading: str
    observed: Observed
    verdict: Verdict | None  # None: the baseline
    # mIoU on source frames, percent
    source: float | None
    # total variation between predicted shares and the source's
    prior_distance: float | None

    def to_json(self) -> dict[str, Any]:
        tree = {
            "checkpoint": str(self.path),
            "signals": self.observed.signals,
            "source_miou": self.source,
            "prior_distance": self.prior_distance,
        }
        return tree | ({"verdict": "baseline"} if self.verdict is None else self.verdict.to_json())


@dataclass
class Study:
    """All that was judged, the baseline first."""

    checkpoints: list[ObservedCheckpoint]
    classes: ClassSet
    frames: Frames
    # the frames' origin in words
    what: str
    notes: list[str] = field(default_factory=list)


def run_verdict(
    checkpoints: list[Path],
    headings: list[str],
    wanted: VerdictOptions,
    precision: Precision,
    reporter: Reporter,
) -> Study:
    """Judge checkpoints without labels. Raises UsageError when their start is not known, FgdaError
    for files that do not fit.
    """
    baseline = wanted.baseline or started_from(checkpoints, reporter)
    paths = [baseline, *(path for path in checkpoints if path.resolve() != baseline.resolve())]
    if len(paths) == 1:
        raise UsageError(
            f"{baseline} is the baseline itself: name the checkpoints that were adapted from it"
        )
    own = {path: ClassSet.from_json(load(path)["classes"]).names for path in paths}
    for path in paths[1:]:
        if own[path] != own[baseline]:
            raise FgdaError(
                f"{path} and {baseline} have different classes: no verdict can be given"
            )
    names = dict(zip(checkpoints, headings, strict=True))
    study: Study | None = None
    for path in paths:
        model, info = load_model(path)
        precision.to_device(model)
        if study is None:
            own_size = model.input_rule.size
            frames, what = target_frames(wanted, model, info, reporter=reporter)
            source, prior = source_frames(wanted, info, reporter)
            study = Study([], info["classes"], frames, what=what)
        elif model.input_rule.size != own_size:
            reporter.decide(
                "{} was trained at {}x{}, and is judged at the baseline's {}x{}".format(
                    path, *model.input_rule.size, *own_size
                )
            )
        reporter.say(f"looking at {path}")
        observed = observe(model, frames, precision)
        verdict = (
            verdict_on(study.checkpoints[0].observed, observed, study.classes.names)
            if study.checkpoints
            else None
        )
        kept = distance = None
        if source is not None:
            kept, features = look_at_source(model, source, precision)
            observed.signals["feature_distance"] = feature_distance(features, observed.features)
            distance = float(np.abs(observed.shares - prior).sum() / 2)
        study.checkpoints.append(
            ObservedCheckpoint(
                path,
                names.get(path, "baseline"),
                observed,
                verdict=verdict,
                source=kept,
                prior_distance=distance,
            )
        )
    return study


def started_from(checkpoints: list[Path], reporter: Reporter) -> Path:
    """Return the checkpoint that all of these began as, from their run folders. Raises UsageError
    when that is not known.
    """
    start_by_checkpoint = {path: start_of(path) for path in checkpoints}
    starts = {
        start.resolve()
        for start in start_by_checkpoint.values()
        if start is not None and start.is_file()
    }
    if len(starts) == 1:
        start = next(
            start for start in start_by_checkpoint.values() if start is not None and start.is_file()
        )
        reporter.decide(f"baseline: {start}, from which the checkpoints were adapted")
        return start
    why = (
        "began as different ones"
        if starts
        else "do not say what they began as, or it is gone or has changed"
    )
    raise UsageError(f"the checkpoints {why}\nname the model before adaptation: --baseline CKPT")


def start_of(path: Path) -> Path | None:
    """Return the checkpoint that a run's checkpoint began as, from its run folder; None when it is
    unknown or gone.

    A run folder may have been copied with those beside it, so its neighbour comes before the path
    that was recorded; either counts only with the weights that the run began from.
    """
    folder = path.parent.parent
    recorded_start = recorded(
        folder, lambda record: (Path(record["stage"]["init"]), record["stage"].get("init_hash"))
    )
    if recorded_start is None:
        return None
    start, wanted = recorded_start
    candidates = [folder.parent.joinpath(*start.parts[-3:]), start]
    return next(
        (
            candidate
            for candidate in candidates
            if candidate.is_file() and _has_weights(candidate, wanted)
        ),
        None,
    )


def _has_weights(path: Path, wanted: str | None) -> bool:
    """Return whether a checkpoint's weights have this hash; an older run recorded none."""
    if wanted is None:
        return True
    try:
        return weights_hash(load(path)["model"]) == wanted
    except (FgdaError, KeyError):
        return False


def target_frames(
    wanted: VerdictOptions, model: Segmenter, info: dict, reporter: Reporter
) -> tuple[Frames, str]:
    """Return frames at the size at which they enter the network, and the name of their data."""
    if wanted.images:
        count = max(1, wanted.frames // len(wanted.images))
        images = [
            image
            for text in wanted.images
            for image in spread_images(
                text,
                count,
                True,
                max_pixels=wanted.max_pixels,
                label_maps=wanted.label_maps,
                reporter=reporter,
            )
        ]
        rule = model.input_rule
        sized = [rule.resize(image, rule(image.shape[1], image.shape[0])) for image in images]
        return Frames(sized), f"{len(sized)} images"
    name = wanted.data or info["preset"]["data"]["target"]["dataset"]
    dataset = open_anywhere(wanted.root, name)
    split = training_split(dataset)
    frames = frames_of(dataset, split, model.input_rule, count=wanted.frames)
    return (
        frames,
        f"{len(frames.images)} of {len(dataset.items(split))} images of {dataset.name} / {split}",
    )


def source_frames(
    wanted: VerdictOptions, info: dict, reporter: Reporter
) -> tuple[Frames | None, np.ndarray | None]:
    """Return labelled frames of the source and its class shares; None, reported, when it is not at
    hand.
    """
    source = info["preset"]["data"]["source"]
    try:
        dataset = open_anywhere(wanted.root, source["dataset"])
        if dataset.classes.names != info["classes"].names:
            return None, None
        frames = frames_of(
            dataset, "train", tuple(source["size"]), count=wanted.frames // 2 or 1, labelled=True
        )
    except FgdaError as error:
        reporter.decide(f"no look at the source: {str(error).splitlines()[0]}")
        return None, None
    counts = np.sum(
        [item.counts for item in dataset.items("train", labelled=True)], axis=0, dtype=np.float64
    )
    return frames, counts / max(counts.sum(), 1)


def shown_of(study: Study) -> list[ObservedCheckpoint]:
    """Return the checkpoints whose predictions the page shows."""
    return study.checkpoints[:MOST_CHECKPOINTS]


def scenes_of(study: Study, precision: Precision, reporter: Reporter) -> list[Scene]:
    """Return the frames with the predictions that the page shows, the baseline's first."""
    scenes = [
        Scene(image, name=study.frames.name(number))
        for number, image in enumerate(study.frames.images)
    ]
    models = [precision.to_device(load_model(one.path)[0]) for one in shown_of(study)]
    return list(reporter.track(predicted(scenes, models, precision), "looking", len(scenes)))


def verdict_page(study: Study, scenes: list[Scene]) -> str:
    """Return a page: the verdicts, the class shares, and the frames, by up to four of the
    checkpoints, the baseline first.
    """
    base, *others = study.checkpoints
    shown = shown_of(study)
    names = [one.heading for one in shown]
    own = [study.classes] * len(shown)
    frames = viewer(scenes, names, own, classes=study.classes, sort="changed")
    sections = []
    for one in others:
        words = "".join(f"<li>{escape(word)}</li>" for word in one.verdict.words)
        shares = _shares_table(base, one, study.classes)
        sections.append(
            html.section(one.heading, f"<ul>{words}</ul>{shares}", one.verdict.in_words())
        )
    return html.page(
        "Verdict without labels",
        [study.what, f"baseline {base.path}"],
        html.cards({one.heading: one.verdict.kind for one in others}),
        *sections,
        html.section(
            "Frames",
            frames,
            f"Those that changed most come first.{of_how_many(len(study.checkpoints))}",
        ),
        html.section("Signals", _signals_table(study)),
        script=script(),
    )


def _signals_table(study: Study) -> str:
    keys = list(study.checkpoints[0].observed.signals)
    rows = []
    for key in keys:
        cells = (f"{one.observed.signals[key]:.3f}" for one in study.checkpoints)
        rows.append((TITLES.get(key, key), *cells, escape(MEANINGS[key])))
    for label, values in (
        ("source mIoU %", [one.source for one in study.checkpoints]),
        (
            "distance from the source's class shares",
            [one.prior_distance for one in study.checkpoints],
        ),
    ):
        if values[0] is not None:
            rows.append((label, *(f"{value:.2f}" for value in values), ""))
    headings = (escape(one.heading) for one in study.checkpoints)
    return html.table(("signal", *headings, "what it says"), rows, kinds=["words"])


def _shares_table(base: ObservedCheckpoint, one: ObservedCheckpoint, classes: ClassSet) -> str:
    rows = []
    for k, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        was = 100 * base.observed.shares[k]
        now = 100 * one.observed.shares[k]
        before = 100 * base.observed.steady[k]
        after = 100 * one.observed.steady[k]
        label = f"{html.swatch(colour)}{escape(name)}"
        figures = (f"{before:.0f}", f"{after:.0f}", f"{was:.1f}", f"{now:.1f}")
        rows.append((label, *figures, html.class_bar(now, colour)))
    headings = ("class", "agrees % before", "after", "pixels % before", "after", "")
    return html.table(headings, rows, kinds=["track"])
