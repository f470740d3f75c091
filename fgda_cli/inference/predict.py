"""Prediction on images of any size, for people and for programs."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ..data.files import IMAGE_SUFFIXES, BadFile, image_files, read_rgb
from ..models.segmenter import DeepLabV2
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter
from .evaluate import TestTimeAugmentation, decide, decide_each, view_logits
from .pipeline import CHUNK, batched, images_per_batch, read_ahead, share, write_behind

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True)
class Input:
    """One image to predict; `name` is its path below the folder given, without suffix."""

    name: str
    path: Path


def fit_size(width: int, height: int, trained: tuple[int, int] | None) -> tuple[int, int]:
    """The network's input size for an image: the trained size, or one of its area when the aspect differs by over 5 %."""
    if trained is None:
        return width, height
    if abs(width / height / (trained[0] / trained[1]) - 1) <= 0.05:
        return trained
    scale = (trained[0] * trained[1] / (width * height)) ** 0.5
    return tuple(int(np.clip(round(side * scale / 8) * 8, 64, 8192)) for side in (width, height))


def predict(
    model: DeepLabV2,
    image: np.ndarray,
    precision: Precision | None = None,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    out_size: tuple[int, int] | None = None,
) -> dict:
    """RGB uint8 `[H,W,3]` -> `train_ids` uint8 `[H,W]`, `entropy` float32 `[H,W]` in [0,1] (eq. 4), at the image's size.

    out_size (width, height), when given, is the size of the result, as evaluation wants the label's.

    Raises ValueError for an array of another kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"predict takes RGB uint8 [H,W,3], not {image.dtype} {list(image.shape)}")
    precision = precision or Precision("fp32", next(model.parameters()).device)
    size = fit_size(image.shape[1], image.shape[0], model.input_size)
    views = view_logits(model, [image], size, precision, tta)
    train_ids, entropy = decide(views, out_size or (image.shape[1], image.shape[0]), with_entropy=True)
    return {"train_ids": train_ids, "entropy": entropy}


def predict_many(
    model: DeepLabV2,
    images: list[np.ndarray],
    precision: Precision,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    with_entropy: bool = True,
) -> list[dict]:
    """`predict` of each image; those of one network size are computed in batches."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(fit_size(image.shape[1], image.shape[0], model.input_size), []).append(index)
    found: dict[int, dict] = {}
    for size, indices in groups.items():
        for batch in batched(indices, images_per_batch(size, precision.device)):
            views = view_logits(model, [images[index] for index in batch], size, precision, tta)
            sizes = [(images[index].shape[1], images[index].shape[0]) for index in batch]
            for index, (train_ids, entropy) in zip(batch, decide_each(views, sizes, with_entropy), strict=True):
                found[index] = {"train_ids": train_ids, "entropy": entropy}
    return [found[index] for index in range(len(images))]


def collect(inputs: list[str], recursive: bool) -> list[Input]:
    """Images, folders and globs to a list without doubles. Raises FgdaError for an input that gives none."""
    found: dict[Path, str] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            images = {p: p.relative_to(path).with_suffix("").as_posix() for p in image_files(path, recursive)}
            if not images:
                deeper = "" if recursive or not image_files(path) else " (there are some in its folders: use --recursive)"
                raise FgdaError(f"{path} holds no image{deeper}")
        elif path.is_file():
            images = {path: path.stem}
        else:
            matches = [Path(p) for p in sorted(glob.glob(text, recursive=True))]
            images = {p: p.stem for p in matches if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and p.is_file()}
            if not images:
                raise FgdaError(f"{text}: no such image, folder or pattern")
        for image, name in images.items():
            found.setdefault(image, name)
    return _distinct(found)


def _distinct(found: dict[Path, str]) -> list[Input]:
    """`a.png` and `a.jpg` would write the same file: such names keep their suffix, and then get a number."""
    names = list(found.values())
    used: set[str] = set()
    result = []
    for path, name in found.items():
        chosen = name if names.count(name) == 1 else f"{name}{path.suffix}"
        number = 2
        while chosen in used:
            chosen, number = f"{name}-{number}", number + 1
        used.add(chosen)
        result.append(Input(chosen, path))
    return result


def read_inputs(inputs: list[Input], threads: int = 2) -> Iterator[tuple[Input, np.ndarray | BadFile]]:
    """Each image, read ahead; a file that cannot be read comes as its reason, so that the others go on."""
    return (pair for chunk in read_chunks(inputs, threads) for pair in chunk)


def read_chunks(inputs: list[Input], threads: int = 2, process_group: ProcessGroup = ProcessGroup()) -> Iterator[list[tuple]]:
    """This process's share of the images in chunks, and then its videos' frames, video by video."""

    def read(item: Input) -> np.ndarray | BadFile:
        try:
            return read_rgb(item.path)
        except BadFile as error:
            return error

    stills = [item for item in inputs if not is_video(item)]
    yield from batched(read_ahead(read, share(stills, process_group), threads), CHUNK)
    for item in process_group.part([item for item in inputs if is_video(item)]):
        yield from batched(_frames(item), CHUNK)


class Counts(NamedTuple):
    """Images and frames predicted, and inputs that could not be read."""

    done: int
    bad: int


def predict_inputs(
    model: DeepLabV2,
    inputs: list[Input],
    precision: Precision,
    reporter: Reporter,
    write: Callable[[Input, np.ndarray, dict], None],
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    threads: int = 2,
    process_group: ProcessGroup = ProcessGroup(),
    label: str = "predict",
    with_entropy: bool = True,
) -> Counts:
    """`write(input, image, result of predict)`, in threads, for each that can be read; the others are warned of.

    The counts are those of all processes.
    """
    done = bad = 0
    total = sum(_frame_count(item) if is_video(item) else 1 for item in inputs) // process_group.size
    with reporter.progress(label, total) as advance, write_behind(threads) as submit:
        for chunk in read_chunks(inputs, threads, process_group):
            good = [(item, image) for item, image in chunk if not isinstance(image, BadFile)]
            for item, reason in chunk:
                if isinstance(reason, BadFile):
                    reporter.warn(f"{item.path}: {reason}")
            bad, done = bad + len(chunk) - len(good), done + len(good)
            results = predict_many(model, [image for _, image in good], precision, tta, with_entropy)
            for (item, image), result in zip(good, results, strict=True):
                submit(write, item, image, result)
            advance(len(chunk))
    counts = process_group.sum(torch.tensor([done, bad], device=precision.device))
    return Counts(*counts.tolist())


def fail_on_bad(bad: int, total: int) -> None:
    """Raises FgdaError when inputs could not be read: said last, after the others' results."""
    if bad:
        raise FgdaError(f"{bad} of {total} inputs could not be read (see the warnings above)")


def is_video(item: Input) -> bool:
    return item.path.suffix.lower() in VIDEO_SUFFIXES


def _frame_count(item: Input) -> int:
    """As the file's header says, for the progress bar."""
    capture = cv2.VideoCapture(str(item.path))
    try:
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def _frames(item: Input) -> Iterator[tuple[Input, np.ndarray | BadFile]]:
    """A video's frames as NAME/000001, NAME/000002, …"""
    capture = cv2.VideoCapture(str(item.path))
    number = 0
    try:
        while True:
            read, frame = capture.read()
            if not read:
                break
            number += 1
            yield Input(f"{item.name}/{number:06d}", item.path), np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()
    if number == 0:
        yield item, BadFile("no video that can be read")
