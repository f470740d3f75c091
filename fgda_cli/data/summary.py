"""What is said of a preparation: counts, shares of labelled pixels, warnings, and files that were
not taken.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .convert import Task
from .geometry import same_aspect
from .images import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    VIDEO_SUFFIXES,
    folders_of,
    suffixes_of,
    visible_files,
)
from .layouts.base import Listing, fits_one
from .splits import Splits

# Percent of labelled pixels below which a person should look twice, or be told.
FEW_LABELLED = 2.0
MOST_LABELLED = 80.0


@dataclass(frozen=True)
class Summary:
    """Result of a preparation; `labelled` is the share of labelled pixels by split in percent,
    `absent` the classes without a pixel, `pixels` a hash of what was prepared by split.
    """

    folder: Path
    images: dict[str, int]
    refused: int
    skipped: int
    labelled: dict[str, float] = field(default_factory=dict)
    absent: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    pixels: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {
            "folder": str(self.folder),
            "images": self.images,
            "refused": self.refused,
            "skipped": self.skipped,
            "labelled_percent": self.labelled,
            "classes_without_a_pixel": self.absent,
            "refused_by_reason": self.reasons,
            "warnings": self.warnings,
            "pixels": self.pixels,
        }


def summarise(task: Task, listing: Listing, splits: Splits, skipped: int) -> Summary:
    """Return the summary of the splits that were made, and what a person should be told of
    them.
    """
    labelled: dict[str, float] = {}
    absent: dict[str, list[str]] = {}
    warnings: list[str] = []
    names = listing.classes.names
    for split, items in splits.items():
        _warn_of_plain(split, items, warnings)
        pixels = class_pixels(items)
        if pixels is None:
            continue
        everything = sum(
            width * height
            for width, height in (item["size"] for item in items if item["counts"] is not None)
        )
        labelled[split] = round(100 * float(pixels.sum()) / max(everything, 1), 2)
        absent[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if labelled[split] < FEW_LABELLED:
            warnings.append(
                f"{split}: only {labelled[split]:.1f} % of the pixels are labelled: is the mapping"
                " right?"
            )
        elif labelled[split] < MOST_LABELLED:
            warnings.append(
                f"{split}: {100 - labelled[split]:.0f} % of the pixels are ignored; a model will"
                " call them one of your classes: map them to a class of their own, e.g. `rest:"
                " other`"
            )
        never = [names[k] for k in sorted(task.mapped) if k < len(names) and not pixels[k]]
        if never:
            warnings.append(f"{split}: mapped, but never seen: {', '.join(never)}")
    reasons = Counter(kind_of(problem["reason"]) for problem in listing.problems)
    images = {split: len(items) for split, items in splits.items()}
    _warn_of_squeezed(task, splits.get("train", []), warnings)
    return Summary(
        task.out,
        images,
        len(listing.problems),
        skipped=skipped,
        labelled=labelled,
        absent=absent,
        reasons=dict(reasons.most_common()),
        warnings=warnings,
    )


def _warn_of_plain(split: str, items: list[dict], warnings: list[str]) -> None:
    """Warn of images without a picture: a covered lens, a simulator's first frames. They have no
    hash, for they show nothing that two splits could share.
    """
    plain = [item["name"] for item in items if item["raw_hash"] is None]
    if plain:
        warnings.append(
            f"{split}: {len(plain)} of {len(items)} images are of one colour, e.g. {plain[0]}:"
            " leave them out"
        )


def _warn_of_squeezed(task: Task, items: list[dict], warnings: list[str]) -> None:
    """Warn of training images that do not have the shape that most have: one size squeezes them
    differently.
    """
    sizes = Counter(tuple(item["size"]) for item in items)
    if task.size is None or not sizes:
        return
    most = sizes.most_common(1)[0][0]
    others = sum(count for size, count in sizes.items() if not same_aspect(size, most))
    if others:
        warnings.append(
            f"train: {others} of {len(items)} images have another shape than most"
            f" ({most[0]}x{most[1]}) and are squeezed to {task.size[0]}x{task.size[1]}: --cut keeps"
            " their middle instead"
        )


def class_pixels(items: list[dict]) -> np.ndarray | None:
    """Label pixels by class `[K]` int64 of a split; None without labels."""
    counts = [item["counts"] for item in items if item["counts"] is not None]
    return np.sum(np.array(counts, np.int64), axis=0) if counts else None


def kind_of(reason: str) -> str:
    """A refusal without what differs from file to file."""
    return (
        reason.split(":")[0].split(" (")[0]
        if not reason.startswith(("label id", "train id"))
        else "an id outside the table"
    )


def not_taken(task: Task, listing: Listing) -> list[str]:
    """Say which files below the raw folders look like images, labels or videos and are neither
    taken nor refused, nor left out on purpose, by the layout or by --only.
    """
    asked = task.asked.get("only") or ["*"]
    used = {
        os.path.realpath(path)
        for pair in listing.pairs
        for path in (pair.image, pair.label)
        if path is not None
    }
    used |= {os.path.realpath(problem["file"]) for problem in listing.problems}
    used |= {os.path.realpath(path) for path in listing.used}
    pictures = IMAGE_SUFFIXES | UNREAD_SUFFIXES | VIDEO_SUFFIXES
    said = []
    roots = {
        os.path.realpath(path): Path(path) for path in task.raw.values() if Path(path).is_dir()
    }
    for real, root in roots.items():
        if any(other != real and Path(real).is_relative_to(other) for other in roots):
            # a folder that lies in another one's
            continue
        rest = [
            path
            for path in visible_files(root)
            if path.suffix.lower() in pictures
            and os.path.realpath(path) not in used
            and not fits_one(path, root, listing.not_read)
            and fits_one(path, root, asked)
        ]
        if rest:
            said.append(
                f"{len(rest)} files are not taken: {suffixes_of(rest)} ({folders_of(rest, root)})"
            )
    return said
