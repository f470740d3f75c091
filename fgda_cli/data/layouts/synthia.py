"""SYNTHIA-RAND-CITYSCAPES: `RGB/0000000.png`, `GT/LABELS/0000000.png` (16 bit, class id in the
first channel).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..classes import SYNTHIA_IDS
from ..formats import id_table
from ..images import BadFile, image_files
from .base import Listing, locate, pair_by_name

TITLE = "SYNTHIA-RAND-CITYSCAPES"
NEEDS = "RGB/, GT/LABELS/"
LICENCE = "https://synthia-dataset.net"
LABELS = "22 ids of 16 bit to train ids; terrain, truck and train never occur"
# published training size, width and height
SIZE = (1280, 760)
TABLE = id_table(SYNTHIA_IDS)


def find(root: Path) -> Listing:
    root = locate(root, ("RGB", "GT/LABELS"), TITLE)
    listing = Listing()
    images = root / "RGB"
    labels = root / "GT" / "LABELS"
    pair_by_name(
        listing,
        image_files(images),
        image_files(labels),
        image_root=images,
        label_root=labels,
        split="train",
    )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`; the file is read unchanged in 16 bit. Raises BadFile."""
    import cv2

    raw = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if pixels is None:
        raise BadFile("the file is empty (zero bytes)" if not raw.size else "not a readable image")
    if pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise BadFile(
            f"a SYNTHIA label has 3 channels of 16 bit, this one is {pixels.dtype} {pixels.shape}"
        )
    # OpenCV reads BGR: the file's first channel comes last
    ids = pixels[..., 2]
    if ids.max(initial=0) > 22:
        raise BadFile(f"class id {ids.max()} is not one of SYNTHIA's (0 to 22)")
    return TABLE[ids]
