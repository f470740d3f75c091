"""Prediction of a user's files into a folder: which results, which of them are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.classes import ClassSet
from ..data.video import library
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import join
from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from ..runtime.written import Written, planned
from .inputs import InputImage
from .outputs import Ids, Pictures, Videos, hash_of_options, remaining
from .predict import Counts, Reading, predict_inputs
from .tta import TestTimeAugmentation


@dataclass(frozen=True)
class Results:
    """What is written where: kinds of pictures, `video` among them for one MP4 of each video; what
    that shows; the kind of ids.
    """

    out: Path
    kinds: tuple[str, ...]
    video: str = "overlay"
    ids: str = "train"
    skip_existing: bool = False

    @property
    def stills(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.kinds if kind != "video")

    @property
    def has_videos(self) -> bool:
        return "video" in self.kinds


def predict_files(
    model: Segmenter,
    classes: ClassSet,
    checkpoints: list[Path],
    inputs: list[InputImage],
    results: Results,
    precision: Precision,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    reading: Reading = Reading(),
    others: tuple[Segmenter, ...] = (),
    reporter: Reporter = Reporter(quiet=True),
) -> Counts:
    """Predict the inputs by the mean of the networks of `checkpoints` (`model`, then `others`), and
    write the results.

    Raises UsageError before the first prediction: for videos that are none or would be overwritten,
    for ids that the classes do not have, for a file that a person made or changed.
    """
    process_group = join(precision.device)
    if results.has_videos:
        library("--save video")
        _check_videos(inputs, results)
    ids = Ids(results.ids, classes)
    made_by = hash_of_options(checkpoints, tta, results.ids, precision)
    if results.skip_existing:
        inputs = _left(inputs, results, made_by, reporter=reporter)
    names = Pictures.names(inputs, results.stills)
    if results.has_videos:
        names += [f"{item.name}.mp4" for item in inputs if item.is_video]
    pictures = Pictures(
        results.out,
        classes,
        results.stills,
        ids=ids,
        written=planned(results.out, names, process_group),
        made_by=made_by,
    )
    if "ids" in results.kinds and ids.note():
        reporter.decide(ids.note())
    if process_group.is_first:
        pictures.write_legend()
    return predict_inputs(
        model,
        inputs,
        precision,
        reporter=reporter,
        write=Videos(pictures, results.video) if results.has_videos else pictures,
        tta=tta,
        reading=reading,
        process_group=process_group,
        with_entropy=results.has_videos and results.video == "side",
        others=others,
    )


def _left(
    inputs: list[InputImage], results: Results, made_by: str, reporter: Reporter
) -> list[InputImage]:
    """The inputs that have no results of these networks and options yet; says how many have."""
    left, otherwise = remaining(inputs, results.stills, Written(results.out), made_by)
    reporter.decide(f"{len(inputs) - len(left)} images have results already")
    if otherwise:
        reporter.decide(
            f"{otherwise} have results of another checkpoint, of other options or of an image that"
            " has changed: they are predicted again"
        )
    return left


def _check_videos(inputs: list[InputImage], results: Results) -> None:
    """Raise UsageError where MP4s alone are asked for and no input is a video, or where one would
    be written over its input.
    """
    videos = [item for item in inputs if item.is_video]
    if not videos and not results.stills:
        raise UsageError("--save video: none of the inputs is a video")
    for item in videos:
        made = results.out / f"{item.name}.mp4"
        if item.stream is None and made.resolve() == item.path.resolve():
            raise UsageError(
                f"--out {results.out}: the result would overwrite the input {item.path}"
            )
