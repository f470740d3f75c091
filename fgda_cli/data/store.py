"""A prepared data set: a folder with a manifest, images at training resolution and train id
labels.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ValidationError, model_validator

from ..runtime.errors import FgdaError
from .classes import ClassSet

# 1: labels lay half a pixel off their image
FORMAT = "fgda-dataset"
VERSION = 2


def _inside(path: str) -> str:
    if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] in ("..", "."):
        raise ValueError(f"{path!r} is outside its folder")
    return path


def _positive(size: tuple[int, int]) -> tuple[int, int]:
    if min(size) < 1:
        raise ValueError(f"an image of {size[0]}x{size[1]}")
    return size


Inside = Annotated[str, AfterValidator(_inside)]


class Entry(BaseModel):
    """One image of a manifest."""

    name: Inside
    image: Inside
    label: Inside | None = None
    counts: tuple[int, ...] | None = None
    size: Annotated[tuple[int, int], AfterValidator(_positive)]
    # the raw image's path
    raw: str | None = None
    raw_hash: str | None = None  # of its pixels
    # hash of the prepared image and label
    hash: str | None = None


class Made(BaseModel):
    """What a split was made from; `fgda prepare` writes more."""

    reader: str
    raw: dict[str, str]
    choice: dict[str, Any] = {}
    options: dict[str, Any] = {}
    mapping: str = ""
    folder: Inside
    pixels: str


class Manifest(BaseModel):
    """Schema of a manifest; `fgda prepare` writes more."""

    format: Literal["fgda-dataset"]
    version: Literal[2]
    dataset: str
    size: tuple[int, int] | None = None
    resample: Literal["area", "bicubic"] = "area"
    classes: ClassSet
    splits: dict[str, list[Entry]]
    made: dict[str, Made] = {}

    @model_validator(mode="after")
    def counts_fit(self):
        for entry in (entry for split in self.splits.values() for entry in split):
            if entry.counts is not None and len(entry.counts) != len(self.classes):
                raise ValueError(
                    f"{entry.name!r} has {len(entry.counts)} class counts, there are"
                    f" {len(self.classes)} classes"
                )
        return self


@dataclass(frozen=True)
class Item:
    """One image: paths relative to `folder`, `counts` label pixels a class, `size` its own width
    and height before any cache.
    """

    name: str
    image: str
    label: str | None
    counts: tuple[int, ...] | None
    size: tuple[int, int]
    folder: Path
    raw_hash: str | None = None
    hash: str | None = None

    def facts(self) -> tuple:
        """Return what tells this image from others: its name, sizes and counts, and a hash of its
        pixels and labels.
        """
        return (self.name, self.size, self.counts, self.hash)


class PreparedDataset:
    """Read access to `DIR/manifest.json` and the files it lists."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        # the folder outside which no file is read
        self.inside = self.folder.resolve()
        self.manifest = read_manifest(self.folder)
        self.name: str = self.manifest["dataset"]
        self.classes = ClassSet.from_json(self.manifest["classes"])
        self.size: tuple[int, int] | None = (
            tuple(self.manifest["size"]) if self.manifest.get("size") else None
        )
        self.resample: str = self.manifest.get("resample", "area")

    def splits(self) -> list[str]:
        return sorted(self.manifest["splits"])

    def items(self, split: str, labelled: bool = False) -> list[Item]:
        """Return items of a split; `labelled` demands labels. Raises FgdaError for a missing or
        empty split.
        """
        raw = self.manifest["splits"].get(split)
        if not raw:
            known = ", ".join(self.splits()) or "none"
            raise FgdaError(
                f"data set {self.folder} has no images in split '{split}' (splits: {known})"
            )
        items = [item_of(entry, self.folder) for entry in raw]
        if labelled and any(item.label is None for item in items):
            raise FgdaError(f"split '{split}' of {self.folder} has no labels")
        return items

    def pixels(self, split: str) -> str:
        """Return a hash of a split's images and labels, the same for every copy of it."""
        return pixels_hash(self.manifest["splits"].get(split, []))

    def made_from(self, split: str) -> dict[str, Any]:
        """Return what a split was made from: reader, raw folders, options; empty where an earlier
        version prepared it.
        """
        return self.manifest.get("made", {}).get(split, {})

    def shares(self, items: list[Item]) -> None:
        """Return how often each item is drawn: None, all alike (see JoinedDataset)."""
        return None

    def image(self, item: Item) -> np.ndarray:
        """Read an image, RGB uint8 `[H,W,3]`."""
        import cv2

        pixels = self._read(item.image, colour=True)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)

    def label(self, item: Item) -> np.ndarray:
        """Read a label as train ids, uint8 `[H,W]`."""
        return self._read(item.label, colour=False)

    def _read(self, relative: str, colour: bool) -> np.ndarray:
        import cv2

        path = self.folder / relative
        real = path.resolve()
        if not real.is_relative_to(self.inside):
            raise FgdaError(f"{path} leads to {real}, outside its folder")
        try:
            raw = np.fromfile(path, np.uint8)
        except OSError as error:
            raise FgdaError(
                f"cannot read {path}: {error.strerror}; run fgda prepare again"
            ) from error
        pixels = (
            cv2.imdecode(raw, cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED)
            if raw.size
            else None
        )
        if pixels is None:
            raise FgdaError(f"{path} is damaged: delete it and run fgda prepare again")
        return pixels


def item_of(entry: dict[str, Any], folder: Path) -> Item:
    """Return an entry of a manifest as an item."""
    counts = tuple(entry["counts"]) if entry.get("counts") else None
    return Item(
        entry["name"],
        entry["image"],
        entry.get("label"),
        counts=counts,
        size=tuple(entry["size"]),
        folder=folder,
        raw_hash=entry.get("raw_hash"),
        hash=entry.get("hash"),
    )


def pixels_hash(entries: list[dict[str, Any]]) -> str:
    """Return a hash of a split's images and labels from its entries in a manifest, whatever folder
    they lie in.
    """
    facts = sorted(repr(item_of(entry, Path()).facts()) for entry in entries)
    return hashlib.sha256("\n".join(facts).encode(errors="surrogateescape")).hexdigest()[:12]


class JoinedDataset:
    """Several prepared data sets as one domain of the same classes. Reads like a
    PreparedDataset.
    """

    def __init__(self, parts: list[PreparedDataset], weights: tuple[float, ...] | None = None):
        self.parts = parts
        self.weights = weights
        self.by_folder = {part.folder: part for part in parts}
        self.name = "+".join(part.name for part in parts)
        self.classes = parts[0].classes
        self.folder = parts[0].folder
        caches = [part.size for part in parts if part.size is not None]
        # the coarsest cache, for the warning of enlarged images
        self.size = min(caches, key=lambda size: size[0] * size[1]) if caches else None
        self.resample = parts[0].resample
        for part in parts[1:]:
            if part.resample != self.resample:
                raise FgdaError(
                    f"{self.name}: prepared with --resample {self.resample} and {part.resample}; "
                    "prepare the data sets of one domain alike"
                )
            if part.classes.names != self.classes.names:
                raise FgdaError(
                    f"data sets of one domain need the same classes: {self.name} has"
                    f" {', '.join(self.classes.names)}\n{part.name} has"
                    f" {', '.join(part.classes.names)}"
                )

    def splits(self) -> list[str]:
        return sorted({split for part in self.parts for split in part.splits()})

    def pixels(self, split: str) -> str:
        return "+".join(part.pixels(split) for part in self.parts)

    def items(self, split: str, labelled: bool = False) -> list[Item]:
        return [item for part in self.parts for item in part.items(split, labelled)]

    def shares(self, items: list[Item]) -> np.ndarray | None:
        """Return how often each item is drawn, 1 in sum; a part's weight is shared by its items."""
        if self.weights is None:
            return None
        counts = Counter(item.folder for item in items)
        by_folder: dict[Path, float] = {}
        for part, weight in zip(self.parts, self.weights, strict=True):
            by_folder[part.folder] = by_folder.get(part.folder, 0.0) + weight
        shares = np.array([by_folder[item.folder] / counts[item.folder] for item in items])
        return shares / shares.sum()

    def image(self, item: Item) -> np.ndarray:
        return self.by_folder[item.folder].image(item)

    def label(self, item: Item) -> np.ndarray:
        return self.by_folder[item.folder].label(item)


class PartOf:
    """Some images of a data set, in its training split. Reads like a PreparedDataset."""

    def __init__(self, whole: PreparedDataset | JoinedDataset, chosen: list[Item]):
        self.whole = whole
        self.chosen = chosen
        self.name = whole.name
        self.classes = whole.classes
        self.resample = whole.resample
        self.size = whole.size
        self.image = whole.image
        self.label = whole.label
        self.shares = whole.shares
        self.pixels = whole.pixels

    def items(self, split: str, labelled: bool = False) -> list[Item]:
        return self.chosen if split == "train" else self.whole.items(split, labelled)


AnyDataset = PreparedDataset | JoinedDataset | PartOf


def fingerprint(items: list[Item]) -> str:
    """Return a hash that changes when an image or label of these items is prepared again: of names,
    sizes and times of files.
    """
    digest = hashlib.sha256()
    for item in items:
        for path in (item.image, item.label):
            status = (item.folder / path).stat() if path is not None else None
            facts = (item.name, path, *((status.st_size, status.st_mtime_ns) if status else ()))
            digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


def contents_hash(domains: list[tuple[AnyDataset | None, list[Item]]]) -> str:
    """Return a hash of what was prepared for training, from the manifests alone: classes, cached
    sizes, and each image's name and pixels. A copy on another disk has the same.
    """
    digest = hashlib.sha256()
    for dataset, items in domains:
        if dataset is not None:
            digest.update(repr((dataset.classes.names, dataset.size, dataset.resample)).encode())
        for item in items:
            digest.update(repr(item.facts()).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def rows_of(dataset: AnyDataset, split: str) -> list[tuple[float, float] | None]:
    """Return the rows that a split keeps of each frame (`prepare --rows`), in percent of the
    height, None for whole frames; several where the parts of a domain keep different ones.
    """
    parts = dataset.parts if isinstance(dataset, JoinedDataset) else [dataset]
    found = (
        tuple(part.made_from(split).get("options", {}).get("rows") or ()) or None
        for part in parts
        if split in part.splits()
    )
    return list(dict.fromkeys(found))


def typical_size(items: list[Item]) -> tuple[int, int]:
    """Return the width and height that most of the images have, before any cache."""
    return Counter(item.size for item in items).most_common(1)[0][0]


def read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FgdaError(
            f"no prepared data set in {folder}: run `fgda prepare` first (or give --data-root)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FgdaError(
            f"cannot read {path}: {str(error).splitlines()[0]}; run fgda prepare again"
        ) from error
    if (
        isinstance(manifest, dict)
        and manifest.get("format") == FORMAT
        and manifest.get("version") == 1
    ):
        raise FgdaError(
            f"{folder} was prepared by an earlier fgda, whose labels lie half a pixel off their"
            " images: run fgda prepare again"
        )
    try:
        Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise FgdaError(
            f"{path}: {key}{': ' if key else ''}{first['msg']}; run fgda prepare again"
        ) from error
    return manifest


def is_dataset(folder: Path) -> bool:
    """Return whether a folder is a prepared data set."""
    try:
        with open(folder / "manifest.json", encoding="utf-8") as handle:
            return f'"{FORMAT}"' in handle.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def prepared_below(root: Path) -> list[PreparedDataset]:
    """Return the prepared data sets of a data root that can be read, by name."""
    found = []
    for folder in sorted(path.parent for path in root.glob("*/manifest.json")):
        try:
            found.append(PreparedDataset(folder))
        except FgdaError:
            continue
    return found


def data_root(option: Path | None) -> Path:
    """Return the folder of prepared data sets: the option, else $FGDA_DATA, else ./data."""
    return Path(option or os.environ.get("FGDA_DATA") or "data")


def open_dataset(root: Path, name: str) -> PreparedDataset:
    """Return the prepared data set `name` below root. Raises FgdaError that says which command
    makes it.
    """
    folder = root / name
    if not (folder / "manifest.json").is_file():
        raise FgdaError(f"data set '{name}' is not prepared in {root}{_remedy(root, name)}")
    return PreparedDataset(folder)


def _remedy(root: Path, name: str) -> str:
    """Return what to do about a data set that is not there."""
    from .layouts import layout_names

    parts = [part for part in re.split(r"[+,]", name) if (root / part / "manifest.json").is_file()]
    if len(parts) > 1:
        return f": name one data set at a time ({' and '.join(parts)} are there)"
    if name in layout_names() or name.startswith("playground"):
        return (
            f": run `fgda prepare {'playground' if name.startswith('playground') else name} --root"
            f" RAW --data-root {root}`"
        )
    there = sorted(path.parent.name for path in root.glob("*/manifest.json"))
    near = difflib.get_close_matches(name, there, 1, cutoff=0.5)
    if near:
        return f": did you mean '{near[0]}'? (there are: {', '.join(there)})"
    own = (
        f": run `fgda prepare folder --name {name} --images … --data-root {root}`"
        if name.lower() not in ("none", "null")
        else ""
    )
    return f"{own} (there are: {', '.join(there)})" if there else own


def open_domain(
    root: Path, names: str | tuple[str, ...], weights: tuple[float, ...] | None = None
) -> PreparedDataset | JoinedDataset:
    """Return one prepared data set, or several as one domain, from which images come by the sets'
    weights.
    """
    if isinstance(names, str):
        return open_dataset(root, names)
    return JoinedDataset([open_dataset(root, name) for name in names], weights)


def open_anywhere(root: Path, names: str | list[str]) -> PreparedDataset | JoinedDataset:
    """Open a domain as `open_domain` does; one name may be the folder of a prepared data set
    itself.
    """
    if isinstance(names, str) and (Path(names) / "manifest.json").is_file():
        return PreparedDataset(Path(names))
    return open_domain(root, names if isinstance(names, str) else tuple(names))
