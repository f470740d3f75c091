"""Prediction on images of any size, for people and for programs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..data.images import BadFile, read_rgb, rgb_of
from ..data.video import Clip, frame_count
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError, Terminated
from ..runtime.reporter import Reporter
from .inputs import InputImage, read_chunks, readable
from .pipeline import batched, images_per_batch, share, write_behind
from .tta import TestTimeAugmentation, decide, naming, view_logits


def network_size(model: Segmenter, image: np.ndarray) -> tuple[int, int]:
    """Return width and height at which an RGB image `[H,W,3]` enters the network: by the model's
    rule, or its own.
    """
    height, width = image.shape[:2]
    return (width, height) if model.input_rule is None else model.input_rule(width, height)


def predict(
    model: Segmenter,
    image: np.ndarray | str | Path,
    precision: Precision | None = None,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    out_size: tuple[int, int] | None = None,
    others: tuple[Segmenter, ...] = (),
) -> dict:
    """Return `train_ids` uint8 `[H,W]`, `entropy` float32 `[H,W]` in [0,1] (eq. 4) of an RGB uint8
    `[H,W,3]`, PIL image or file.

    out_size (width, height), when given, is the size of the result, as evaluation wants the
    label's. Class probabilities are averaged with those of `others`. Raises ValueError for an array
    of another kind, FgdaError for an unreadable file.
    """
    if isinstance(image, (str, Path)):
        image = _read(Path(image))
    image = rgb_of(image) if hasattr(image, "convert") else np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"predict takes RGB uint8 [H,W,3], not {image.dtype} {list(image.shape)}")
    precision = precision or Precision("fp32", next(model.parameters(), torch.empty(0)).device)
    views = view_logits(
        model, [image], network_size(model, image), precision=precision, tta=tta, others=others
    )
    size = out_size or (image.shape[1], image.shape[0])
    decision = decide(views, size, with_entropy=True, align_corners=model.align_corners)
    return {"train_ids": decision.train_ids, "entropy": decision.entropy}


def _read(path: Path) -> np.ndarray:
    """Read an image. Raises FgdaError."""
    try:
        return read_rgb(path)
    except BadFile as error:
        raise FgdaError(f"{path}: {error}") from error


def predict_many(
    model: Segmenter,
    images: list[np.ndarray],
    precision: Precision,
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    with_entropy: bool = True,
    others: tuple[Segmenter, ...] = (),
) -> list[dict]:
    """Return `predict` of each image; those of one network size are computed in batches."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(network_size(model, image), []).append(index)
    results: dict[int, dict] = {}
    for size, indices in groups.items():
        for batch in batched(indices, images_per_batch(size, precision.device)):
            views = view_logits(
                model,
                [images[index] for index in batch],
                size,
                precision=precision,
                tta=tta,
                others=others,
            )
            for position, index in enumerate(batch):
                own = [logits[position : position + 1] for logits in views]
                decision = decide(
                    own, images[index].shape[1::-1], with_entropy, align_corners=model.align_corners
                )
                results[index] = {"train_ids": decision.train_ids, "entropy": decision.entropy}
    return [results[index] for index in range(len(images))]


class Counts(NamedTuple):
    """Numbers of images and frames predicted, of inputs that could not be read, of all inputs, and
    of predicted pixels by train id.
    """

    done: int
    bad: int
    given: int
    pixels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How inputs are read: threads, the largest image, and the selection of video frames."""

    threads: int | None = None
    max_pixels: int | None = None
    clip: Clip = Clip()


def predict_inputs(
    model: Segmenter,
    inputs: list[InputImage],
    precision: Precision,
    reporter: Reporter,
    write: Callable[[InputImage, np.ndarray, dict], None],
    tta: TestTimeAugmentation = TestTimeAugmentation(),
    reading: Reading = Reading(),
    process_group: ProcessGroup = ProcessGroup(),
    label: str = "predict",
    with_entropy: bool = True,
    others: tuple[Segmenter, ...] = (),
) -> Counts:
    """Call `write(input, image, result of predict)`, in threads, for each input that can be read;
    warn about the rest. Class probabilities are averaged with those of `others`.

    Where `write` has a `finish`, it is called with a video's name when all its frames are written.
    A stream ends when it is interrupted: what was written of it is finished too. The counts are
    those of all processes.
    """
    rule = model.input_rule
    if rule is not None and rule.rows is not None:
        size = "{}x{}".format(*rule.whole_size)
        reporter.decide(
            f"{rule.rows_in_words()}: whole frames enter at {size}, what they show as large as in"
            " training"
        )
    done = 0
    bad = 0
    pixels = np.zeros(model.num_classes, np.int64)
    parts = _one_by_one(inputs, process_group)
    with reporter.progress(
        label, _total([item for part in parts for item in part], reading.clip)
    ) as advance:
        clock = Rate()
        for part in parts:
            with _finished(part, write), write_behind(reading.threads) as submit:
                for chunk in read_chunks(
                    part, reading.threads, max_pixels=reading.max_pixels, clip=reading.clip
                ):
                    good, unread = readable(chunk, reporter)
                    bad += unread
                    done += len(good)
                    with naming([item.name for item, _ in good]):
                        results = predict_many(
                            model,
                            [image for _, image in good],
                            precision,
                            tta=tta,
                            with_entropy=with_entropy,
                            others=others,
                        )
                    for (item, image), result in zip(good, results, strict=True):
                        ids = result["train_ids"]
                        pixels += np.bincount(ids.ravel(), minlength=len(pixels))
                        submit(write, item, image, result)
                    advance(len(chunk), clock(len(chunk)))
    numbers = torch.tensor([done, bad, *pixels.tolist()], device=precision.device)
    done, bad, *by_class = process_group.sum(numbers).tolist()
    return Counts(done, bad, len(inputs), tuple(by_class))


def _one_by_one(inputs: list[InputImage], process_group: ProcessGroup) -> list[list[InputImage]]:
    """Return this process's images, then each of its videos."""
    videos = process_group.part([item for item in inputs if item.is_video])
    return [
        share([item for item in inputs if not item.is_video], process_group),
        *([item] for item in videos),
    ]


def _total(inputs: list[InputImage], clip: Clip) -> int | None:
    """Return the number of images and frames of this process; None where there is no end."""
    counts = [frame_count(item.source, clip) if item.is_video else 1 for item in inputs]
    return None if None in counts else sum(counts)


@contextmanager
def _finished(frames: list[InputImage], write: Callable) -> Iterator[None]:
    """Close a video's file at the end, or when a stream is interrupted; otherwise delete it."""
    video = frames[0] if frames and frames[0].is_video and hasattr(write, "finish") else None
    try:
        yield
    except BaseException as error:
        if (
            video is not None
            and video.stream is not None
            and isinstance(error, (KeyboardInterrupt, Terminated))
        ):
            write.finish(video.name)
        elif video is not None:
            write.give_up(video.name, error)
        raise
    if video is not None:
        write.finish(video.name)


class Rate:
    """Images per second over the last seconds, as a progress bar's note."""

    def __init__(self):
        self.marks: deque = deque([(time.monotonic(), 0)], maxlen=50)

    def __call__(self, count: int) -> str:
        now = time.monotonic()
        total = self.marks[-1][1] + count
        self.marks.append((now, total))
        then, before = self.marks[0]
        seconds = now - then
        return f"{(total - before) / seconds:.1f}/s" if seconds > 0 else ""


def fail_on_bad(bad: int, total: int) -> None:
    """Raise FgdaError when inputs could not be read; called last, after the results of the others
    are written.
    """
    if bad:
        raise FgdaError(f"{bad} of {total} inputs could not be read (see the warnings above)")
