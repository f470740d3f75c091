"""A user's own images: `--images DIR [--labels DIR] [--mapping map.yaml] [--label-ids
train|label]`, paired by relative stem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.errors import UsageError
from ...runtime.written import without_written
from ..formats import interpolated
from ..images import evenly_spaced, folders_of, image_files, label_maps_among
from ..mapping import decided, load_mapping
from .base import Listing, OwnFiles, OwnFormat, Pair, Reader, pair_by_name, stem_below, unlabelled

# images whose names are compared, for a hint
LOOKED_AT = 300


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises UsageError for options that do not fit the files, FgdaError for
    folders that do not exist.
    """
    meaning = load_mapping(files.mapping, files.label_ids)
    listing = Listing(classes=meaning.classes)
    pair_folders(listing, files)
    found, looked = interpolated(listing.labels())
    if 2 * found > looked:
        listing.notes.append(
            f"labels look resized by interpolation ({found} of {looked}): along edges they hold ids"
            " between those of both sides, which are other classes; resize labels by nearest"
        )
    taken = meaning.taken_by_rest(listing.labels())
    if taken:
        listing.notes.append(f"`rest: {meaning.rest_name}` takes {taken} of the pixels looked at")
    return listing, decided(meaning, listing)


def pair_folders(listing: Listing, files: OwnFiles) -> None:
    """Pair the images of a folder with the labels of another, if one is given.

    Raises UsageError, with a suggestion, when nothing pairs, and when both lie in one folder and no
    suffix tells them apart.
    """
    folder, labels = files.folders()
    if labels is None:
        _list_unlabelled(listing, files, folder)
        return
    found = _not_written(image_files(folder), folder, listing)
    found_labels = image_files(labels)
    if folder.resolve() == labels.resolve():
        _refuse_one_folder(files, found)
    else:
        found = _outside(found, labels, folder)
        found_labels = _outside(found_labels, folder, labels)
    images = files.chosen(found, folder, files.image_suffix)
    label_files = files.chosen(found_labels, labels, files.label_suffix)
    endings = files.image_suffix, files.label_suffix
    pair_by_name(
        listing,
        images,
        label_files,
        image_root=folder,
        label_root=labels,
        split=files.split,
        endings=endings,
    )
    if not files.only:
        refuse_neighbours(listing.pairs, listing.problems)
    if (
        not listing.pairs
        and images
        and label_files
        and not any("of one name" in one["reason"] for one in listing.problems)
    ):
        suggested = suggest(images, label_files, folder, label_root=labels)
        how = "images and labels need the same names, or --image-suffix and --label-suffix"
        if suggested:
            how = "try --image-suffix {} --label-suffix {}".format(*suggested) + _left_out_by(
                suggested[1], label_files
            )
        raise UsageError(
            f"no image has a label of its name, e.g. {images[0].name} and"
            f" {label_files[0].name}\n{how}"
        )


def _left_out_by(ending: str, labels: list[Path]) -> str:
    """What a suggested ending would leave out, in words: with several masks an image, all but those
    of one class.
    """
    others = [path for path in labels if not path.name.endswith(ending)]
    if not others:
        return ""
    return (
        f"\nthat leaves out {len(others)} of {len(labels)} label files, e.g. {others[0].name}: join"
        " masks of one image first"
    )


def refuse_neighbours(pairs: list[Pair], problems: list[dict]) -> None:
    """Raise UsageError where labels are numbered from 1 and images from 0, or the other way: each
    would get its neighbour's.

    Both folders then have as many files, and all pair but the first of one and the last of the
    other.
    """
    lone = {
        reason: [Path(one["file"]) for one in problems if one["reason"] == reason]
        for reason in ("image without a label", "label without an image")
    }
    images, labels = lone.values()
    if len(images) != 1 or len(labels) != 1 or len(pairs) < 2:
        return
    numbers = sorted(number for pair in pairs if (number := _number(pair.image)) is not None)
    image = _number(images[0])
    label = _number(labels[0])
    if len(numbers) < len(pairs) or image is None or label is None:
        return
    if (image == numbers[0] - 1 and label == numbers[-1] + 1) or (
        image == numbers[-1] + 1 and label == numbers[0] - 1
    ):
        raise UsageError(
            f"images are numbered from {min(image, numbers[0])} and labels from"
            f" {min(label, numbers[0])}: each image would get its neighbour's label\nrenumber one"
            " of the folders, or take the files without a partner away if their numbers are right"
        )


def _number(path: Path) -> int | None:
    """The last number in a file's name."""
    found = re.findall(r"[0-9]+", path.stem)
    return int(found[-1]) if found else None


def _list_unlabelled(listing: Listing, files: OwnFiles, folder: Path) -> None:
    """List a folder's photographs. Label maps that lie among them are left out, and that is
    said.
    """
    found = _not_written(image_files(folder), folder, listing)
    images = files.chosen(found, folder, files.image_suffix)
    maps = set() if files.label_maps else set(label_maps_among(images))
    if maps:
        listing.used += maps
        listing.notes.append(
            f"{len(maps)} label maps are left out ({folders_of(maps, folder)}; --label-maps takes"
            " them as images)"
        )
    unlabelled(
        listing,
        [image for image in images if image not in maps],
        folder,
        split=files.split,
        ending=files.image_suffix,
    )


def _not_written(files: list[Path], folder: Path, listing: Listing) -> list[Path]:
    """The files without pictures that fgda drew into the folder, which is said."""
    others, written = without_written(files, folder)
    if written:
        listing.used += written
        listing.notes.append(
            f"{len(written)} files that fgda wrote are left out ({folders_of(written, folder)})"
        )
    return others


def _outside(files: list[Path], other: Path, folder: Path) -> list[Path]:
    """The files that do not lie in the folder of the other kind, where that lies in theirs
    (`seq1/labels` in `seq1`).
    """
    if not other.resolve().is_relative_to(folder.resolve()):
        return files
    return [path for path in files if not path.resolve().is_relative_to(other.resolve())]


def suggested_endings(folder: Path, found: list[Path]) -> tuple[str, str] | None:
    """Return the endings that tell images from label maps which lie in one folder; None when
    nothing does.
    """
    maps = label_maps_among(found)
    pictures = [path for path in found if path not in set(maps)]
    suggested = suggest(pictures, maps, folder, label_root=folder) if maps and pictures else None
    return None if suggested is None or suggested[0] == suggested[1] else suggested


def _refuse_one_folder(files: OwnFiles, found: list[Path]) -> None:
    """Raise UsageError unless suffixes tell images from labels that lie in one folder."""
    image_end = files.image_suffix
    label_end = files.label_suffix
    if (
        image_end
        and label_end
        and not (image_end.endswith(label_end) or label_end.endswith(image_end))
    ):
        return
    suggested = suggested_endings(files.images, found)
    how = (
        "try --image-suffix {} --label-suffix {}".format(*suggested)
        if suggested
        else (
            "give --image-suffix and --label-suffix (endings there:"
            f" {', '.join(list(_endings(found))[:6])})"
        )
    )
    raise UsageError(
        f"images and labels lie in one folder, {files.images}: how do their names differ?\n{how}"
    )


def suggest(
    images: list[Path], labels: list[Path], image_root: Path, label_root: Path
) -> tuple[str, str] | None:
    """Return the endings of images and of labels without which most names agree; None when there
    are none.
    """
    best: tuple[int, int, tuple[str, str]] | None = None
    images = evenly_spaced(images, LOOKED_AT)
    label_stems = {
        two: {stem_below(path, label_root, two) for path in labels if path.name.endswith(two)}
        for two in _endings(labels)
    }
    for one in _endings(images):
        stems = {stem_below(path, image_root, one) for path in images if path.name.endswith(one)}
        for two, others in label_stems.items():
            shared = len(stems & others)
            candidate = (shared, -len(one) - len(two), (one, two))
            if (
                2 * shared >= min(len(stems), len(others))
                and shared
                and (best is None or candidate > best)
            ):
                best = candidate
    return best[2] if best else None


def _endings(files: Iterable[Path]) -> Iterator[str]:
    """Return possible endings of the names: the file type, and what follows each `_`, `-` or `.` of
    the first names.
    """
    seen: set[str] = set()
    for path in list(files)[:20]:
        for match in re.finditer(r"[_.\-]", path.name):
            ending = path.name[match.start() :]
            if match.start() and len(ending) < 60 and ending not in seen:
                seen.add(ending)
                yield ending


FORMAT = OwnFormat(
    title="own images",
    needs="--images DIR (or videos) [--labels DIR] of equal names, --mapping or --label-ids",
    licence="yours",
    labels="by --mapping: ids, [r,g,b] colours or names to classes; else Cityscapes' ids",
    takes=frozenset(
        {
            "images",
            "root",
            "labels",
            "mapping",
            "label_ids",
            "image_suffix",
            "label_suffix",
            "only",
            "split",
            "every",
            "label_maps",
        }
    ),
    open_own=open_own,
)
