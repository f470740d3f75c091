"""GTA5: `images/00001.png`, `labels/00001.png` (palette PNGs of Cityscapes label ids; some
re-packings are RGB).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..classes import CITYSCAPES_IDS, PALETTE, VOID_COLOURS
from ..formats import from_cityscapes_ids, ids_or_colours, map_colours, read_label_values
from ..images import image_files
from .base import Listing, locate, pair_by_name, refuse_train_ids

TITLE = "GTA5"
NEEDS = "images/, labels/"
LICENCE = "https://download.visinf.tu-darmstadt.de/data/from_games"
LABELS = "Cityscapes label ids (or their colours) to train ids"
# published training size, width and height
SIZE = (1280, 720)
COLOURS = dict(zip(PALETTE, CITYSCAPES_IDS, strict=True)) | VOID_COLOURS


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
        split="train",
    )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    label = ids_or_colours(read_label_values(path))
    return from_cityscapes_ids(label if label.ndim == 2 else map_colours(label, COLOURS))
