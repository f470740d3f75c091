"""GTA5: `images/00001.png`, `labels/00001.png` (palette PNGs of Cityscapes label ids; some re-packings are RGB)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...runtime.errors import UsageError
from ..classes import CITYSCAPES_IDS, IGNORE_INDEX, PALETTE, VOID_COLOURS
from ..formats import decide_label_ids, from_cityscapes_ids, map_colours, read_label_values, sampled_values
from ..images import image_files
from .base import Listing, locate, pair_by_name

TITLE = "GTA5"
SIZE = (1280, 720)  # published training size, width and height
COLOURS = dict(zip(PALETTE, CITYSCAPES_IDS, strict=True)) | VOID_COLOURS


def find(root: Path) -> Listing:
    root, listing = locate(root, ("images", "labels"), TITLE), Listing()
    images, labels = root / "images", root / "labels"
    pair_by_name(listing, image_files(images), image_files(labels), images, labels, "train")
    refuse_train_ids(listing)
    return listing


def refuse_train_ids(listing: Listing) -> None:
    """Re-packings with train ids exist; read as label ids they would lose road, sky and cars. Raises UsageError."""
    seen = sampled_values([pair.label for pair in listing.pairs if pair.label is not None], read_label_values)
    if seen <= {*CITYSCAPES_IDS, 0, IGNORE_INDEX}:
        return
    try:
        decide_label_ids(seen)
    except UsageError as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{first}\nGTA5 has label ids; for train ids: prepare folder --label-ids train") from None


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    label = read_label_values(path)
    return from_cityscapes_ids(label if label.ndim == 2 else map_colours(label, COLOURS))
