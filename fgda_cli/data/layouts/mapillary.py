"""Mapillary Vistas: `{training,validation}/images/*.jpg`; labels v1.2 as palette PNGs of ids 0 to
65 in `labels` or
`v1.2/labels`.

As a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import grey_values, id_table, read_label_values
from ..images import BadFile, image_files
from .base import Listing, locate, pair_by_name, unlabelled

TITLE = "Mapillary Vistas v1.2"
NEEDS = "training/images, validation/images, validation/labels or validation/v1.2/labels"
LICENCE = "https://www.mapillary.com/dataset/vistas"
LABELS = (
    "66 ids to Cityscapes' train ids (lane markings to road, cars, riders of any kind …), others"
    " ignored"
)
SIZE = (1024, 768)
IDS = {
    13: 0, 24: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9, 27: 10,
    19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
}  # fmt: skip
TABLE = id_table(IDS)
LARGEST = 65


def find(root: Path) -> Listing:
    root = locate(root, ("training/images",), TITLE)
    listing = Listing()
    unlabelled(listing, image_files(root / "training/images"), root / "training/images")
    images = root / "validation/images"
    places = (root / "validation/v1.2/labels", root / "validation/labels")
    labels = next((folder for folder in places if folder.is_dir()), None)
    if images.is_dir():
        label_files = image_files(labels) if labels is not None else []
        pair_by_name(
            listing,
            image_files(images),
            label_files,
            image_root=images,
            label_root=labels or images,
            split="val",
        )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]` of a palette PNG's indices. Raises BadFile."""
    ids = grey_values(read_label_values(path))
    if ids.max(initial=0) > LARGEST:
        raise BadFile(f"label id {int(ids.max())} is not one of Vistas v1.2's (0 to {LARGEST})")
    return TABLE[ids]
