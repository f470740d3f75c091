"""Comparison sheets: image, truth when there is one, and under each checkpoint its labels and its entropy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.classes import ClassMatch, ClassSet, union_of
from ..data.images import BadFile, evenly_spaced
from ..data.store import PreparedDataset
from ..inference.inputs import collect, read_inputs
from ..inference.predict import predict
from ..models.checkpoint import load_model
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..visual.colour import colourise
from ..visual.heat import heat
from ..visual.sheets import grid, with_legend


@dataclass(frozen=True)
class Scene:
    """An RGB image `[H,W,3]` and, when known, its train ids `[H,W]` in the terms of `classes`."""

    image: np.ndarray
    truth: np.ndarray | None = None
    classes: ClassSet | None = None
    name: str = ""


def from_dataset(dataset: PreparedDataset, split: str, most: int) -> list[Scene]:
    """Return scenes spread evenly over a labelled split."""
    items = dataset.items(split, labelled=True)
    chosen = evenly_spaced(items, most)
    return [Scene(np.ascontiguousarray(dataset.image(item)), dataset.label(item), dataset.classes, item.name) for item in chosen]


def gather(inputs: list[str], root: Path, most: int, threads: int | None = None) -> list[Scene]:
    """Return scenes of images, videos and folders, or of prepared data sets by folder or name. Raises FgdaError."""
    scenes: list[Scene] = []
    for text in inputs:
        folder = next((f for f in (Path(text), root / text) if (f / "manifest.json").is_file()), None)
        if folder is not None:
            scenes += from_dataset(PreparedDataset(folder), "val", most)
            continue
        for item, image in read_inputs(evenly_spaced(collect([text], recursive=False), most), threads):
            if isinstance(image, BadFile):
                raise FgdaError(f"{item.path}: {image}")
            scenes.append(Scene(image, name=item.name))
            if len(scenes) >= most:  # a video has more frames than one
                break
    return scenes[:most]


def networks_of(
    checkpoints: list[Path], scenes: list[Scene], precision: Precision
) -> tuple[list[Segmenter], list[ClassSet], ClassSet]:
    """Return the checkpoints' networks on the device, the classes of each, and every class of theirs and of the scenes once."""
    loaded = [load_model(path, exported=True) for path in checkpoints]
    own = [info["classes"] for _, info in loaded]
    classes = union_of([*own, *(scene.classes for scene in scenes if scene.classes is not None)])
    return [precision.to_device(model) for model, _ in loaded], own, classes


def comparison(scenes: list[Scene], checkpoints: list[Path], names: list[str], precision: Precision) -> np.ndarray:
    """Draw two rows a scene: labels above, entropy (eq. 4) below; each picture has its image's own aspect, and colours follow
    class names.
    """
    models, own, classes = networks_of(checkpoints, scenes, precision)
    has_truth = any(scene.truth is not None for scene in scenes)
    rows = []
    for scene in scenes:
        predictions = [predict(model, scene.image, precision) for model in models]
        truth = [None if scene.truth is None else in_colours(scene.truth, scene.classes, classes)] if has_truth else []
        labels = [in_colours(result["train_ids"], theirs, classes) for result, theirs in zip(predictions, own, strict=True)]
        rows.append([scene.image, *truth, *labels])
        rows.append([None, *(None for _ in truth), *(heat(result["entropy"]) for result in predictions)])
    headings = ["image", *(["truth"] if has_truth else []), *names]
    return with_legend(grid(rows, headings), classes)


def in_colours(train_ids: np.ndarray, theirs: ClassSet, classes: ClassSet) -> np.ndarray:
    """Convert train ids of one class set to another's by name, for its colours."""
    return colourise(ClassMatch(classes, theirs).table()[train_ids], classes)
