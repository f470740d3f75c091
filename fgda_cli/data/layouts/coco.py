"""COCO: `--images DIR --labels annotations.json` with outlines or run lengths, drawn in file order, later ones on top."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import FgdaError, UsageError
from ..classes import ClassSet
from ..images import BadFile, image_files
from ..mapping import load_mapping
from ..names import match_names
from ..shapes import Shape, Shapes
from .base import Listing, OwnFiles, Pair, Reader, stem_below

TITLE = "COCO"
NEEDS = "--images DIR --labels annotations.json [--mapping]"
LICENCE = "yours"
LABELS = "names of the categories to classes; unknown names ignored, said once"
TAKES = frozenset({"images", "labels", "mapping", "only", "split"})


@dataclass(frozen=True)
class Categories:
    """Meaning of the categories; the outlines travel with each image."""

    classes: ClassSet
    table: dict[str, int]

    def read_label(self, path: Path) -> np.ndarray:
        raise BadFile("COCO's labels are drawn from outlines")

    def facts(self) -> dict[str, Any]:
        return {"layout": "coco", "outlines": "united", "classes": self.classes.to_json()}

    def mapped(self) -> set[int]:
        return set(self.table.values())


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises UsageError for names that no class has, FgdaError for a file that is not COCO's."""
    if files.images is None or files.labels is None:
        raise UsageError("needs --images DIR and --labels annotations.json")
    if not files.images.is_dir():
        raise FgdaError(f"--images {files.images}: no such folder")
    tree = read_tree(files.labels)
    meaning = load_mapping(files.mapping, by_name=True)
    listing = Listing(classes=meaning.classes)
    names = {category["id"]: category["name"] for category in tree["categories"]}
    table = match_names(names.values(), meaning.classes, meaning.names, listing.notes, meaning.rest)
    shapes = _by_image(tree, {number: table[name] for number, name in names.items()}, files.labels)
    _pair(listing, files, tree["images"], shapes)
    return listing, Categories(meaning.classes, table)


def read_tree(path: Path) -> dict[str, Any]:
    """Read a COCO file and check the parts that are used. Raises FgdaError."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FgdaError(f"--labels {path}: {(error.strerror or 'cannot be read').lower()}") from error
    except (ValueError, RecursionError) as error:
        raise FgdaError(f"--labels {path}: not readable JSON ({str(error)[:80] or type(error).__name__})") from error
    needs = {
        "images": {"id": int, "file_name": str, "width": int, "height": int},
        "annotations": {"image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    for part, keys in needs.items():
        entries = tree.get(part) if isinstance(tree, dict) else None
        if not isinstance(entries, list):
            raise FgdaError(f"--labels {path}: not a COCO file: it needs a list `{part}`")
        for number, entry in enumerate(entries):
            missing = [key for key, kind in keys.items() if not (isinstance(entry, dict) and type(entry.get(key)) is kind)]
            if missing:
                raise FgdaError(f"--labels {path}: {part}[{number}] has no {missing[0]} ({keys[missing[0]].__name__})")
    return tree


def _by_image(tree: dict[str, Any], train_ids: dict[int, int], path: Path) -> dict[int, list[Shape]]:
    """Group annotations by image. Raises FgdaError for one of an unknown category."""
    shapes: dict[int, list[Shape]] = {}
    for number, annotation in enumerate(tree["annotations"]):
        if annotation["category_id"] not in train_ids:
            raise FgdaError(
                f"--labels {path}: annotations[{number}] is of category {annotation['category_id']}, which is not there"
            )
        shapes.setdefault(annotation["image_id"], []).append(
            _shape(annotation.get("segmentation"), train_ids[annotation["category_id"]])
        )
    return shapes


def _shape(outline: Any, train_id: int) -> Shape:
    """Lists of x, y, x, y, …, or run lengths. What is neither is refused with its image, when that is drawn."""
    if isinstance(outline, dict):
        return Shape(train_id, runs=outline)
    if isinstance(outline, list) and outline and all(isinstance(part, list) and len(part) % 2 == 0 for part in outline):
        return Shape(train_id, tuple(tuple(zip(part[::2], part[1::2], strict=True)) for part in outline))
    return Shape(train_id, ((),))


def _pair(listing: Listing, files: OwnFiles, entries: list[dict], shapes: dict[int, list[Shape]]) -> None:
    """Images of the folder with their entry, found by its path below the folder or, where that is unique, by its name."""
    images = image_files(files.images)
    by_path = {path.relative_to(files.images).as_posix(): path for path in images}
    by_name: dict[str, Path | None] = {}
    for path in images:
        by_name[path.name] = None if path.name in by_name else path
    chosen = set(files.chosen(images, files.images))
    for entry in entries:
        name = entry["file_name"].replace("\\", "/")
        image = by_path.pop(name, None) or by_name.get(name.rpartition("/")[2])
        if image is None:
            listing.refuse(files.images / name, "in the annotations, but there is no such image")
            continue
        by_path.pop(image.relative_to(files.images).as_posix(), None)
        if image in chosen:
            drawing = Shapes((entry["width"], entry["height"]), tuple(shapes.get(entry["id"], ())))
            listing.pairs.append(Pair(stem_below(image, files.images), files.split, image, files.labels, drawing))
    for image in by_path.values():
        if image in chosen:
            listing.refuse(image, "image without an entry in the annotations")
