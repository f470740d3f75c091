"""IDD Lite: `leftImg8bit/SPLIT/SEQ/F_image.jpg`, `gtFine/SPLIT/SEQ/F_label.png`, seven classes of
its own.

As a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..classes import named_classes
from ..formats import from_train_ids, grey_values, read_label_values
from .base import Listing, city_label, locate, pair_city

TITLE = "IDD Lite"
NEEDS = "leftImg8bit/{train,val}, gtFine/val with *_label.png"
LICENCE = "https://idd.insaan.iiit.ac.in"
LABELS = "its own seven classes, as they are"
SIZE = (320, 224)
CLASSES = named_classes(
    (
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    )
)


def find(root: Path) -> Listing:
    root = locate(root, ("leftImg8bit",), TITLE)
    listing = Listing(classes=CLASSES)
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        labels = root / "gtFine" / split
        pair_city(
            listing,
            folder,
            folder,
            split=split,
            ending="_image",
            label_of=lambda name, labels=labels: city_label(labels / name, ("label",)),
        )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return from_train_ids(grey_values(read_label_values(path)), len(CLASSES))
