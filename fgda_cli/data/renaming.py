"""A mapping by class name on top of labels that are read already: classes renamed, merged or
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .classes import IGNORE_INDEX, ClassSet
from .mapping import load_mapping
from .names import match_names

if TYPE_CHECKING:
    import numpy as np

    from .layouts.base import Listing, Reader


@dataclass(frozen=True)
class Renamed:
    """The labels of `reader`, whose train id i becomes `table[i]`."""

    reader: Reader
    classes: ClassSet
    table: tuple[int, ...]

    def read_label(self, path: Path) -> np.ndarray:
        """Return train ids `[H,W]`. Raises BadFile."""
        import numpy as np

        return np.asarray(self.table, np.uint8)[self.reader.read_label(path)]

    def facts(self) -> dict[str, Any]:
        return self.reader.facts() | {
            "classes": self.classes.to_json(),
            "renamed": list(self.table),
        }

    def mapped(self) -> set[int]:
        return set(self.table) - {IGNORE_INDEX}


def renamed(reader: Reader, mapping: Path, listing: Listing) -> Renamed:
    """Return the reader with the classes of a mapping of names (`terrain: vegetation`), which
    become the listing's too.

    A class that the mapping does not mention keeps its name where the mapping's `classes` have it
    and is ignored elsewhere; the ignored ones are noted. Raises UsageError for keys that are no
    names, and when no class is left.
    """
    meaning = load_mapping(mapping, by_name=True)
    ids = match_names(
        reader.classes.names, meaning.classes, meaning.names, notes=listing.notes, rest=meaning.rest
    )
    table = [ids[name] for name in reader.classes.names]
    listing.classes = meaning.classes
    return Renamed(reader, meaning.classes, (*table, *[IGNORE_INDEX] * (256 - len(table))))
