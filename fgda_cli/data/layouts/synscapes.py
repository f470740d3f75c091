"""Synscapes: `img/rgb/N.png`, `img/class/N.png` of Cityscapes label ids (1440x720)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_cityscapes_ids, grey_values, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name, refuse_train_ids

TITLE = "Synscapes"
NEEDS = "img/rgb, img/class"
LICENCE = "https://synscapes.on.liu.se"
LABELS = "Cityscapes label ids to train ids"
SIZE = (1280, 640)


def find(root: Path) -> Listing:
    root = locate(root, ("img/rgb", "img/class"), TITLE)
    listing = Listing()
    images = root / "img/rgb"
    labels = root / "img/class"
    pair_by_name(
        listing,
        image_files(images),
        image_files(labels),
        image_root=images,
        label_root=labels,
        split="train",
    )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return from_cityscapes_ids(grey_values(read_label_values(path)))
