"""ACDC: `rgb_anon/CONDITION/SPLIT/SEQ/F_rgb_anon.png`, `gt/CONDITION/SPLIT/SEQ/F_gt_label{TrainIds,Ids}.png` (1920x1080).

`*_ref` folders, clear-weather pictures of the same places, are left out. As a target its training labels are neither needed
nor read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...runtime.errors import UsageError
from ..formats import read_city_label
from ..images import visible_files
from .base import Listing, Pair, locate, stem_below

TITLE = "ACDC"
NEEDS = "rgb_anon/{fog,night,rain,snow}/{train,val}, gt/CONDITION/val"
LICENCE = "https://acdc.vision.ee.ethz.ch"
LABELS = "train ids, or Cityscapes label ids, as the file's name says"
SIZE = (960, 540)
CONDITIONS = ("fog", "night", "rain", "snow")
SUFFIX = "_rgb_anon"


def find(root: Path, condition: str | None = None) -> Listing:
    """All conditions, or one. Raises UsageError for one that there is not."""
    if condition is not None and condition not in CONDITIONS:
        raise UsageError(f"--condition {condition}: known are {', '.join(CONDITIONS)}")
    root, listing = locate(root, ("rgb_anon",), TITLE), Listing()
    for weather in CONDITIONS if condition is None else (condition,):
        for split in ("train", "val"):
            for image in visible_files(root / "rgb_anon" / weather / split, f"*{SUFFIX}.*"):
                stem = stem_below(image, root / "rgb_anon").removesuffix(SUFFIX)
                label = None if split == "train" else city_label(root / "gt" / stem)
                if split == "val" and label is None:
                    listing.refuse(image, "validation image without a label")
                else:
                    listing.pairs.append(Pair(stem, split, image, label))
    return listing


def city_label(stem: Path) -> Path | None:
    """`STEM_gt_labelTrainIds.png`, or with label ids; None where there is none."""
    candidates = (stem.with_name(f"{stem.name}_gt_{kind}.png") for kind in ("labelTrainIds", "labelIds"))
    return next((path for path in candidates if path.is_file()), None)


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    return read_city_label(path)
