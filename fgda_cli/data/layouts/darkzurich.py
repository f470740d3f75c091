"""Dark Zurich: `rgb_anon/{train,val}/night/SEQ/F_rgb_anon.png`,
`gt/val/night/SEQ/F_gt_labelTrainIds.png`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import read_city_label
from .acdc import ENDING
from .base import Listing, city_label, locate, pair_city, refuse_train_ids

TITLE = "Dark Zurich"
NEEDS = "rgb_anon/{train,val}/night, gt/val/night"
LICENCE = "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU"
LABELS = "train ids as they are"
SIZE = (960, 540)


def find(root: Path) -> Listing:
    root = locate(root, ("rgb_anon/train/night",), TITLE)
    listing = Listing()
    for split in ("train", "val"):
        folder = root / "rgb_anon" / split / "night"
        pair_city(
            listing,
            folder,
            root / "rgb_anon",
            split=split,
            ending=ENDING,
            label_of=lambda name: city_label(root / "gt" / f"{name}_gt"),
        )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
