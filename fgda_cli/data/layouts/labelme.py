"""Labelme: one JSON an image, beside it or in `--labels DIR`; outlines in file order, later ones on
top.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import IGNORE_INDEX, ClassSet
from ..images import BadFile, image_files
from ..mapping import load_mapping
from ..names import match_names
from ..shapes import FAR, Shape, Shapes, draw
from .base import Listing, OwnFiles, OwnFormat, Reader, pair_by_name

WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip"})


@dataclass(frozen=True)
class NamedShapes:
    """Labels drawn from a file of shapes with names."""

    classes: ClassSet
    table: dict[str, int]

    def read_label(self, path: Path) -> np.ndarray:
        """Read a label as train ids `[H,W]`. Raises BadFile."""
        return draw(self.read_shapes(path))

    def read_shapes(self, path: Path) -> Shapes:
        """Return the outlines and the size that the file claims its image to have. Raises
        BadFile.
        """
        tree = read_json(path)
        size = tree.get("imageWidth"), tree.get("imageHeight")
        if not all(type(part) is int for part in size):
            raise BadFile("imageWidth and imageHeight are missing")
        shapes = (self.shape(shape) for shape in tree["shapes"])
        return Shapes(size, tuple(shape for shape in shapes if shape is not None))

    def shape(self, tree: dict) -> Shape | None:
        """Return a shape of the file; None when it has no area. Raises BadFile."""
        kind = tree.get("shape_type") or "polygon"
        points = tree.get("points")
        train_id = self.table.get(tree["label"], IGNORE_INDEX)
        if not isinstance(kind, str):
            raise BadFile("shape_type is not a text")
        if kind in WITHOUT_AREA:
            return None
        if kind == "polygon":
            return Shape(train_id, (points,))
        (x0, y0), (x1, y1) = _two_points(points, kind)
        if kind == "rectangle":
            return Shape(train_id, (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),))
        if kind == "circle":
            radius = math.hypot(x1 - x0, y1 - y0)
            turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            return Shape(
                train_id,
                (
                    np.stack(
                        [x0 + radius * np.cos(turns), y0 + radius * np.sin(turns)], axis=1
                    ).tolist(),
                ),
            )
        if kind == "mask":
            return Shape(train_id, mask=(round(x0), round(y0), _mask(tree.get("mask"))))
        raise BadFile(f"shape_type {str(kind)[:40]} is unknown")

    def facts(self) -> dict[str, Any]:
        return {
            "layout": "labelme",
            "outlines": "united",
            "classes": self.classes.to_json(),
            "names": sorted(self.table.items()),
        }

    def mapped(self) -> set[int]:
        return set(self.table.values())


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises UsageError for names that no class has, FgdaError for folders
    that do not exist.
    """
    folder, labels = files.folders()
    labels = labels or folder
    meaning = load_mapping(files.mapping, by_name=True)
    listing = Listing(classes=meaning.classes)
    label_files = files.chosen(
        image_files(labels, suffixes=frozenset({".json"})), labels, files.label_suffix
    )
    images = files.chosen(image_files(folder), folder, files.image_suffix)
    pair_by_name(
        listing,
        images,
        label_files,
        image_root=folder,
        label_root=labels,
        split=files.split,
        endings=(files.image_suffix, files.label_suffix),
    )
    names = [name for pair in listing.pairs for name in _names(pair.label)]
    table = (
        match_names(names, meaning.classes, meaning.names, notes=listing.notes, rest=meaning.rest)
        if listing.pairs
        else {}
    )
    return listing, NamedShapes(meaning.classes, table)


def _names(path: Path) -> list[str]:
    try:
        return [shape["label"] for shape in read_json(path)["shapes"]]
    except BadFile:
        # refused later, by name
        return []


def read_json(path: Path) -> dict[str, Any]:
    """Read a Labelme file and check that its shapes have names. Raises BadFile."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"not readable JSON ({str(error)[:80] or type(error).__name__})") from error
    shapes = tree.get("shapes") if isinstance(tree, dict) else None
    if not isinstance(shapes, list) or not all(
        isinstance(s, dict) and isinstance(s.get("label"), str) for s in shapes
    ):
        raise BadFile("not a Labelme file: it needs `shapes` with a `label` each")
    return tree


def _two_points(points: Any, kind: str) -> tuple[tuple[float, float], tuple[float, float]]:
    try:
        (x0, y0), (x1, y1) = ((float(x), float(y)) for x, y in points)
    except (TypeError, ValueError, OverflowError):
        raise BadFile(f"a {kind} needs two points") from None
    # NaN is not <= either
    if not all(abs(value) <= FAR for value in (x0, y0, x1, y1)):
        raise BadFile(f"a {kind} has a point that is not finite, or far from any image")
    return (x0, y0), (x1, y1)


def _mask(text: Any) -> np.ndarray:
    """A PNG in base 64 to `[h,w]`. Raises BadFile."""
    from PIL import Image

    from ..images import MAX_PIXELS

    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile("a mask larger than any image")
            return np.asarray(image.convert("1")).astype(np.uint8)
    except BadFile:
        raise
    # Pillow raises many kinds of errors for damaged bytes
    except Exception as error:
        raise BadFile(f"a mask that cannot be read ({type(error).__name__})") from error


FORMAT = OwnFormat(
    title="Labelme",
    needs="--images DIR [--labels DIR] with one JSON an image [--mapping]",
    licence="yours",
    labels="names of the shapes to classes; unknown names ignored, said once",
    takes=frozenset(
        {"images", "labels", "mapping", "image_suffix", "label_suffix", "only", "split"}
    ),
    open_own=open_own,
)
