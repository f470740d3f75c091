"""Prediction on images of any size, for people and for programs."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..data.files import IMAGE_SUFFIXES, BadFile, image_files, read_rgb
from ..errors import FgdaError
from ..models.deeplab import DeepLabV2
from ..reporter import Reporter
from .compute import Precision
from .evaluate import Views, decide, read_ahead, view_logits

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


def predict(model: DeepLabV2, image: np.ndarray, precision: Precision | None = None, tta: Views = Views()) -> dict:
    """RGB uint8 `[H,W,3]` -> `train_ids` uint8 `[H,W]`, `entropy` float32 `[H,W]` in [0,1] (eq. 4), at the image's size.

    Raises ValueError for an array of another kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"predict takes RGB uint8 [H,W,3], not {image.dtype} {list(image.shape)}")
    precision = precision or Precision("fp32", next(model.parameters()).device)
    height, width = image.shape[:2]
    views = view_logits(model, image, fit_size(width, height, model.input_size), precision, tta)
    train_ids, entropy = decide(views, (width, height), with_entropy=True)
    return {"train_ids": train_ids, "entropy": entropy}


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
            images = {p: p.stem for p in matches if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES}
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

    def read(item: Input) -> np.ndarray | BadFile:
        try:
            return read_rgb(item.path)
        except BadFile as error:
            return error

    stills = [item for item in inputs if item.path.suffix.lower() not in VIDEO_SUFFIXES]
    yield from read_ahead(read, stills, threads)
    for item in inputs:
        if item.path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _frames(item)


def predict_inputs(
    model: DeepLabV2,
    inputs: list[Input],
    precision: Precision,
    reporter: Reporter,
    write: Callable[[Input, np.ndarray, dict], None],
    tta: Views = Views(),
    threads: int = 2,
) -> int:
    """`write(input, image, result of predict)` for each that can be read; the others are warned of and counted."""
    bad = 0
    for item, image in reporter.track(read_inputs(inputs, threads), "predict", len(inputs)):
        if isinstance(image, BadFile):
            reporter.warn(f"{item.path}: {image}")
            bad += 1
        else:
            write(item, image, predict(model, image, precision, tta))
    return bad


def fail_on_bad(bad: int, total: int) -> None:
    """Raises FgdaError when inputs could not be read: said last, after the others' results."""
    if bad:
        raise FgdaError(f"{bad} of {total} inputs could not be read (see the warnings above)")


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
