"""Predicted labels as files that annotation tools open: CVAT's masks, COCO's outlines, plain
PNG.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import UsageError
from ..runtime.files import whole_file, write_json, write_text
from ..runtime.text import BadText, dump_yaml, read_text
from .classes import IGNORE_INDEX, ClassSet
from .images import write_image

# hashes of the label maps as they were written: others were corrected by a person
RECORD = "prelabels.json"


def areas_hash(ids: np.ndarray) -> str:
    """Return a hash of how a label map `[H,W]` divides its image, whatever the areas' ids or
    colours are.
    """
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first)).astype(np.uint16)
    return hashlib.sha256(repr(ids.shape).encode() + order[inverse].tobytes()).hexdigest()[:16]


def read_record(*folders: Path | None) -> dict[str, str]:
    """Return the hashes of pre-labels by name, from the first of the folders that has a record of
    them.
    """
    for folder in folders:
        try:
            if folder is not None:
                record = json.loads(read_text(folder / RECORD))
                return {str(name): str(value) for name, value in record.items()}
        except (OSError, ValueError, AttributeError, BadText):
            continue
    return {}


def check_names(kind: str, classes: ClassSet) -> None:
    """Check class names. Raises UsageError for names that the format cannot hold."""
    if kind != "cvat":
        return
    for name in classes.names:
        if (
            name.casefold() == "background"
            or any(letter in name for letter in ":\n\r")
            or name.startswith("#")
        ):
            raise UsageError(
                f"--export cvat: its labelmap.txt cannot hold a class named '{name}'\n"
                "choose --export coco or png, or train with another name"
            )


class Prelabels:
    """Writes one kind of pre-labels below `folder`: `add` for each image, then `close`. `files` are
    those that it wrote.
    """

    def __init__(self, kind: str, folder: Path, classes: ClassSet):
        self.kind = kind
        self.folder = folder
        self.classes = classes
        self.files: list[Path] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.written: dict[str, str] = {}

    def add(self, name: str, file_name: str, train_ids: np.ndarray) -> None:
        """Add the train ids `[H,W]` of the image `images/file_name`."""
        self.written[name] = areas_hash(train_ids)
        if self.kind == "coco":
            self._outlines(file_name, train_ids)
        elif self.kind == "png":
            self._write(f"labels/{name}.png", train_ids)
        else:
            table = np.zeros((256, 3), np.uint8)
            table[: len(self.classes)] = self.colours()
            self._write(f"SegmentationClass/{name}.png", table[train_ids])
            self.images.append({"file_name": name})

    def _write(self, name: str, pixels: np.ndarray) -> None:
        write_image(self.folder / name, pixels)
        self.files.append(self.folder / name)

    def colours(self) -> list[tuple[int, int, int]]:
        """Return the palette, without the black of unlabelled pixels and without equal colours."""
        distinct: list[tuple[int, int, int]] = []
        for red, green, blue in self.classes.palette:
            while (red, green, blue) == (0, 0, 0) or (red, green, blue) in distinct:
                blue = (blue + 1) % 256
            distinct.append((red, green, blue))
        return distinct

    def _outlines(self, file_name: str, train_ids: np.ndarray) -> None:
        number = len(self.images) + 1
        height, width = train_ids.shape
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for train_id, points, area in outlines(train_ids):
            xs = points[:, 0]
            ys = points[:, 1]
            box = [float(xs.min()), float(ys.min()), float(np.ptp(xs)), float(np.ptp(ys))]
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": train_id + 1,
                    "iscrowd": 0,
                    "area": area,
                    "bbox": box,
                    "segmentation": [points.ravel().tolist()],
                }
            )

    def close(self) -> None:
        """Write the files that exist once: the list of classes, COCO's one file, and the mapping by
        which `fgda prepare` reads it back.
        """
        if self.kind == "coco":
            names = [
                {"id": number, "name": name} for number, name in enumerate(self.classes.names, 1)
            ]
            tree = {"images": self.images, "annotations": self.annotations, "categories": names}
            write_json(self.folder / "annotations.json", tree, indent=None)
        elif self.kind == "cvat":
            rows = [
                f"{name}:{r},{g},{b}::"
                for name, (r, g, b) in zip(self.classes.names, self.colours(), strict=True)
            ]
            lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", *rows]
            write_text(self.folder / "labelmap.txt", "\n".join(lines) + "\n")
            named = "".join(f"{entry['file_name']}\n" for entry in self.images)
            write_text(self.folder / "ImageSets" / "Segmentation" / "default.txt", named)
            self._pack()
        write_json(self.folder / RECORD, self.written)
        names = self.classes.names
        keys = dict(enumerate(names)) if self.kind == "png" else {name: name for name in names}
        mapping = dump_yaml({"classes": list(names), **keys})
        write_text(self.folder / "mapping.yaml", mapping)
        once = {
            "coco": ["annotations.json"],
            "cvat": ["labelmap.txt", "ImageSets/Segmentation/default.txt", "annotations.zip"],
        }
        self.files += [
            self.folder / name for name in (*once.get(self.kind, ()), RECORD, "mapping.yaml")
        ]

    def _pack(self) -> None:
        """`annotations.zip`, which CVAT takes as "Segmentation mask 1.1" for a task of the images
        in `JPEGImages/`.
        """
        parts = [self.folder / "labelmap.txt", *sorted((self.folder / "ImageSets").rglob("*.txt"))]
        masks = self.folder / "SegmentationClass"
        parts += sorted(path for path in self.files if path.is_relative_to(masks))
        with (
            whole_file(self.folder / "annotations.zip") as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for path in parts:
                archive.write(path, path.relative_to(self.folder).as_posix())


def outlines(train_ids: np.ndarray) -> list[tuple[int, np.ndarray, float]]:
    """Return `(train id, points [N,2] of x and y, area)` of each connected region, larger ones
    first: drawn in this order, later ones on top, they give the label map again. An outline runs a
    quarter of a pixel inside its region's edge, around all pixel centres.
    """
    import cv2

    outlined = []
    for train_id in np.unique(train_ids[train_ids != IGNORE_INDEX]).tolist():
        mask = (train_ids == train_id).astype(np.uint8)
        # with 8 neighbours, two outlines could cross at a corner
        _, parts, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for number, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), 1):
            box = parts[top : top + height, left : left + width]
            region = (box == number).astype(np.uint8)
            # a contour runs through the centres of pixels: through those of quarters, it has an
            # area also where the region is one pixel wide
            doubled = np.repeat(np.repeat(region, 2, axis=0), 2, axis=1)
            (contour, *_), _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            points = (contour[:, 0].astype(np.float64) + 0.5) / 2 + (left, top)
            area = float(cv2.contourArea(contour)) / 4
            outlined.append((train_id, points, area))
    return sorted(outlined, key=lambda region: -region[2])
