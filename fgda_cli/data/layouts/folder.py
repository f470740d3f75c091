"""A user's own images: `--images DIR [--labels DIR] [--mapping map.yaml] [--label-ids train|label]`, paired by relative stem."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.errors import UsageError
from ..images import image_files
from ..mapping import decided, load_mapping
from .base import Listing, OwnFiles, Reader, pair_by_name, stem_below, unlabelled

TITLE = "own images"
NEEDS = "--images DIR (or videos) [--labels DIR] of equal names, --mapping or --label-ids"
LICENCE = "yours"
LABELS = "by --mapping: ids, [r,g,b] colours or names to classes; else Cityscapes' ids"
TAKES = frozenset({"images", "root", "labels", "mapping", "label_ids", "image_suffix", "label_suffix", "only", "split", "every"})


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises UsageError for options that do not fit the files, FgdaError for folders that do not exist."""
    meaning = load_mapping(files.mapping, files.label_ids)
    listing = Listing(classes=meaning.classes)
    pair_folders(listing, files)
    return listing, decided(meaning, listing)


def pair_folders(listing: Listing, files: OwnFiles) -> None:
    """Pair the images of a folder with the labels of another, if one is given. Raises UsageError when nothing pairs, with a
    suggestion.
    """
    folder, labels = files.folders()
    images = files.chosen(image_files(folder), folder, files.image_suffix)
    if labels is None:
        unlabelled(listing, images, folder, files.split, files.image_suffix)
        return
    label_files = files.chosen(image_files(labels), labels, files.label_suffix)
    endings = files.image_suffix, files.label_suffix
    pair_by_name(listing, images, label_files, folder, labels, files.split, endings=endings)
    if not listing.pairs and images and label_files:
        suggested = suggest(images, label_files, folder, labels)
        how = (
            "try --image-suffix {} --label-suffix {}".format(*suggested)
            if suggested
            else "images and labels need the same names, or --image-suffix and --label-suffix"
        )
        raise UsageError(f"no image has a label of its name, e.g. {images[0].name} and {label_files[0].name}\n{how}")


def suggest(images: list[Path], labels: list[Path], image_root: Path, label_root: Path) -> tuple[str, str] | None:
    """Return the endings of images and of labels without which most names agree; None when there are none."""
    best: tuple[int, int, tuple[str, str]] | None = None
    for one in _endings(images):
        stems = {stem_below(path, image_root, one) for path in images if path.name.endswith(one)}
        for two in _endings(labels):
            others = {stem_below(path, label_root, two) for path in labels if path.name.endswith(two)}
            shared = len(stems & others)
            candidate = (shared, -len(one) - len(two), (one, two))
            if 2 * shared >= min(len(stems), len(others)) and shared and (best is None or candidate > best):
                best = candidate
    return best[2] if best else None


def _endings(files: Iterable[Path]) -> Iterator[str]:
    """Return possible endings of the names: the file type, and what follows each `_`, `-` or `.` of the first names."""
    seen: set[str] = set()
    for path in list(files)[:20]:
        for match in re.finditer(r"[_.\-]", path.name):
            ending = path.name[match.start() :]
            if match.start() and len(ending) < 60 and ending not in seen:
                seen.add(ending)
                yield ending
