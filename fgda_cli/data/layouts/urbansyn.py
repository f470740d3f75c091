"""UrbanSyn: `rgb/rgb_N.png`, `ss/ss_N.png` of train ids (in the first channel where there are
several; 2048x1024).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_train_ids, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name

TITLE = "UrbanSyn"
NEEDS = "rgb/, ss/"
LICENCE = "http://www.urbansyn.org"
LABELS = "train ids as they are"
SIZE = (1024, 512)


def find(root: Path) -> Listing:
    root = locate(root, ("rgb", "ss"), TITLE)
    listing = Listing()
    images = root / "rgb"
    labels = root / "ss"
    pair_by_name(
        listing,
        image_files(images),
        image_files(labels),
        image_root=images,
        label_root=labels,
        split="train",
        rename=lambda stem: stem.replace("rgb_", "ss_", 1),
    )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    values = read_label_values(path)
    return from_train_ids(values if values.ndim == 2 else values[..., 0])
