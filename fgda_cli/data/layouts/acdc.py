"""ACDC: `rgb_anon/CONDITION/SPLIT/SEQ/F_rgb_anon.png`,
`gt/CONDITION/SPLIT/SEQ/F_gt_label{TrainIds,Ids}.png` (1920x1080).

`*_ref` folders, clear-weather pictures of the same places, are left out. As a target its training
labels are neither needed nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...runtime.errors import UsageError
from ..formats import read_city_label
from .base import Listing, city_label, locate, pair_city, refuse_train_ids

TITLE = "ACDC"
NEEDS = "rgb_anon/{fog,night,rain,snow}/{train,val}, gt/CONDITION/val"
LICENCE = "https://acdc.vision.ee.ethz.ch"
LABELS = "train ids, or Cityscapes label ids, as the file's name says"
SIZE = (960, 540)
CONDITIONS = ("fog", "night", "rain", "snow")
ENDING = "_rgb_anon"


def find(root: Path, condition: str | None = None) -> Listing:
    """List the images of all conditions, or of one. Raises UsageError for an unknown condition."""
    if condition is not None and condition not in CONDITIONS:
        raise UsageError(f"--condition {condition}: known are {', '.join(CONDITIONS)}")
    root = locate(root, ("rgb_anon",), TITLE)
    listing = Listing()
    for weather in CONDITIONS if condition is None else (condition,):
        for split in ("train", "val"):
            folder = root / "rgb_anon" / weather / split
            pair_city(
                listing,
                folder,
                root / "rgb_anon",
                split=split,
                ending=ENDING,
                label_of=lambda name: city_label(root / "gt" / f"{name}_gt"),
            )
    refuse_train_ids(listing, TITLE)
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
