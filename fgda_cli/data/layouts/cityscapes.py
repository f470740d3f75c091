"""Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`,
`gtFine/SPLIT/CITY/*_gtFine_label{Ids,TrainIds}.png`.

As a target it is unlabelled: gtFine/train is neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import read_city_label
from .base import Listing, city_label, locate, pair_city, refuse_train_ids

TITLE = "Cityscapes"
NEEDS = "leftImg8bit/{train,val}, gtFine/val"
LICENCE = "https://www.cityscapes-dataset.com/license"
LABELS = "train ids, or label ids, as the file's name says"
# published training size, width and height
SIZE = (1024, 512)
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
            label_of=lambda name, labels=labels: city_label(labels / f"{name}_gtFine"),
            without="validation image without gtFine labels",
        )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
