"""Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*_gtFine_label{Ids,TrainIds}.png`.

As a target it is unlabelled: gtFine/train is neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import read_city_label
from ..images import visible_files
from .base import Listing, Pair, locate

TITLE = "Cityscapes"
NEEDS = "leftImg8bit/{train,val}, gtFine/val"
LICENCE = "https://www.cityscapes-dataset.com/license"
LABELS = "train ids, or label ids, as the file's name says"
SIZE = (1024, 512)  # published training size, width and height
SUFFIX = "_leftImg8bit"


def find(root: Path) -> Listing:
    root, listing = locate(root, ("leftImg8bit",), TITLE), Listing()
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        for image in visible_files(folder, f"*{SUFFIX}.*") if folder.is_dir() else []:
            stem = image.relative_to(folder).with_suffix("").as_posix().removesuffix(SUFFIX)
            label = None if split == "train" else _label(root / "gtFine" / split / stem)
            if split == "train" or label is not None:
                listing.pairs.append(Pair(stem, split, image, label))
            else:
                listing.refuse(image, "validation image without gtFine labels")
    return listing


def _label(stem: Path) -> Path | None:
    candidates = (stem.with_name(f"{stem.name}_gtFine_{kind}.png") for kind in ("labelTrainIds", "labelIds"))
    return next((path for path in candidates if path.is_file()), None)


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
