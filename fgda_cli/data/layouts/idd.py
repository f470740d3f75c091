"""IDD: `leftImg8bit/SPLIT/SEQ/F_leftImg8bit.{png,jpg}`,
`gtFine/SPLIT/SEQ/F_gtFine_labelcsTrainIds.png` (IDD's own tool).

As a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_train_ids, grey_values, read_label_values
from .base import Listing, city_label, locate, pair_city

TITLE = "IDD"
NEEDS = "leftImg8bit/{train,val}, gtFine/val with *_labelcsTrainIds.png"
LICENCE = "https://idd.insaan.iiit.ac.in"
LABELS = "Cityscapes train ids as they are"
SIZE = (1024, 576)
ENDING = "_leftImg8bit"


def find(root: Path) -> Listing:
    root = locate(root, ("leftImg8bit",), TITLE)
    listing = Listing()
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        labels = root / "gtFine" / split
        pair_city(
            listing,
            folder,
            folder,
            split=split,
            ending=ENDING,
            label_of=lambda name, labels=labels: city_label(
                labels / f"{name}_gtFine", ("labelcsTrainIds",)
            ),
            without=(
                "validation image without *_labelcsTrainIds.png (made by IDD's createLabels.py)"
            ),
        )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return from_train_ids(grey_values(read_label_values(path)))
