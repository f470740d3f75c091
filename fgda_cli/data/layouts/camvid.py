"""CamVid as SegNet's authors re-packed it: `train/*.png`, `valannot/*.png` of the same names
(480x360, 11 classes and void); or as published: `701_StillsRaw_full/F.png`,
`LabeledApproved_full/F_L.png` (960x720, 32 colours), split as in the re-packing.

The labels are read as Cityscapes train ids; as a target its training labels are neither needed nor
read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..formats import grey_values, id_table, map_colours, read_label_values
from ..images import BadFile, image_files
from .base import Layout, Listing, locate, pair_by_name, unlabelled

# sky, building, pole, road, pavement, tree, sign, fence, car (buses and trucks inside), pedestrian,
# bicyclist (rider and bike)
IDS = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18}
VOID = 11
TABLE = id_table(IDS)
COLOURS = {
    (64, 128, 64): 255, (192, 0, 128): 2, (0, 128, 192): 18, (0, 128, 64): 2, (128, 0, 0): 2,
    (64, 0, 128): 13, (64, 0, 192): 255, (192, 128, 64): 11, (192, 192, 128): 5, (64, 64, 128): 4,
    (128, 0, 192): 0, (192, 0, 64): 0, (128, 128, 64): 255, (192, 0, 192): 17, (128, 64, 64): 255,
    (64, 192, 128): 255, (64, 64, 0): 11, (128, 64, 128): 0, (128, 128, 192): 1, (0, 0, 192): 1,
    (192, 128, 128): 7, (128, 128, 128): 10, (64, 128, 192): 13, (0, 0, 64): 255, (0, 64, 64): 6,
    (192, 64, 128): 16, (128, 128, 0): 8, (192, 128, 192): 13, (64, 0, 64): 255, (192, 192, 0): 8,
    (0, 0, 0): 255, (64, 192, 0): 3,
}  # fmt: skip
FULL = "701_StillsRaw_full"
FULL_LABELS = "LabeledApproved_full"


def fill(listing: Listing, root: Path, condition: str | None) -> None:
    if (root / FULL).is_dir():
        _fill_full(listing, root)
        return
    root = locate(root, ("train",), LAYOUT.title)
    unlabelled(listing, image_files(root / "train"), root / "train")
    if (root / "val").is_dir() and (root / "valannot").is_dir():
        images = root / "val"
        labels = root / "valannot"
        pair_by_name(
            listing,
            image_files(images),
            image_files(labels),
            image_root=images,
            label_root=labels,
            split="val",
        )


def _fill_full(listing: Listing, root: Path) -> None:
    root = locate(root, (FULL, FULL_LABELS), LAYOUT.title)
    images = {split: [] for split in ("train", "val", "test")}
    for image in image_files(root / FULL):
        images[_split(image.stem)].append(image)
    unlabelled(listing, images["train"], root / FULL)
    wanted = {f"{image.stem}_L" for image in images["val"]}
    labels = [label for label in image_files(root / FULL_LABELS) if label.stem in wanted]
    pair_by_name(
        listing,
        images["val"],
        labels,
        image_root=root / FULL,
        label_root=root / FULL_LABELS,
        split="val",
        rename=lambda stem: f"{stem}_L",
    )


def _split(name: str) -> str:
    """The re-packing's: test is sequence Seq05VD and the later half of 0001TP, val the densely
    labelled part of 0016E5.
    """
    sequence, _, frame = name.partition("_")
    number = int(frame) if frame.isdecimal() else 0
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= number <= 8159 and number % 2 else "train"


def read_label(path: Path) -> np.ndarray:
    """Read a label as train ids `[H,W]`. Raises BadFile."""
    values = read_label_values(path)
    if values.ndim == 3 and path.stem.endswith("_L"):
        return map_colours(values, COLOURS)
    ids = grey_values(values)
    bad = ids[(ids > VOID) & (ids != 255)]
    if bad.size:
        raise BadFile(f"label id {int(bad[0])} is not one of CamVid's (0 to {VOID})")
    return TABLE[ids]


LAYOUT = Layout(
    title="CamVid",
    needs="train/, val/, valannot/; or 701_StillsRaw_full/, LabeledApproved_full/ with *_L.png",
    licence="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    labels="11 ids, or 32 colours, to train ids: buses and trucks are in car, bicyclists in"
    " bicycle",
    size=(480, 360),
    fill=fill,
    read_label=read_label,
    not_read=("trainannot/*", f"{FULL_LABELS}/*"),
)
