"""CamVid: `train/*.png`, `trainannot/*.png` of the same names, and so for val and test (480x360, 11 classes and void).

The labels are read as Cityscapes train ids; as a target its training labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import grey_values, id_table, read_label_values
from ..images import BadFile, image_files
from .base import Listing, locate, pair_by_name, unlabelled

TITLE = "CamVid"
NEEDS = "train/, val/, valannot/"
LICENCE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid"
LABELS = "11 classes to train ids: buses and trucks are in car, bicyclists in bicycle"
SIZE = (480, 360)
# sky, building, pole, road, pavement, tree, sign, fence, car (buses and trucks inside), pedestrian, bicyclist (rider and bike)
IDS = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18}
VOID = 11
TABLE = id_table(IDS)


def find(root: Path) -> Listing:
    root, listing = locate(root, ("train",), TITLE), Listing()
    unlabelled(listing, image_files(root / "train"), root / "train")
    if (root / "val").is_dir() and (root / "valannot").is_dir():
        images, labels = root / "val", root / "valannot"
        pair_by_name(listing, image_files(images), image_files(labels), images, labels, "val")
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    ids = grey_values(read_label_values(path))
    bad = ids[(ids > VOID) & (ids != 255)]
    if bad.size:
        raise BadFile(f"label id {int(bad[0])} is none of CamVid's (0 to {VOID})")
    return TABLE[ids]
