"""One raw image and its label to their cached forms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .geometry import Resample, cut_to, resize_ids, resize_image
from .images import ORIENTATION, BadFile, open_image, read_picture, turned, write_image
from .layouts.base import Pair, ReadLabel
from .prelabels import areas_hash
from .shapes import Shapes, draw

# version of this conversion; 1 resized labels half a pixel off, 2 had no hashes of pixels
CONVERSION = 3
Cache = Literal["raw", "png"]
# BMP: raw pixels that every viewer opens
CACHE_SUFFIX: dict[str, str] = {"raw": ".bmp", "png": ".png"}


@dataclass(frozen=True)
class Task:
    """Settings that convert every pair of one data set."""

    dataset: str
    out: Path
    # width, height of training images; None keeps theirs
    size: tuple[int, int] | None
    num_classes: int
    read_label: ReadLabel
    # reads the outlines of layouts whose label files hold outlines
    read_shapes: Callable[[Path], Shapes] | None = None
    # gta5, folder, …: what read the raw files
    reader: str = "folder"
    # raw folders and files by their option, as absolute paths
    raw: dict[str, str] = field(default_factory=dict)
    # options that choose among the raw files: another data set each
    choice: dict[str, Any] = field(default_factory=dict)
    # further options, which the manifest records
    asked: dict[str, Any] = field(default_factory=dict)
    # options that say how labels are paired and read; label_facts hold what they mean
    reading: dict[str, Any] = field(default_factory=dict)
    check_only: bool = False
    cache: Cache = "raw"
    # a user's own files hold one split at a time; published ones have all of theirs
    is_own: bool = False
    resample: Resample = "area"
    max_pixels: int | None = None
    # the part of an image's height that is kept, in percent from the top
    rows: tuple[float, float] | None = None
    # training images of another aspect than `size` lose their borders instead of being squeezed
    cut: bool = False
    # facts that a converted label depends on besides its file
    label_facts: dict[str, Any] = field(default_factory=dict)
    # hashes of what fgda rank wrote, by name
    prelabels: dict[str, str] = field(default_factory=dict)
    # train ids that the mapping can yield, where there is one
    mapped: frozenset[int] = frozenset()

    @cached_property
    def conversion(self) -> str:
        """Return a short hash of everything that a cached label or image depends on, except the
        files.
        """
        facts: list[Any] = [
            CONVERSION,
            self.size,
            self.cache,
            self.resample,
            self.num_classes,
            self.label_facts,
        ]
        facts += [self.rows] if self.rows is not None else []
        facts += ["cut"] if self.cut else []
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def convert(task: Task, pair: Pair, folder: str) -> dict:
    """Convert one pair into `folder`, below the task's, and return its journal record: an item, or
    why it is refused.

    A bad file never stops the others.
    """
    record = {
        "key": key_of(pair),
        "split": pair.split,
        "name": pair.name,
        "stamp": stamp(pair, task),
    }
    reading = pair.image
    try:
        image, orientation = read_picture(pair.image, task.max_pixels)
        label = None
        if pair.label is not None:
            reading = pair.label
            label = _read_label(task, pair, image.shape[:2])
            label = upright_label(label, pair, orientation, shape=image.shape[:2])
    except BadFile as error:
        return record | {"problem": str(error), "file": str(reading)}
    except Exception as error:  # noqa: BLE001 - what no reader foresaw is that file's problem alone
        return record | {
            "problem": f"cannot be read ({type(error).__name__}: {error})",
            "file": str(reading),
        }
    if label is not None and label.shape != image.shape[:2]:
        sizes = f"image {image.shape[1]}x{image.shape[0]}, label {label.shape[1]}x{label.shape[0]}"
        return record | {"problem": f"sizes differ: {sizes}", "file": str(pair.image)}
    # a black frame shows nothing that two splits could share
    is_plain = image.min() == image.max()
    record["raw_hash"] = None if is_plain else hash_of(image)
    if label is not None and pair.name in task.prelabels:
        record["unchanged"] = areas_hash(label) == task.prelabels[pair.name]
    if task.rows is not None:
        kept = slice(*(round(image.shape[0] * share / 100) for share in task.rows))
        image = image[kept]
        label = label if label is None else label[kept]
        if not image.shape[0]:
            return record | {
                "problem": f"{image.shape[1]} pixels wide, without a row between those of --rows",
                "file": str(pair.image),
            }
    if task.cut and task.size is not None and pair.split != "val":
        image = cut_to(image, task.size)
        label = label if label is None else cut_to(label, task.size)
    return record | _cache(task, pair, image, label=label, folder=folder)


def _read_label(task: Task, pair: Pair, shape: tuple[int, int]) -> np.ndarray:
    """Return a pair's label. Outlines for an image of another size, which may claim any, are
    refused before they are drawn.
    """
    if pair.shapes is None and task.read_shapes is None:
        return task.read_label(pair.label)
    drawing = pair.shapes or task.read_shapes(pair.label)
    width, height = drawing.size
    # An image that its EXIF data turn may have been outlined as it is stored.
    if (height, width) not in (shape, shape[::-1]):
        raise BadFile(
            f"sizes differ: image {shape[1]}x{shape[0]}, outlines of one of {width}x{height}"
        )
    return draw(drawing)


def upright_label(
    label: np.ndarray, pair: Pair, orientation: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return a label as its image is shown, upright, whose `shape` is (height, width).

    Raises BadFile where only one of the two is turned by its EXIF data and the sizes do not tell in
    which frame the label was drawn.
    """
    own = 1 if pair.shapes is not None else exif_orientation(pair.label)
    if own == orientation:
        return turned(label, own)
    sizes_tell = own == 1 and orientation >= 5 and shape[0] != shape[1]
    if sizes_tell:
        return label
    raise BadFile(
        f"image and label are turned differently by their EXIF data (orientation {orientation} and"
        f" {own}): save both upright"
    )


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation of a label file; 1 where it has none."""
    content = path.read_bytes()
    if (
        b"eXIf" not in content
        and b"Exif" not in content
        and path.suffix.lower() not in (".tif", ".tiff")
    ):
        return 1
    with open_image(path) as image:
        return int(image.getexif().get(ORIENTATION, 1) or 1)


def hash_of(*pixels: np.ndarray | None) -> str:
    """Return a short hash of the sizes and values of images and labels."""
    digest = hashlib.blake2b(digest_size=12)
    for values in pixels:
        digest.update(repr(None if values is None else values.shape).encode())
        if values is not None:
            digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def _cache(
    task: Task, pair: Pair, image: np.ndarray, label: np.ndarray | None, folder: str
) -> dict:
    """Write image and label. Validation keeps both at their own size, at which they are evaluated
    and predicted.
    """
    counts = (
        None
        if label is None
        else np.bincount(label.ravel(), minlength=256)[: task.num_classes].tolist()
    )
    own = (image.shape[1], image.shape[0])
    keeps_size = pair.split == "val" or task.size is None
    size = own if keeps_size else task.size
    image = resize_image(image, size, task.resample)
    label = None if label is None else resize_ids(label, size)
    image_path, *label_path = paths_of(task, pair, folder)
    paths = {
        "image": image_path,
        "label": None if label is None else label_path[0],
        "counts": counts,
        "size": own,
        "raw": str(pair.image),
        "hash": hash_of(image, label),
    }
    if not task.check_only:
        # The disk is waited for once, before the data set is put in place.
        if label is not None:
            write_image(task.out / paths["label"], label, sync=False)
        write_image(task.out / paths["image"], image, compression=1, sync=False)
    return paths


def paths_of(task: Task, pair: Pair, folder: str) -> list[str]:
    """Return the paths, below the task's folder, of a pair's prepared image and label."""
    suffix = ".png" if pair.split == "val" else CACHE_SUFFIX[task.cache]
    labels = [] if pair.label is None else [f"{folder}/labels/{pair.name}.png"]
    return [f"{folder}/images/{pair.name}{suffix}", *labels]


def key_of(pair: Pair) -> str:
    return f"{pair.split}/{pair.name}"


def stamp(pair: Pair, task: Task) -> list:
    """Return everything that a cached file depends on; when it changes, the pair is converted
    again.
    """
    facts: list = (
        [task.conversion] if pair.shapes is None else [task.conversion, pair.shapes.stamp()]
    )
    for path in (pair.image, pair.label) if pair.shapes is None else (pair.image,):
        status = path.stat() if path is not None and path.exists() else None
        facts.append([str(path), status.st_size, status.st_mtime_ns] if status else None)
    return facts
