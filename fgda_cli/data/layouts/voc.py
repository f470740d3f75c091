"""Pascal VOC and CVAT ("segmentation mask"): `JPEGImages/`, `SegmentationClass/`, `labelmap.txt` of
`name:r,g,b:parts:actions`.

Splits are those of the lists in `ImageSets/Segmentation/`, one image's name a line: `train.txt` or
`Train.txt`, `val.txt` or `Validation.txt`. Without such a list (or with CVAT's `default.txt` alone)
all is `--split`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import FgdaError, UsageError
from ..classes import ClassSet
from ..formats import map_colours, read_label_colours
from ..images import image_files, visible_files
from ..mapping import load_mapping
from ..names import match_names
from .base import Listing, OwnFiles, OwnFormat, Pair, Reader, locate, pair_by_name, stem_below
from .folder import refuse_neighbours

# around VOC's objects
BORDER = (224, 224, 192)


@dataclass(frozen=True)
class Colours:
    """Train ids by colour, from the names in labelmap.txt."""

    classes: ClassSet
    table: dict[tuple[int, int, int], int]

    def read_label(self, path: Path) -> np.ndarray:
        """Read a label as train ids `[H,W]`. Raises BadFile."""
        return map_colours(read_label_colours(path), self.table)

    def facts(self) -> dict[str, Any]:
        return {
            "layout": "voc",
            "classes": self.classes.to_json(),
            "colours": sorted((list(k), v) for k, v in self.table.items()),
        }

    def mapped(self) -> set[int]:
        return set(self.table.values())


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises FgdaError for a folder that is not VOC's, UsageError for names
    that no class has.
    """
    if files.root is None:
        raise UsageError("needs --root DIR")
    root = _root(files)
    meaning = load_mapping(files.mapping, by_name=True)
    listing = Listing(classes=meaning.classes)
    colours = read_labelmap(root / "labelmap.txt")
    matched = match_names(
        [name for name, _ in colours],
        meaning.classes,
        meaning.names,
        notes=listing.notes,
        rest=meaning.rest,
    )
    table = {BORDER: 255} | {colour: matched[name] for name, colour in colours}
    images = files.images or root / "JPEGImages"
    labels = root / "SegmentationClass"
    paired = Listing()
    pictures = image_files(images)
    masks = image_files(labels)
    # a folder of images that were made for more than these labels
    if files.images is not None:
        stems = {stem_below(path, labels) for path in masks}
        pictures = [path for path in pictures if stem_below(path, images) in stems]
    pair_by_name(paired, pictures, masks, image_root=images, label_root=labels, split=files.split)
    if not files.only:
        refuse_neighbours(paired.pairs, paired.problems)
    _into_splits(listing, paired, root, split=files.split)
    kept = set(files.chosen([pair.image for pair in listing.pairs], images))
    listing.pairs = [pair for pair in listing.pairs if pair.image in kept]
    return listing, Colours(meaning.classes, table)


def _root(files: OwnFiles) -> Path:
    """Return the root. Raises FgdaError for a folder that is not VOC's; images may be elsewhere,
    because CVAT exports annotations alone.
    """
    if files.images is not None:
        files.folders()
        return locate(files.root, ("SegmentationClass",), FORMAT.title)
    try:
        return locate(files.root, ("JPEGImages", "SegmentationClass"), FORMAT.title)
    except FgdaError as error:
        if not (files.root / "SegmentationClass").is_dir():
            raise
        raise FgdaError(
            f"{files.root} was exported without images: say where they are with --images DIR"
        ) from error


def read_labelmap(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Read names and colours, in order. Raises FgdaError for a file that is missing or damaged."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "no text"
        raise FgdaError(f"{path}: {what}: it needs lines such as `road:128,64,128::`") from error
    names: dict[tuple[int, int, int], str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        parts = rest.split(":")[0].split(",")
        if not (
            name
            and len(parts) == 3
            and all(re.fullmatch(r" *[0-9]{1,3} *", part) and int(part) < 256 for part in parts)
        ):
            raise FgdaError(f"{path}, line {number}: no `name:r,g,b:parts:actions`: {line[:60]}")
        colour = (int(parts[0]), int(parts[1]), int(parts[2]))
        if names.setdefault(colour, name) != name:
            raise FgdaError(f"{path}, line {number}: {name} has the colour of {names[colour]}")
    return [(name, colour) for colour, name in names.items()]


SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "default": None,
}


def _lists(root: Path) -> tuple[dict[Path, str | None], list[Path]]:
    """The lists of a data set by the split that their names mean (None: that of --split), and those
    that mean none.
    """
    files = (
        visible_files(root / "ImageSets" / "Segmentation", "*.txt")
        if (root / "ImageSets" / "Segmentation").is_dir()
        else []
    )
    known = {
        path: SPLIT_NAMES[path.stem.lower()] for path in files if path.stem.lower() in SPLIT_NAMES
    }
    return known, [path for path in files if path not in known]


def _into_splits(listing: Listing, paired: Listing, root: Path, split: str) -> None:
    """Divide pairs by the data set's lists; images without a label count only when a list names
    them.

    Raises UsageError when there are lists but none whose name says which split it is.
    """
    lists, others = _lists(root)
    if others and not lists:
        names = ", ".join(path.name for path in others)
        raise UsageError(
            f"{others[0].parent} holds {names}: name a list train.txt or val.txt, so that its split"
            " is known"
        )
    if others:
        listing.notes.append(
            f"lists that are no split of ours, not used: {', '.join(path.name for path in others)}"
        )
    if not lists:
        listing.pairs = paired.pairs
        listing.problems = paired.problems
        return
    by_name = {pair.name: pair for pair in paired.pairs}
    listing.problems += [one for one in paired.problems if "of one name" in one["reason"]]
    listed_in: dict[str, Path] = {}
    for path, part in lists.items():
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for name in dict.fromkeys(line.strip() for line in lines if line.strip()):
            other = listed_in.setdefault(name, path)
            if other != path:
                raise UsageError(
                    f"{name} stands in {other.name} and in {path.name}: an image belongs to one"
                    " split"
                )
            pair = by_name.get(name)
            if pair is None:
                listing.refuse(
                    root / "JPEGImages" / name,
                    f"listed in {path.name}, but image or label is missing",
                )
            else:
                listing.pairs.append(Pair(name, part or split, pair.image, label=pair.label))
    if split != "train" and None not in lists.values():
        listing.notes.append("splits are those of ImageSets/Segmentation; --split is not used")


FORMAT = OwnFormat(
    title="Pascal VOC / CVAT masks",
    needs="--root with JPEGImages/ (or --images DIR), SegmentationClass/, labelmap.txt [--mapping]",
    licence="yours",
    labels="names of labelmap.txt to classes; unknown names ignored, said once",
    takes=frozenset({"root", "images", "mapping", "only", "split"}),
    open_own=open_own,
)
