"""Dark Zurich: `rgb_anon/{train,val}/night/SEQ/F_rgb_anon.png`, `gt/val/night/SEQ/F_gt_labelTrainIds.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import read_city_label
from ..images import visible_files
from .acdc import SUFFIX, city_label
from .base import Listing, Pair, locate, stem_below

TITLE = "Dark Zurich"
NEEDS = "rgb_anon/{train,val}/night, gt/val/night"
LICENCE = "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU"
LABELS = "train ids as they are"
SIZE = (960, 540)


def find(root: Path) -> Listing:
    root, listing = locate(root, ("rgb_anon/train/night",), TITLE), Listing()
    for split in ("train", "val"):
        for image in visible_files(root / "rgb_anon" / split / "night", f"*{SUFFIX}.*"):
            stem = stem_below(image, root / "rgb_anon").removesuffix(SUFFIX)
            label = None if split == "train" else city_label(root / "gt" / stem)
            if split == "val" and label is None:
                listing.refuse(image, "validation image without a label")
            else:
                listing.pairs.append(Pair(stem, split, image, label))
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
