"""Virtual KITTI 2: `SCENE/VARIANT/frames/rgb/Camera_N/rgb_M.jpg`,
`…/classSegmentation/Camera_N/classgt_M.png` of colours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import map_colours, read_label_values
from ..images import BadFile, visible_files
from .base import Listing, locate, pair_by_name

TITLE = "Virtual KITTI 2"
NEEDS = "SCENE/VARIANT/frames/{rgb,classSegmentation}/Camera_N"
LICENCE = "https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2"
LABELS = "14 colours to train ids; guard rails and misc ignored"
SIZE = (1242, 375)
COLOURS = {
    (210, 0, 200): 9, (90, 200, 255): 10, (0, 199, 0): 8, (90, 240, 0): 8, (140, 140, 140): 2,
    (100, 60, 100): 0, (250, 100, 255): 255, (255, 255, 0): 7, (200, 200, 0): 6, (255, 130, 0): 5,
    (80, 80, 80): 255, (160, 60, 60): 14, (255, 127, 80): 13, (0, 139, 139): 13,
}  # fmt: skip


def find(root: Path) -> Listing:
    root = locate(root, (), TITLE)
    listing = Listing()
    images = visible_files(root, "*/*/frames/rgb/Camera_*/rgb_*.*")
    labels = visible_files(root, "*/*/frames/classSegmentation/Camera_*/classgt_*.png")
    pair_by_name(
        listing,
        images,
        labels,
        image_root=root,
        label_root=root,
        split="train",
        rename=lambda stem: stem.replace("/rgb/", "/classSegmentation/").replace(
            "/rgb_", "/classgt_"
        ),
    )
    return listing


def read_label(path: Path) -> np.ndarray:
    """Train ids `[H,W]`. Raises BadFile."""
    values = read_label_values(path)
    if values.ndim != 3:
        raise BadFile("a Virtual KITTI label has colours, this one is grey")
    return map_colours(values, COLOURS)
