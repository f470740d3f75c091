"""KITTI semantics: `training/image_2/*.png`, `training/semantic/*.png` of Cityscapes label ids;
`testing/image_2` has no labels.

The labelled images are validation; the training split are the unlabelled ones where there are any,
else the same without labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import from_cityscapes_ids, grey_values, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name, refuse_train_ids, unlabelled

TITLE = "KITTI semantics"
NEEDS = "training/image_2, training/semantic, testing/image_2 where there is one"
LICENCE = "http://www.cvlibs.net/datasets/kitti/eval_semseg.php"
LABELS = "Cityscapes label ids to train ids"
SIZE = (1024, 312)


def find(root: Path) -> Listing:
    root = locate(root, ("training/image_2", "training/semantic"), TITLE)
    listing = Listing()
    images = root / "training/image_2"
    labels = root / "training/semantic"
    targets = root / "testing/image_2" if (root / "testing/image_2").is_dir() else images
    listing.shares_images = targets == images
    if listing.shares_images:
        listing.notes.append(
            "without testing/image_2, the split train holds the images of val, without their labels"
        )
    unlabelled(listing, image_files(targets), targets)
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
    return from_cityscapes_ids(grey_values(read_label_values(path)))
