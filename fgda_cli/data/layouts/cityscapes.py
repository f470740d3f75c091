"""Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*_gtFine_label{Ids,TrainIds}.png`.

As a target it is unlabelled: gtFine/train is neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..classes import IGNORE_INDEX, NAMES
from ..files import BadFile, read_indexed
from .base import Listing, Pair, files, from_cityscapes_ids, locate

TITLE = "Cityscapes"
SIZE = (1024, 512)  # published training size, width and height
SUFFIX = "_leftImg8bit"


def find(root: Path) -> Listing:
    root, listing = locate(root, ("leftImg8bit",), TITLE), Listing()
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        for image in files(folder, f"*{SUFFIX}.*") if folder.is_dir() else []:
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
    label = read_indexed(path)
    if label.ndim != 2:
        raise BadFile("a Cityscapes label is a grey PNG of ids, this one has colours")
    if not path.stem.endswith("_labelTrainIds"):
        return from_cityscapes_ids(label)
    bad = label[(label >= len(NAMES)) & (label != IGNORE_INDEX)]
    if bad.size:
        raise BadFile(f"train id {int(bad[0])} is none of Cityscapes' (0 to 18, 255)")
    return label.astype(np.uint8)
