"""Comparison sheets: image, truth when there is one, and under each checkpoint its labels and its
entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.classes import ClassMatch, ClassSet, union_of
from ..data.images import evenly_spaced
from ..data.store import PreparedDataset
from ..data.video import Clip, frame_count
from ..inference.inputs import collect, read_inputs, readable
from ..inference.predict import predict
from ..models.checkpoint import load_model
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter
from ..visual.pictures import colourise, grid, heat, with_legend


@dataclass(frozen=True)
class Scene:
    """An RGB image `[H,W,3]` and, when known, its train ids `[H,W]` in the terms of `classes`; what
    checkpoints predict on it.
    """

    image: np.ndarray
    truth: np.ndarray | None = None
    classes: ClassSet | None = None
    name: str = ""
    # one for each checkpoint: train_ids, entropy
    predictions: list[dict[str, np.ndarray]] = field(default_factory=list)


def from_dataset(dataset: PreparedDataset, split: str, most: int) -> list[Scene]:
    """Return scenes spread evenly over a split, with their truth where it has labels."""
    return [
        Scene(
            np.ascontiguousarray(dataset.image(item)),
            None if item.label is None else dataset.label(item),
            dataset.classes,
            name=item.name,
        )
        for item in evenly_spaced(dataset.items(split), most)
    ]


def gather(
    inputs: list[str],
    root: Path,
    most: int,
    threads: int | None = None,
    label_maps: bool = False,
    reporter: Reporter = Reporter(quiet=True),
) -> list[Scene]:
    """Return at most `most` scenes of images, videos and folders, or of prepared data sets by
    folder or name.

    They are spread over all inputs, evenly within each; images that cannot be read are left out and
    warned of. Raises FgdaError when none can be read.
    """
    sources = [_source_of(text, root, label_maps, reporter=reporter) for text in inputs]
    counts = _shared_out(most, [size for size, _ in sources])
    scenes = [
        scene
        for count, (_, read) in zip(counts, sources, strict=True)
        if count
        for scene in read(count, threads)
    ]
    if not scenes:
        raise FgdaError(f"{', '.join(inputs)}: no image could be read")
    return scenes


def _shared_out(most: int, sizes: list[int]) -> list[int]:
    """How many of `most` each source gives: alike as far as it has so many."""
    counts = [0] * len(sizes)
    while sum(counts) < most and counts != sizes:
        for number, size in enumerate(sizes):
            if counts[number] < size and sum(counts) < most:
                counts[number] += 1
    return counts


def _source_of(
    text: str, root: Path, label_maps: bool, reporter: Reporter
) -> tuple[int, Callable[[int, int | None], list[Scene]]]:
    """How many scenes an input has, and what reads some of them."""
    folder = next(
        (folder for folder in (Path(text), root / text) if (folder / "manifest.json").is_file()),
        None,
    )
    if folder is not None:
        dataset = PreparedDataset(folder)
        split = "val" if "val" in dataset.splits() else dataset.splits()[0]
        return len(dataset.items(split)), lambda count, threads: from_dataset(dataset, split, count)
    items = collect([text], recursive=False, label_maps=label_maps, reporter=reporter)
    sizes = [frame_count(item.source) or 1 if item.is_video else 1 for item in items]

    def read(count: int, threads: int | None) -> list[Scene]:
        scenes = []
        shares = _spread(count, sizes)
        for item, size, wanted in zip(items, sizes, shares, strict=True):
            if not wanted:
                continue
            # frames spread over the whole video, not its beginning
            clip = Clip(every=max(1, size // wanted)) if item.is_video else Clip()
            pairs = islice(read_inputs([item], threads, clip=clip), wanted)
            good, _ = readable(pairs, reporter)
            scenes += [Scene(image, name=shown.name) for shown, image in good]
        return scenes

    return sum(sizes), read


def _spread(count: int, sizes: list[int]) -> list[int]:
    """How many of `count` scenes, evenly spaced over all, fall to each of the items in order."""
    places = evenly_spaced(
        [number for number, size in enumerate(sizes) for _ in range(size)], count
    )
    return [places.count(number) for number in range(len(sizes))]


def networks_of(
    checkpoints: list[Path], scenes: list[Scene], precision: Precision
) -> tuple[list[Segmenter], list[ClassSet], ClassSet]:
    """Return the checkpoints' networks on the device, the classes of each, and every class of
    theirs and of the scenes once.
    """
    loaded = [load_model(path, exported=True) for path in checkpoints]
    own = [info["classes"] for _, info in loaded]
    classes = union_of([*own, *(scene.classes for scene in scenes if scene.classes is not None)])
    return [precision.to_device(model) for model, _ in loaded], own, classes


def predicted(
    scenes: list[Scene], models: list[Segmenter], precision: Precision
) -> Iterator[Scene]:
    """Yield the scenes with each network's prediction."""
    for scene in scenes:
        yield replace(
            scene, predictions=[predict(model, scene.image, precision) for model in models]
        )


def comparison(
    scenes: list[Scene], checkpoints: list[Path], names: list[str], precision: Precision
) -> np.ndarray:
    """Draw two rows a scene: labels above, entropy (eq. 4) below; each picture has its image's own
    aspect, and colours follow class names.
    """
    models, own, classes = networks_of(checkpoints, scenes, precision)
    has_truth = any(scene.truth is not None for scene in scenes)
    rows = []
    for scene in predicted(scenes, models, precision):
        predictions = scene.predictions
        truth = (
            [None if scene.truth is None else in_colours(scene.truth, scene.classes, classes)]
            if has_truth
            else []
        )
        labels = [
            in_colours(result["train_ids"], theirs, classes)
            for result, theirs in zip(predictions, own, strict=True)
        ]
        rows.append([scene.image, *truth, *labels])
        rows.append(
            [None, *(None for _ in truth), *(heat(result["entropy"]) for result in predictions)]
        )
    headings = ["image", *(["truth"] if has_truth else []), *names]
    return with_legend(grid(rows, headings), classes)


def in_colours(train_ids: np.ndarray, theirs: ClassSet, classes: ClassSet) -> np.ndarray:
    """Convert train ids of one class set to another's by name, for its colours."""
    return colourise(ClassMatch(classes, theirs).table()[train_ids], classes)
