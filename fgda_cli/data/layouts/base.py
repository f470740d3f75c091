"""What a raw data set's layout is: which files belong together and how a label is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...runtime.errors import FgdaError, UsageError
from ..classes import CITYSCAPES, CITYSCAPES_IDS, IGNORE_INDEX, ClassSet
from ..formats import LabelIds, decide_label_ids, read_label_values, sampled_values
from ..images import visible_files, written_name
from ..shapes import Shapes


@dataclass(frozen=True)
class Pair:
    """One raw image; `name` is unique in its split and becomes the prepared file's name."""

    name: str
    split: str
    image: Path
    label: Path | None
    # the label's outlines, where `label` holds those of many images
    shapes: Shapes | None = None


@dataclass
class Listing:
    """Files of a layout: pairs, refused files with the reason, and decisions that the user should
    know.
    """

    pairs: list[Pair] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    classes: ClassSet = CITYSCAPES
    notes: list[str] = field(default_factory=list)
    # files that the images were made of, such as videos, or that a note says are left out
    used: list[Path] = field(default_factory=list)
    # two splits hold the same images on purpose, as the layout says
    shares_images: bool = False
    # patterns of paths below the root that the layout leaves out on purpose
    not_read: tuple[str, ...] = ()

    def labels(self) -> list[Path]:
        return [pair.label for pair in self.pairs if pair.label is not None]

    def refuse(self, path: Path, reason: str) -> None:
        self.problems.append({"file": str(path), "reason": reason})


ReadLabel = Callable[[Path], np.ndarray]
# Fills a listing from a root, of one of the layout's conditions or of all.
Fill = Callable[[Listing, Path, str | None], None]


@dataclass(frozen=True)
class About:
    """What `fgda prepare --list` says of a data set or a format."""

    title: str
    needs: str
    licence: str
    labels: str


@dataclass(frozen=True)
class Layout(About):
    """A data set that lies as its authors publish it."""

    # width and height of training images
    size: tuple[int, int]
    fill: Fill
    # returns train ids `[H,W]`, raises BadFile; a function of a module, for other processes call it
    read_label: ReadLabel
    # folders that the root must have
    folders: tuple[str, ...] = ()
    classes: ClassSet = CITYSCAPES
    # no: a re-packing with train ids, which would be read as label ids, is refused
    may_have_train_ids: bool = True
    # parts that can be prepared alone, such as a weather
    conditions: tuple[str, ...] = ()
    # patterns of paths below the root that are left out on purpose, such as labels of a target
    not_read: tuple[str, ...] = ()
    # raised when labels come to be read in another way: cached ones are then converted again
    version: int = 1

    def find(self, root: Path, condition: str | None = None) -> Listing:
        """List the files of all conditions, or of one. Raises UsageError for an unknown one, and
        FgdaError for a root without the layout's folders.
        """
        if condition is not None and condition not in self.conditions:
            known = ", ".join(self.conditions)
            raise UsageError(
                f"--condition {condition}: "
                + (f"known are {known}" if known else f"{self.title} has no conditions")
            )
        listing = Listing(classes=self.classes, not_read=self.not_read)
        self.fill(listing, locate(root, self.folders, self.title), condition)
        if not self.may_have_train_ids:
            refuse_train_ids(listing, self.title)
        return listing


class Reader(Protocol):
    """Meaning of the labels of a user's own data set (travels to other processes)."""

    classes: ClassSet

    def read_label(self, path: Path) -> np.ndarray:
        """Read a label as train ids `[H,W]`. Raises BadFile."""

    def facts(self) -> dict[str, Any]:
        """Return everything that a converted label depends on besides its file, as JSON-able
        values.
        """

    def mapped(self) -> set[int]:
        """Train ids that some label value maps to: a class that never occurs although it is mapped
        is reported.
        """


@dataclass(frozen=True)
class OwnFiles:
    """The options of `fgda prepare` for data sets that lie as a user has them; a format's `takes`
    names those that it uses.
    """

    images: Path | None = None
    labels: Path | None = None
    root: Path | None = None
    mapping: Path | None = None
    label_ids: LabelIds | None = None
    carla_version: str | None = None
    image_suffix: str | None = None
    label_suffix: str | None = None
    only: tuple[str, ...] = ()
    split: str = "train"
    # frames to take from a video: 2s, or 30
    every: str | None = None
    # also take label maps that lie among unlabelled images
    label_maps: bool = False

    def folders(self) -> tuple[Path, Path | None]:
        """Return the folders of images and labels. Raises UsageError without images, FgdaError for
        folders that do not exist.
        """
        if self.images is None:
            raise UsageError("needs --images DIR")
        for option, folder in (("--images", self.images), ("--labels", self.labels)):
            if folder is not None and not folder.is_dir():
                raise UsageError(
                    f"{option} {folder}:"
                    f" {'a file, not a folder' if folder.exists() else 'no such folder'}"
                )
        return self.images, self.labels

    def raw(self) -> dict[str, Path]:
        """Return the files and folders that a user named, by their option: what must not be written
        to.
        """
        named = {"images": self.images, "labels": self.labels, "root": self.root}
        return {option: path for option, path in named.items() if path is not None}

    def given(self) -> dict[str, Any]:
        """Return the options that were given, those that are not their defaults."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        defaults = {option.name: option.default for option in fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}

    def chosen(self, files: list[Path], below: Path, suffix: str | None = None) -> list[Path]:
        """Return the files that end in `suffix` and, when --only is given, whose path below a
        folder fits one of its patterns.
        """
        if suffix is not None:
            files = [path for path in files if path.name.endswith(suffix)]
        if not self.only:
            return files
        return [path for path in files if fits_one(path, below, self.only)]


def fits_one(path: Path, below: Path, patterns: Sequence[str]) -> bool:
    """Return whether a path below a folder fits one of the patterns."""
    name = path.relative_to(below).as_posix()
    return any(fnmatch(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class OwnFormat(About):
    """A format that a user's own files have."""

    # the options of `prepare` that it uses
    takes: frozenset[str]
    # Raises UsageError for options that do not fit together
    open_own: Callable[[OwnFiles], tuple[Listing, Reader]]


def locate(root: Path, wanted: Sequence[str], name: str) -> Path:
    """Return the root when all `wanted` folders lie in it. Raises FgdaError that names the level
    that would fit.
    """
    if not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")

    def fits(folder: Path) -> bool:
        return all((folder / part).is_dir() for part in wanted)

    if fits(root):
        return root
    below = [child for child in sorted(root.iterdir()) if child.is_dir()]
    level = next(filter(fits, [root.resolve().parent, *below]), None)
    needs = " and ".join(f"{part}/" for part in wanted)
    if level is None:
        raise FgdaError(f"--root {root} does not look like {name}: it needs {needs}")
    raise FgdaError(
        f"--root {root} does not look like {name} (it needs {needs}), but {level} does: use --root"
        f" {level}"
    )


def pair_by_name(
    listing: Listing,
    images: list[Path],
    labels: list[Path],
    image_root: Path,
    label_root: Path,
    split: str,
    rename: Callable[[str], str] = lambda stem: stem,
    endings: tuple[str | None, str | None] = (None, None),
) -> None:
    """Pair files whose paths below their folders agree but for the suffix; report the ones left
    over.

    `rename` turns an image's path below its folder, without suffix, into its label's; `endings` of
    images and labels are what counts as the suffix, where it is more than the file type's. Of
    several files of one name none is taken: nothing says which of them is meant.
    """
    images_by_stem = _by_stem(images, image_root, endings[0])
    labels_by_stem = _by_stem(labels, label_root, endings[1])
    used = set()
    for stem, claimants in images_by_stem.items():
        wanted = rename(stem)
        candidates = labels_by_stem.get(wanted, [])
        used.add(wanted)
        if len(claimants) > 1 or len(candidates) > 1:
            _refuse_clash(listing, claimants, "images", stem=stem)
            _refuse_clash(listing, candidates, "labels", stem=stem)
        elif not candidates:
            listing.refuse(claimants[0], "image without a label")
        else:
            listing.pairs.append(Pair(stem, split, claimants[0], label=candidates[0]))
    for stem, candidates in labels_by_stem.items():
        if stem not in used:
            for label in candidates:
                listing.refuse(label, "label without an image")


def _by_stem(files: list[Path], root: Path, ending: str | None) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        stem = stem_below(path, root, ending)
        if not stem.rpartition("/")[2]:
            raise UsageError(
                f"the suffix {ending} is the whole name of {path}: nothing is left to pair it by"
            )
        by_stem.setdefault(stem, []).append(path)
    return by_stem


def _refuse_clash(listing: Listing, files: list[Path], what: str, stem: str) -> None:
    """Refuse several files that would become one item, each with the names of all."""
    if len(files) < 2:
        return
    names = " and ".join(path.name for path in files)
    for path in files:
        listing.refuse(
            path,
            f"one of {len(files)} {what} of one name: {names} (keep one, or give a suffix option)",
        )


def unlabelled(
    listing: Listing,
    images: list[Path],
    image_root: Path,
    split: str = "train",
    ending: str | None = None,
) -> None:
    """List images of a target domain; their labels, if there are any, are neither needed nor
    read.
    """
    for stem, claimants in _by_stem(images, image_root, ending).items():
        _refuse_clash(listing, claimants, "images", stem=stem)
        if len(claimants) == 1:
            listing.pairs.append(Pair(stem, split, claimants[0], label=None))


def pair_city(
    listing: Listing,
    folder: Path,
    image_root: Path,
    split: str,
    ending: str,
    label_of: Callable[[str], Path | None],
    without: str = "validation image without a label",
) -> None:
    """Pair the images `*ENDING.*` of a split's folder, named by their path below `image_root`
    without the ending.

    Training images are a target's: their labels are neither needed nor read. Others have the label
    `label_of(name)`, or are refused.
    """
    by_name: dict[str, list[Path]] = {}
    for image in visible_files(folder, f"*{ending}.*"):
        name = stem_below(image, image_root).removesuffix(ending)
        by_name.setdefault(name, []).append(image)
    for name, claimants in by_name.items():
        _refuse_clash(listing, claimants, "images", stem=name)
        if len(claimants) > 1:
            continue
        label = None if split == "train" else label_of(name)
        if split == "train" or label is not None:
            listing.pairs.append(Pair(name, split, claimants[0], label=label))
        else:
            listing.refuse(claimants[0], without)


def city_label(stem: Path, kinds: Sequence[str] = ("labelTrainIds", "labelIds")) -> Path | None:
    """Return the label `STEM_labelTrainIds.png`, else the one with label ids (or the first of other
    `kinds`); None when there is none.
    """
    candidates = (stem.with_name(f"{stem.name}_{kind}.png") for kind in kinds)
    return next((path for path in candidates if path.is_file()), None)


def refuse_train_ids(listing: Listing, title: str) -> None:
    """Refuse a re-packing with train ids, which would lose road, sky and cars if it were read as
    label ids. Raises UsageError.
    """
    named_ids = [path for path in listing.labels() if not path.stem.endswith("TrainIds")]
    seen = sampled_values(named_ids, read_label_values)
    if seen <= {*CITYSCAPES_IDS, 0, IGNORE_INDEX}:
        return
    try:
        decide_label_ids(seen)
    except UsageError as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            f"{first}\n{title} has label ids; for train ids: prepare folder --label-ids train"
        ) from None


def stem_below(path: Path, root: Path, ending: str | None = None) -> str:
    """Return the path below the root without its suffix, `root/a/b.png` -> `a/b`, and without
    `ending`: `root/a/b_rgb.png` -> `a/b`.
    """
    below = path.relative_to(root)
    return written_name(
        below.with_suffix("").as_posix()
        if ending is None
        else below.as_posix().removesuffix(ending)
    )
