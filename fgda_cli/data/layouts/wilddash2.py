"""WildDash 2: `images/*.jpg`, `labels/*.png` of Cityscapes label ids; higher ids are ignored. All
of it is validation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_cityscapes_ids, grey_values, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name, refuse_train_ids

TITLE = "WildDash 2"
NEEDS = "images/, labels/"
LICENCE = "https://wilddash.cc"
LABELS = "Cityscapes label ids to train ids, ids above 33 ignored"
SIZE = (1024, 576)


def find(root: Path) -> Listing:
    root = locate(root, ("images", "labels"), TITLE)
    listing = Listing()
    images = root / "images"
    labels = root / "labels"
    pair_by_name(
        listing,
        image_files(images),
        image_files(labels),
        image_root=images,
        label_root=labels,
        split="val",
    )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    ids = grey_values(read_label_values(path))
    return from_cityscapes_ids(np.where(ids > 33, 0, ids))
