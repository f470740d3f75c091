"""IDD: `leftImg8bit/SPLIT/SEQ/F_leftImg8bit.{png,jpg}`, `gtFine/SPLIT/SEQ/F_gtFine_labelcsTrainIds.png` (IDD's own tool).

As a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_train_ids, grey_values, read_label_values
from ..images import visible_files
from .base import Listing, Pair, locate, stem_below

TITLE = "IDD"
NEEDS = "leftImg8bit/{train,val}, gtFine/val with *_labelcsTrainIds.png"
LICENCE = "https://idd.insaan.iiit.ac.in"
LABELS = "Cityscapes train ids as they are"
SIZE = (1024, 576)
SUFFIX = "_leftImg8bit"


def find(root: Path) -> Listing:
    root, listing = locate(root, ("leftImg8bit",), TITLE), Listing()
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        for image in visible_files(folder, f"*{SUFFIX}.*"):
            stem = stem_below(image, folder).removesuffix(SUFFIX)
            label = root / "gtFine" / split / f"{stem}_gtFine_labelcsTrainIds.png"
            if split == "train":
                listing.pairs.append(Pair(stem, split, image, None))
            elif label.is_file():
                listing.pairs.append(Pair(stem, split, image, label))
            else:
                listing.refuse(image, "validation image without *_labelcsTrainIds.png (made by IDD's createLabels.py)")
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return from_train_ids(grey_values(read_label_values(path)))
