"""A user's own images: `--images DIR [--labels DIR] [--mapping map.yaml]`, paired by relative stem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.errors import FgdaError, UsageError
from ..classes import CITYSCAPES, IGNORE_INDEX, NAMES, ClassSet, distinct_palette
from ..files import BadFile, image_files, map_colours, read_indexed
from .base import MAX_ID, Listing, Pair, from_cityscapes_ids, id_table, pair_by_name


@dataclass(frozen=True)
class Mapping:
    """What raw label values mean: ids, or colours, to train ids."""

    classes: ClassSet = CITYSCAPES
    ids: dict[int, int] | None = None
    colours: dict[tuple[int, int, int], int] | None = None

    def read_label(self, path: Path) -> np.ndarray:
        """Train ids `[H,W]`. Raises BadFile."""
        label = read_indexed(path)
        if label.ndim == 3:
            if self.colours is None:
                grey = (label[..., :1] == label).all()
                if not grey:
                    raise BadFile("a colour label needs --mapping with [r,g,b] keys")
                label = label[..., 0]
            else:
                return map_colours(label, self.colours)
        if self.ids is None:
            return from_cityscapes_ids(label)
        values = np.unique(label)
        unknown = [int(v) for v in values if int(v) not in self.ids and v != IGNORE_INDEX]
        if unknown:
            raise BadFile(f"label id {unknown[0]} is not in the mapping")
        return id_table(self.ids)[label]


def load_mapping(path: Path | None) -> Mapping:
    """`{raw id | [r,g,b] | name: class name}` with an optional `classes:` list. Raises UsageError."""
    if path is None:
        return Mapping()
    import yaml

    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader_class())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--mapping {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"--mapping {path}: write it as `raw id: class name` lines")
    own = tree.pop("classes", None)
    if own is not None and not (isinstance(own, list) and own):
        raise UsageError(f"--mapping {path}: classes is a list of names")
    names = tuple(str(name) for name in own) if own else NAMES
    classes = ClassSet(names, distinct_palette(len(names))) if own else CITYSCAPES
    ids: dict[int, int] = {}
    colours: dict[tuple[int, int, int], int] = {}
    for raw, name in tree.items():
        if not isinstance(name, (str, type(None))) or name not in (*names, "ignore", None):
            raise UsageError(f"--mapping {path}: '{name}' is no class (classes: {', '.join(names)})")
        train_id = names.index(name) if name in names else IGNORE_INDEX
        if isinstance(raw, tuple) and len(raw) == 3 and all(isinstance(part, int) for part in raw):
            colours[raw] = train_id
        elif isinstance(raw, int):
            if 0 <= raw <= MAX_ID:  # a file cannot hold others, such as Cityscapes' -1
                ids[raw] = train_id
        elif raw in NAMES:
            ids[NAMES.index(raw)] = train_id
        else:
            raise UsageError(f"--mapping {path}: key {raw!r} is neither an id, an [r,g,b] colour nor a class name")
    return Mapping(classes, ids or None, colours or None)


def _loader_class():
    """SafeLoader that reads `[r, g, b]` keys as tuples."""
    import yaml

    class Loader(yaml.SafeLoader):
        keys: list = []

        def construct_object(self, node, deep=False):
            value = super().construct_object(node, deep=True)
            return tuple(value) if isinstance(value, list) and node in self.keys else value

        def construct_mapping(self, node, deep=False):
            self.keys = [key for key, _ in node.value if isinstance(key, yaml.SequenceNode)]
            return super().construct_mapping(node, deep=deep)

    return Loader


def find(images: Path, labels: Path | None, split: str, classes: ClassSet) -> Listing:
    """Raises FgdaError for folders that do not exist."""
    for option, folder in (("--images", images), ("--labels", labels)):
        if folder is not None and not folder.is_dir():
            raise FgdaError(f"{option} {folder}: no such folder")
    listing = Listing(classes=classes)
    found = image_files(images)
    if labels is None:
        listing.pairs = [Pair(p.relative_to(images).with_suffix("").as_posix(), split, p, None) for p in found]
    else:
        pair_by_name(listing, found, image_files(labels), images, labels, split)
    return listing
