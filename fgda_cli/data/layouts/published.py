"""Published data sets, a row each: which folders they have, which files belong together, and how a
label is read.

As a target a data set is unlabelled: the labels of a training split are neither needed nor read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...runtime.errors import FgdaError
from ..classes import CITYSCAPES_IDS, PALETTE, SYNTHIA_IDS, VOID_COLOURS, named_classes
from ..formats import (
    from_cityscapes_ids,
    from_train_ids,
    grey_values,
    id_table,
    ids_or_colours,
    map_colours,
    read_city_label,
    read_label_values,
)
from ..images import BadFile, image_files, visible_files
from .base import (
    Fill,
    Layout,
    Listing,
    city_label,
    locate,
    pair_by_name,
    pair_city,
    unlabelled,
)

GTA5_COLOURS = dict(zip(PALETTE, CITYSCAPES_IDS, strict=True)) | VOID_COLOURS
SYNTHIA_TABLE = id_table(SYNTHIA_IDS)
IDD_LITE = named_classes(
    (
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    )
)
VISTAS_TABLE = id_table({
    13: 0, 24: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9, 27: 10,
    19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
})  # fmt: skip
VISTAS_LARGEST = 65
VKITTI2_COLOURS = {
    (210, 0, 200): 9, (90, 200, 255): 10, (0, 199, 0): 8, (90, 240, 0): 8, (140, 140, 140): 2,
    (100, 60, 100): 0, (250, 100, 255): 255, (255, 255, 0): 7, (200, 200, 0): 6, (255, 130, 0): 5,
    (80, 80, 80): 255, (160, 60, 60): 14, (255, 127, 80): 13, (0, 139, 139): 13,
}  # fmt: skip


# How a label is read: each returns train ids `[H,W]` and raises BadFile.


def train_ids(path: Path) -> np.ndarray:
    return from_train_ids(grey_values(read_label_values(path)))


def iddlite_ids(path: Path) -> np.ndarray:
    return from_train_ids(grey_values(read_label_values(path)), len(IDD_LITE))


def cityscapes_ids(path: Path) -> np.ndarray:
    return from_cityscapes_ids(grey_values(read_label_values(path)))


def gta5_labels(path: Path) -> np.ndarray:
    """Palette PNGs of label ids; some re-packings are RGB."""
    label = ids_or_colours(read_label_values(path))
    return from_cityscapes_ids(label if label.ndim == 2 else map_colours(label, GTA5_COLOURS))


def synthia_labels(path: Path) -> np.ndarray:
    """Ids in the first of three channels of 16 bit."""
    values = read_label_values(path)
    if values.dtype != np.uint16 or values.ndim != 3:
        raise BadFile(
            f"a SYNTHIA label has 3 channels of 16 bit, this one is {values.dtype} {values.shape}"
        )
    ids = values[..., 0]
    if ids.max(initial=0) > 22:
        raise BadFile(f"class id {ids.max()} is not one of SYNTHIA's (0 to 22)")
    return SYNTHIA_TABLE[ids]


def urbansyn_labels(path: Path) -> np.ndarray:
    """Train ids, in the first channel if there are several."""
    values = read_label_values(path)
    return from_train_ids(values if values.ndim == 2 else values[..., 0])


def vistas_labels(path: Path) -> np.ndarray:
    ids = grey_values(read_label_values(path))
    if ids.max(initial=0) > VISTAS_LARGEST:
        raise BadFile(
            f"label id {int(ids.max())} is not one of Vistas v1.2's (0 to {VISTAS_LARGEST})"
        )
    return VISTAS_TABLE[ids]


def vkitti2_labels(path: Path) -> np.ndarray:
    values = read_label_values(path)
    if values.ndim != 3:
        raise BadFile("a Virtual KITTI label has colours, this one is grey")
    return map_colours(values, VKITTI2_COLOURS)


def wilddash_labels(path: Path) -> np.ndarray:
    """Cityscapes label ids; higher ones are WildDash's own, and are ignored."""
    ids = grey_values(read_label_values(path))
    return from_cityscapes_ids(np.where(ids > 33, 0, ids))


# Which files belong together: each returns a function that fills a listing from a root.


def paired(
    images: str,
    labels: str,
    split: str = "train",
    rename: Callable[[str], str] = lambda stem: stem,
) -> Fill:
    """Pair the files of two folders by name."""

    def fill(listing: Listing, root: Path, condition: str | None) -> None:
        pair_by_name(
            listing,
            image_files(root / images),
            image_files(root / labels),
            image_root=root / images,
            label_root=root / labels,
            split=split,
            rename=rename,
        )

    return fill


def city(
    ending: str = "_leftImg8bit",
    label_ending: str = "_gtFine",
    kinds: Sequence[str] = ("labelTrainIds", "labelIds"),
    without: str = "validation image without a label",
) -> Fill:
    """Pair leftImg8bit/SPLIT and gtFine/SPLIT, as Cityscapes does."""

    def fill(listing: Listing, root: Path, condition: str | None) -> None:
        for split in ("train", "val"):
            folder = root / "leftImg8bit" / split
            truth = root / "gtFine" / split
            pair_city(
                listing,
                folder,
                folder,
                split=split,
                ending=ending,
                label_of=lambda name, truth=truth: city_label(
                    truth / f"{name}{label_ending}", kinds
                ),
                without=without,
            )

    return fill


def acdc(listing: Listing, root: Path, condition: str | None) -> None:
    """`*_ref` folders, clear-weather pictures of the same places, are left out."""
    for weather in ACDC_CONDITIONS if condition is None else (condition,):
        _anonymised(listing, root, {split: f"{weather}/{split}" for split in ("train", "val")})


def dark_zurich(listing: Listing, root: Path, condition: str | None) -> None:
    _anonymised(listing, root, {split: f"{split}/night" for split in ("train", "val")})


def _anonymised(listing: Listing, root: Path, folders: dict[str, str]) -> None:
    """Pair the folders of the splits below rgb_anon and gt."""
    for split, folder in folders.items():
        pair_city(
            listing,
            root / "rgb_anon" / folder,
            root / "rgb_anon",
            split=split,
            ending="_rgb_anon",
            label_of=lambda name: city_label(root / "gt" / f"{name}_gt"),
        )


def bdd100k(listing: Listing, root: Path, condition: str | None) -> None:
    if (root / "seg/images").is_dir():
        raise FgdaError(
            f"--root {root} holds BDD100K's former folders (seg/images, seg/labels), which are read"
            f" so:\nfgda prepare folder --images {root}/seg/images/val --labels"
            f" {root}/seg/labels/val --label-ids train --image-suffix .jpg --label-suffix"
            " _train_id.png"
        )
    root = locate(root, ("images/10k/train",), "BDD100K")
    images = root / "images/10k"
    labels = root / "labels/sem_seg/masks/val"
    unlabelled(listing, image_files(images / "train"), images / "train")
    if (images / "val").is_dir():
        pair_by_name(
            listing,
            image_files(images / "val"),
            image_files(labels) if labels.is_dir() else [],
            image_root=images / "val",
            label_root=labels,
            split="val",
        )


def kitti(listing: Listing, root: Path, condition: str | None) -> None:
    images = root / "training/image_2"
    targets = root / "testing/image_2" if (root / "testing/image_2").is_dir() else images
    listing.shares_images = targets == images
    if listing.shares_images:
        listing.notes.append(
            "without testing/image_2, the split train holds the images of val, without their labels"
        )
    unlabelled(listing, image_files(targets), targets)
    paired("training/image_2", "training/semantic", split="val")(listing, root, condition)


def mapillary(listing: Listing, root: Path, condition: str | None) -> None:
    unlabelled(listing, image_files(root / "training/images"), root / "training/images")
    images = root / "validation/images"
    places = (root / "validation/v1.2/labels", root / "validation/labels")
    labels = next((folder for folder in places if folder.is_dir()), None)
    if images.is_dir():
        pair_by_name(
            listing,
            image_files(images),
            image_files(labels) if labels is not None else [],
            image_root=images,
            label_root=labels or images,
            split="val",
        )


def vkitti2(listing: Listing, root: Path, condition: str | None) -> None:
    def label_of(stem: str) -> str:
        return stem.replace("/rgb/", "/classSegmentation/").replace("/rgb_", "/classgt_")

    pair_by_name(
        listing,
        visible_files(root, "*/*/frames/rgb/Camera_*/rgb_*.*"),
        visible_files(root, "*/*/frames/classSegmentation/Camera_*/classgt_*.png"),
        image_root=root,
        label_root=root,
        split="train",
        rename=label_of,
    )


ACDC_CONDITIONS = ("fog", "night", "rain", "snow")

LAYOUTS = {
    "acdc": Layout(
        title="ACDC",
        needs="rgb_anon/{fog,night,rain,snow}/{train,val}, gt/CONDITION/val",
        licence="https://acdc.vision.ee.ethz.ch",
        labels="train ids, or Cityscapes label ids, as the file's name says",
        size=(960, 540),
        folders=("rgb_anon",),
        fill=acdc,
        read_label=read_city_label,
        may_have_train_ids=False,
        conditions=ACDC_CONDITIONS,
        not_read=("gt/*", "*_ref/*"),
    ),
    "bdd100k": Layout(
        title="BDD100K",
        needs="images/10k/{train,val}, labels/sem_seg/masks/val",
        licence="https://bdd-data.berkeley.edu",
        labels="train ids as they are",
        size=(1280, 720),
        fill=bdd100k,
        read_label=train_ids,
        not_read=("labels/*",),
    ),
    "cityscapes": Layout(
        title="Cityscapes",
        needs="leftImg8bit/{train,val}, gtFine/val",
        licence="https://www.cityscapes-dataset.com/license",
        labels="train ids, or label ids, as the file's name says",
        # the published training size
        size=(1024, 512),
        folders=("leftImg8bit",),
        fill=city(
            without="validation image without gtFine labels",
        ),
        read_label=read_city_label,
        may_have_train_ids=False,
        not_read=("gtFine/*",),
    ),
    "darkzurich": Layout(
        title="Dark Zurich",
        needs="rgb_anon/{train,val}/night, gt/val/night",
        licence="https://www.trace.ethz.ch/publications/2019/GCMA_UIoU",
        labels="train ids as they are",
        size=(960, 540),
        folders=("rgb_anon/train/night",),
        fill=dark_zurich,
        read_label=read_city_label,
        may_have_train_ids=False,
        not_read=("gt/*", "*_ref/*"),
    ),
    "gta5": Layout(
        title="GTA5",
        needs="images/, labels/",
        licence="https://download.visinf.tu-darmstadt.de/data/from_games",
        labels="Cityscapes label ids (or their colours) to train ids",
        # the published training size
        size=(1280, 720),
        folders=("images", "labels"),
        fill=paired("images", "labels"),
        read_label=gta5_labels,
        may_have_train_ids=False,
    ),
    "idd": Layout(
        title="IDD",
        needs="leftImg8bit/{train,val}, gtFine/val with *_labelcsTrainIds.png",
        licence="https://idd.insaan.iiit.ac.in",
        labels="Cityscapes train ids as they are",
        size=(1024, 576),
        folders=("leftImg8bit",),
        fill=city(
            kinds=("labelcsTrainIds",),
            without="validation image without *_labelcsTrainIds.png"
            " (made by IDD's createLabels.py)",
        ),
        read_label=train_ids,
        not_read=("gtFine/*",),
    ),
    "iddlite": Layout(
        title="IDD Lite",
        needs="leftImg8bit/{train,val}, gtFine/val with *_label.png",
        licence="https://idd.insaan.iiit.ac.in",
        labels="its own seven classes, as they are",
        size=(320, 224),
        folders=("leftImg8bit",),
        fill=city(
            ending="_image",
            label_ending="",
            kinds=("label",),
        ),
        read_label=iddlite_ids,
        classes=IDD_LITE,
        not_read=("gtFine/*",),
    ),
    "kitti": Layout(
        title="KITTI semantics",
        needs="training/image_2, training/semantic, testing/image_2 where there is one",
        licence="http://www.cvlibs.net/datasets/kitti/eval_semseg.php",
        labels="Cityscapes label ids to train ids",
        size=(1024, 312),
        folders=("training/image_2", "training/semantic"),
        fill=kitti,
        read_label=cityscapes_ids,
        may_have_train_ids=False,
    ),
    "mapillary": Layout(
        title="Mapillary Vistas v1.2",
        needs="training/images, validation/images, validation/labels or validation/v1.2/labels",
        licence="https://www.mapillary.com/dataset/vistas",
        labels="66 ids to Cityscapes' train ids (lane markings to road, cars, riders of any"
        " kind …), others ignored",
        size=(1024, 768),
        folders=("training/images",),
        fill=mapillary,
        read_label=vistas_labels,
        not_read=("training/*labels/*",),
    ),
    "synscapes": Layout(
        title="Synscapes",
        needs="img/rgb, img/class",
        licence="https://synscapes.on.liu.se",
        labels="Cityscapes label ids to train ids",
        size=(1280, 640),
        folders=("img/rgb", "img/class"),
        fill=paired("img/rgb", "img/class"),
        read_label=cityscapes_ids,
        may_have_train_ids=False,
    ),
    "synthia": Layout(
        title="SYNTHIA-RAND-CITYSCAPES",
        needs="RGB/, GT/LABELS/",
        licence="https://synthia-dataset.net",
        labels="22 ids of 16 bit to train ids; terrain, truck and train never occur",
        # the published training size
        size=(1280, 760),
        folders=("RGB", "GT/LABELS"),
        fill=paired("RGB", "GT/LABELS"),
        read_label=synthia_labels,
    ),
    "urbansyn": Layout(
        title="UrbanSyn",
        needs="rgb/, ss/",
        licence="http://www.urbansyn.org",
        labels="train ids as they are",
        size=(1024, 512),
        folders=("rgb", "ss"),
        fill=paired("rgb", "ss", rename=lambda stem: stem.replace("rgb_", "ss_", 1)),
        read_label=urbansyn_labels,
    ),
    "vkitti2": Layout(
        title="Virtual KITTI 2",
        needs="SCENE/VARIANT/frames/{rgb,classSegmentation}/Camera_N",
        licence="https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2",
        labels="14 colours to train ids; guard rails and misc ignored",
        size=(1242, 375),
        fill=vkitti2,
        read_label=vkitti2_labels,
    ),
    "wilddash2": Layout(
        title="WildDash 2",
        needs="images/, labels/",
        licence="https://wilddash.cc",
        labels="Cityscapes label ids to train ids, ids above 33 ignored",
        size=(1024, 576),
        folders=("images", "labels"),
        fill=paired("images", "labels", split="val"),
        read_label=wilddash_labels,
        may_have_train_ids=False,
    ),
}
