"""BDD100K, 10k: `images/10k/SPLIT/*.jpg`, `labels/sem_seg/masks/SPLIT/*.png` of train ids
(1280x720).

As a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...runtime.errors import FgdaError
from ..formats import from_train_ids, grey_values, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name, unlabelled

TITLE = "BDD100K"
NEEDS = "images/10k/{train,val}, labels/sem_seg/masks/val"
LICENCE = "https://bdd-data.berkeley.edu"
LABELS = "train ids as they are"
SIZE = (1280, 720)


def find(root: Path) -> Listing:
    if (root / "seg/images").is_dir():
        raise FgdaError(
            f"--root {root} holds BDD100K's former folders (seg/images, seg/labels), which are read"
            f" so:\nfgda prepare folder --images {root}/seg/images/val --labels"
            f" {root}/seg/labels/val --label-ids train --image-suffix .jpg --label-suffix"
            " _train_id.png"
        )
    root = locate(root, ("images/10k/train",), TITLE)
    listing = Listing()
    images = root / "images/10k"
    labels = root / "labels/sem_seg/masks/val"
    unlabelled(listing, image_files(images / "train"), images / "train")
    if (images / "val").is_dir():
        masks = image_files(labels) if labels.is_dir() else []
        pair_by_name(
            listing,
            image_files(images / "val"),
            masks,
            image_root=images / "val",
            label_root=labels,
            split="val",
        )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return from_train_ids(grey_values(read_label_values(path)))
