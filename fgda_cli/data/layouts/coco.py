"""COCO: `--images DIR --labels annotations.json` with outlines or run lengths, drawn in file order,
later ones on top.
"""

from __future__ import annotations

import json
from collections import Counter
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
from .base import Listing, OwnFiles, OwnFormat, Pair, Reader, stem_below


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
    """Pair the user's files. Raises UsageError for names that no class has, FgdaError for a file
    that is not COCO's.
    """
    if files.images is None or files.labels is None:
        raise UsageError("needs --images DIR and --labels annotations.json")
    if not files.images.is_dir():
        raise UsageError(f"--images {files.images}: no such folder")
    tree = read_tree(files.labels)
    meaning = load_mapping(files.mapping, by_name=True)
    listing = Listing(classes=meaning.classes)
    names = {category["id"]: category["name"] for category in tree["categories"]}
    table = match_names(
        names.values(), meaning.classes, meaning.names, notes=listing.notes, rest=meaning.rest
    )
    shapes = _by_image(tree, {number: table[name] for number, name in names.items()}, files.labels)
    known = {entry["id"] for entry in tree["images"]}
    stray = sum(annotation["image_id"] not in known for annotation in tree["annotations"])
    if stray:
        listing.notes.append(
            f"{stray} of {len(tree['annotations'])} annotations belong to no image of the file: not"
            " drawn"
        )
    _pair(listing, files, tree["images"], shapes=shapes)
    return listing, Categories(meaning.classes, table)


def read_tree(path: Path) -> dict[str, Any]:
    """Read a COCO file and check the parts that are used. Raises FgdaError."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FgdaError(
            f"--labels {path}: {(error.strerror or 'cannot be read').lower()}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FgdaError(
            f"--labels {path}: not readable JSON ({str(error)[:80] or type(error).__name__})"
        ) from error
    needs = {
        "images": {"id": int, "file_name": str, "width": int, "height": int},
        "annotations": {"image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    for part, keys in needs.items():
        entries = tree.get(part) if isinstance(tree, dict) else None
        if not isinstance(entries, list):
            raise FgdaError(f"--labels {path}: not a COCO file: it needs a list `{part}`")
        if (
            part == "annotations"
            and entries
            and isinstance(entries[0], dict)
            and "segments_info" in entries[0]
        ):
            raise FgdaError(
                f"--labels {path}: COCO's panoptic form, whose masks are PNG files of their"
                " own\nmake label maps of it (panopticapi's converter of panoptic to semantic),"
                " then: fgda prepare folder"
            )
        for number, entry in enumerate(entries):
            missing = [
                key
                for key, kind in keys.items()
                if not (isinstance(entry, dict) and type(entry.get(key)) is kind)
            ]
            if missing:
                raise FgdaError(
                    f"--labels {path}: {part}[{number}] has no {missing[0]}"
                    f" ({keys[missing[0]].__name__})"
                )
    return tree


def _by_image(
    tree: dict[str, Any], train_ids: dict[int, int], path: Path
) -> dict[int, list[Shape]]:
    """Group annotations by image. Raises FgdaError for one of an unknown category."""
    shapes: dict[int, list[Shape]] = {}
    for number, annotation in enumerate(tree["annotations"]):
        if annotation["category_id"] not in train_ids:
            raise FgdaError(
                f"--labels {path}: annotations[{number}] is of category"
                f" {annotation['category_id']}, which is not there"
            )
        shapes.setdefault(annotation["image_id"], []).append(
            _shape(annotation.get("segmentation"), train_ids[annotation["category_id"]])
        )
    return shapes


def _shape(outline: Any, train_id: int) -> Shape:
    """Lists of x, y, x, y, …, or run lengths. What is neither is refused with its image, when that
    is drawn.
    """
    if isinstance(outline, dict):
        return Shape(train_id, runs=outline)
    if (
        isinstance(outline, list)
        and outline
        and all(isinstance(part, list) and len(part) % 2 == 0 for part in outline)
    ):
        return Shape(
            train_id, tuple(tuple(zip(part[::2], part[1::2], strict=True)) for part in outline)
        )
    return Shape(train_id, ((),))


def _pair(
    listing: Listing, files: OwnFiles, entries: list[dict], shapes: dict[int, list[Shape]]
) -> None:
    """Pair images of the folder with their entries.

    An entry names its image by the end of the path, below the folder or above it (`night/0.png` in
    `images/night/0.png`). Where no path ends so, a base name that only one image and one entry have
    will do, and that is said. Images that several entries claim are refused.
    """
    images = image_files(files.images)
    chosen = set(files.chosen(images, files.images))
    names = {
        number: entry["file_name"].replace("\\", "/").removeprefix("./")
        for number, entry in enumerate(entries)
    }
    found = _by_path(images, files.images, names)
    by_base = _by_base_name(images, names, found)
    if by_base:
        listing.notes.append(
            f"{len(by_base)} images are found by their base names alone: the annotations have other"
            " folders"
        )
    claims: dict[Path, list[int]] = {}
    for number, name in names.items():
        image = (found | by_base).get(number)
        if image is None:
            listing.refuse(files.images / name, "in the annotations, but there is no such image")
        else:
            claims.setdefault(image, []).append(number)
    numbers = Counter(entry["id"] for entry in entries)
    for image in images:
        if image not in chosen:
            continue
        claimants = claims.get(image, [])
        if not claimants:
            listing.refuse(image, "image without an entry in the annotations")
        elif len(claimants) > 1:
            listing.refuse(
                image,
                f"{len(claimants)} entries of the annotations name it:"
                f" {shown_names(names, claimants)}",
            )
        elif numbers[entries[claimants[0]]["id"]] > 1:
            listing.refuse(
                image,
                f"its id in the annotations, {entries[claimants[0]]['id']}, is another image's too",
            )
        else:
            entry = entries[claimants[0]]
            drawing = Shapes((entry["width"], entry["height"]), tuple(shapes.get(entry["id"], ())))
            listing.pairs.append(
                Pair(
                    stem_below(image, files.images),
                    files.split,
                    image,
                    label=files.labels,
                    shapes=drawing,
                )
            )


def shown_names(names: dict[int, str], numbers: list[int]) -> str:
    return " and ".join(f"images[{number}] {names[number]}" for number in numbers[:3])


def _by_path(images: list[Path], folder: Path, names: dict[int, str]) -> dict[int, Path]:
    """Return the images whose whole path ends as an entry's name does, by the entry's number."""
    above = folder.resolve().as_posix()
    by_end: dict[str, list[Path]] = {}
    for image in images:
        below = image.relative_to(folder).as_posix()
        by_end.setdefault(below, []).append(image)
        parts = f"{above}/{below}".split("/")
        depth = below.count("/") + 1
        for count in range(depth + 1, len(parts) + 1):
            by_end.setdefault("/".join(parts[-count:]), []).append(image)
    by_number = {
        number: by_end.get(name.lstrip("/") if name not in by_end else name, [])
        for number, name in names.items()
    }
    return {number: paths[0] for number, paths in by_number.items() if len(paths) == 1}


def _by_base_name(
    images: list[Path], names: dict[int, str], found: dict[int, Path]
) -> dict[int, Path]:
    """Return the images that are left for the entries that are left, where a base name is unique on
    both sides.
    """
    taken = set(found.values())
    paths: dict[str, list[Path]] = {}
    for image in images:
        paths.setdefault(image.name, []).append(image)
    bases = Counter(name.rpartition("/")[2] for name in names.values())
    left = {
        number: name.rpartition("/")[2] for number, name in names.items() if number not in found
    }
    return {
        number: paths[base][0]
        for number, base in left.items()
        if bases[base] == 1 and len(paths.get(base, ())) == 1 and paths[base][0] not in taken
    }


FORMAT = OwnFormat(
    title="COCO",
    needs="--images DIR --labels annotations.json [--mapping]",
    licence="yours",
    labels="names of the categories to classes; unknown names ignored, said once",
    takes=frozenset({"images", "labels", "mapping", "only", "split"}),
    open_own=open_own,
)
