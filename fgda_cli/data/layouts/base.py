"""What a raw data set's layout says: which files belong together and how a label is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...runtime.errors import FgdaError, UsageError
from ..classes import CITYSCAPES, CITYSCAPES_IDS, IGNORE_INDEX, ClassSet
from ..formats import decide_label_ids, read_label_values, sampled_values
from ..images import visible_files


@dataclass(frozen=True)
class Pair:
    """One raw image; `name` is unique in its split and becomes the prepared file's name."""

    name: str
    split: str
    image: Path
    label: Path | None


@dataclass
class Listing:
    """Everything a layout found: pairs, files it refuses with the reason, and what it decided that a person should know."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    classes: ClassSet = CITYSCAPES
    notes: list[str] = field(default_factory=list)

    def refuse(self, path: Path, reason: str) -> None:
        self.problems.append({"file": str(path), "reason": reason})


ReadLabel = Callable[[Path], np.ndarray]


def locate(root: Path, wanted: Sequence[str], name: str) -> Path:
    """The root when all `wanted` folders lie in it. Raises FgdaError, saying which other level would fit."""
    if not root.is_dir():
        raise FgdaError(f"--root {root}: no such folder")

    def fits(folder: Path) -> bool:
        return all((folder / part).is_dir() for part in wanted)

    if fits(root):
        return root
    below = [child for child in sorted(root.iterdir()) if child.is_dir()]
    level = next(filter(fits, [root.resolve().parent, *below]), None)
    needs = " and ".join(f"{part}/" for part in wanted)
    if level is None:
        raise FgdaError(f"--root {root} does not look like {name}: it needs {needs}")
    raise FgdaError(f"--root {root} does not look like {name} (it needs {needs}), but {level} does: use --root {level}")


def pair_by_name(
    listing: Listing,
    images: list[Path],
    labels: list[Path],
    image_root: Path,
    label_root: Path,
    split: str,
    rename: Callable[[str], str] = lambda stem: stem,
) -> None:
    """Pair files whose paths below their folders agree but for the suffix; report the ones left over.

    `rename` turns an image's path below its folder, without suffix, into its label's.
    """
    by_stem = {stem_below(label, label_root): label for label in labels}
    for image in images:
        stem = stem_below(image, image_root)
        label = by_stem.pop(rename(stem), None)
        if label is None:
            listing.refuse(image, "image without a label")
        else:
            listing.pairs.append(Pair(stem, split, image, label))
    for label in by_stem.values():
        listing.refuse(label, "label without an image")


def unlabelled(listing: Listing, images: list[Path], image_root: Path, split: str = "train") -> None:
    """Images of a target: their labels, if there are any, are neither needed nor read."""
    listing.pairs += [Pair(stem_below(image, image_root), split, image, None) for image in images]


def pair_city(
    listing: Listing,
    folder: Path,
    image_root: Path,
    split: str,
    ending: str,
    label_of: Callable[[str], Path | None],
    without: str = "validation image without a label",
) -> None:
    """The images `*ENDING.*` of a split's folder, named by their path below `image_root` less the ending.

    Training images are a target's: their labels are neither needed nor read. Others have the label `label_of(name)`, or are
    refused.
    """
    for image in visible_files(folder, f"*{ending}.*"):
        name = stem_below(image, image_root).removesuffix(ending)
        label = None if split == "train" else label_of(name)
        if split == "train" or label is not None:
            listing.pairs.append(Pair(name, split, image, label))
        else:
            listing.refuse(image, without)


def city_label(stem: Path) -> Path | None:
    """`STEM_labelTrainIds.png`, or with label ids; None where there is neither."""
    candidates = (stem.with_name(f"{stem.name}_{kind}.png") for kind in ("labelTrainIds", "labelIds"))
    return next((path for path in candidates if path.is_file()), None)


def refuse_train_ids(listing: Listing, title: str) -> None:
    """Re-packings with train ids exist; read as label ids they would lose road, sky and cars. Raises UsageError."""
    seen = sampled_values([pair.label for pair in listing.pairs if pair.label is not None], read_label_values)
    if seen <= {*CITYSCAPES_IDS, 0, IGNORE_INDEX}:
        return
    try:
        decide_label_ids(seen)
    except UsageError as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{first}\n{title} has label ids; for train ids: prepare folder --label-ids train") from None


def stem_below(path: Path, root: Path) -> str:
    """`root/a/b.png` -> `a/b`."""
    return path.relative_to(root).with_suffix("").as_posix()
