"""One raw image and its label to their cached forms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .geometry import Resample, cut_to, resize_ids, resize_image
from .images import BadFile, read_rgb, write_image
from .layouts.base import Pair, ReadLabel
from .prelabels import areas_hash
from .shapes import draw

CONVERSION = 2  # of the code below; 1 resized labels half a pixel off their image
Cache = Literal["raw", "png"]
CACHE_SUFFIX: dict[str, str] = {"raw": ".bmp", "png": ".png"}  # BMP: raw pixels that every viewer opens


@dataclass(frozen=True)
class Task:
    """Settings that convert every pair of one data set."""

    dataset: str
    out: Path
    size: tuple[int, int] | None  # width, height of training images; None keeps theirs
    num_classes: int
    read_label: ReadLabel
    check_only: bool = False
    cache: Cache = "raw"
    keep_other_splits: bool = False  # a folder holds one split; the data set may have more, prepared before
    resample: Resample = "area"
    max_pixels: int | None = None
    rows: tuple[float, float] | None = None  # the part of an image's height that is kept, in percent from the top
    cut: bool = False  # training images of another aspect than `size` lose their borders instead of being squeezed
    label_facts: dict[str, Any] = field(default_factory=dict)  # what a converted label depends on besides its file
    prelabels: dict[str, str] = field(default_factory=dict)  # hashes of what fgda rank wrote, by name
    mapped: frozenset[int] = frozenset()  # train ids that the mapping can yield, where there is one

    @cached_property
    def conversion(self) -> str:
        """Return a short hash of everything that a cached label or image depends on, except the files."""
        facts = [CONVERSION, self.size, self.cache, self.resample, self.num_classes, self.label_facts]
        facts += [self.rows] if self.rows is not None else []
        facts += ["cut"] if self.cut else []
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def convert(task: Task, pair: Pair) -> dict:
    """Convert one pair and return its journal record: an item, or the reason why it is refused. A bad file never stops the
    others.
    """
    record = {"key": key_of(pair), "split": pair.split, "name": pair.name, "stamp": stamp(pair, task)}
    reading = pair.image
    try:
        image, label = read_rgb(pair.image, task.max_pixels), None
        if pair.label is not None:
            reading = pair.label
            label = task.read_label(pair.label) if pair.shapes is None else draw(pair.shapes)
    except BadFile as error:
        return record | {"problem": str(error), "file": str(reading)}
    except Exception as error:  # noqa: BLE001 - what no reader foresaw is that file's problem alone
        return record | {"problem": f"cannot be read ({type(error).__name__}: {error})", "file": str(reading)}
    if label is not None and label.shape != image.shape[:2]:
        sizes = f"image {image.shape[1]}x{image.shape[0]}, label {label.shape[1]}x{label.shape[0]}"
        return record | {"problem": f"sizes differ: {sizes}", "file": str(pair.image)}
    if label is not None and pair.name in task.prelabels:
        record["unchanged"] = areas_hash(label) == task.prelabels[pair.name]
    if task.rows is not None:
        kept = slice(*(round(image.shape[0] * share / 100) for share in task.rows))
        image, label = image[kept], label if label is None else label[kept]
        if not image.shape[0]:
            return record | {
                "problem": f"{image.shape[1]} pixels wide, without a row between those of --rows",
                "file": str(pair.image),
            }
    if task.cut and task.size is not None and pair.split != "val":
        image, label = cut_to(image, task.size), label if label is None else cut_to(label, task.size)
    return record | _cache(task, pair, image, label)


def _cache(task: Task, pair: Pair, image: np.ndarray, label: np.ndarray | None) -> dict:
    """Write image and label. Validation keeps both at their own size, at which they are evaluated and predicted."""
    counts = None if label is None else np.bincount(label.ravel(), minlength=256)[: task.num_classes].tolist()
    own = (image.shape[1], image.shape[0])
    keeps_size = pair.split == "val" or task.size is None
    suffix = ".png" if pair.split == "val" else CACHE_SUFFIX[task.cache]
    labelled = None if label is None else f"labels/{pair.split}/{pair.name}.png"
    paths = {"image": f"images/{pair.split}/{pair.name}{suffix}", "label": labelled, "counts": counts, "size": own}
    if task.check_only:
        return paths
    size = own if keeps_size else task.size
    if label is not None:
        write_image(task.out / paths["label"], resize_ids(label, size))
    cached = task.out / paths["image"]
    write_image(cached, resize_image(image, size, task.resample), compression=1)
    for other in CACHE_SUFFIX.values():  # of an earlier preparation with the other --cache
        if other != cached.suffix:
            cached.with_name(f"{pair.name.rpartition('/')[2]}{other}").unlink(missing_ok=True)
    return paths


def key_of(pair: Pair) -> str:
    return f"{pair.split}/{pair.name}"


def stamp(pair: Pair, task: Task) -> list:
    """Return everything that a cached file depends on; when it changes, the pair is converted again."""
    facts: list = [task.conversion] if pair.shapes is None else [task.conversion, pair.shapes.stamp()]
    for path in (pair.image, pair.label) if pair.shapes is None else (pair.image,):
        status = path.stat() if path is not None and path.exists() else None
        facts.append([str(path), status.st_size, status.st_mtime_ns] if status else None)
    return facts
