"""CARLA: `--images DIR --labels DIR` of equal names; raw ids in the red channel
(`--carla-version`), or its palette's colours.

The ids of the semantic camera were renumbered in 0.9.14.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import UsageError
from ..classes import CITYSCAPES, ClassSet
from ..formats import (
    count_values,
    id_table,
    ids_or_colours,
    map_colours,
    read_label_values,
    sample_of,
)
from ..images import BadFile
from ..mapping import renamed
from .base import Listing, OwnFiles, OwnFormat, Reader
from .folder import pair_folders

IDS = {
    "old": {
        1: 2, 2: 4, 4: 11, 5: 5, 6: 0, 7: 0, 8: 1, 9: 8, 10: 13, 11: 3, 12: 7, 13: 10, 18: 6, 22: 9,
    },
    "new": {
        1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 9: 8, 10: 9, 11: 10, 12: 11, 13: 12, 14: 13,
        15: 14, 16: 15, 17: 16, 18: 17, 19: 18, 24: 0,
    },
}  # fmt: skip
LARGEST = {"old": 22, "new": 28}
# Of both versions: fences and terrain changed their colour, no colour changed its class.
COLOURS = {
    (128, 64, 128): 0, (157, 234, 50): 0, (244, 35, 232): 1, (70, 70, 70): 2, (102, 102, 156): 3,
    (100, 40, 40): 4, (190, 153, 153): 4, (153, 153, 153): 5, (250, 170, 30): 6, (220, 220, 0): 7,
    (107, 142, 35): 8, (145, 170, 100): 9, (152, 251, 152): 9, (70, 130, 180): 10,
    (220, 20, 60): 11, (255, 0, 0): 12, (0, 0, 142): 13, (0, 0, 70): 14, (0, 60, 100): 15,
    (0, 80, 100): 16, (0, 0, 230): 17, (119, 11, 32): 18, (0, 0, 0): 255, (55, 90, 80): 255,
    (81, 0, 81): 255, (150, 100, 100): 255, (230, 150, 140): 255, (180, 165, 180): 255,
    (110, 190, 160): 255, (170, 120, 50): 255, (45, 60, 150): 255,
}  # fmt: skip
# road and sky cover at least this, and twice what they would in the other numbering, before it
# tells anything
MUCH = 0.15


@dataclass(frozen=True)
class Tags:
    """Labels of one numbering; None where all are colours."""

    version: str | None
    classes: ClassSet = CITYSCAPES

    def read_label(self, path: Path) -> np.ndarray:
        """Read a label as train ids `[H,W]`. Raises BadFile."""
        values = read_label_values(path)
        ids = raw_ids(values)
        if ids is None:
            return map_colours(values, COLOURS)
        if self.version is None:
            raise BadFile(
                "raw ids, while the files looked at first have colours: give --carla-version"
            )
        if ids.max(initial=0) > LARGEST[self.version]:
            raise BadFile(
                f"label id {int(ids.max())} is not one of CARLA's ({self.version}: 0 to"
                f" {LARGEST[self.version]})"
            )
        return id_table(IDS[self.version])[ids]

    def facts(self) -> dict[str, Any]:
        return {"layout": "carla", "ids": self.version}

    def mapped(self) -> set[int]:
        return set()


def open_own(files: OwnFiles) -> tuple[Listing, Reader]:
    """Pair the user's files. Raises UsageError when the ids contradict --carla-version, or when it
    is needed.
    """
    listing = Listing()
    pair_folders(listing, files)
    tags = Tags(decide_version(_shares(listing.labels()), files.carla_version, listing.notes))
    return listing, tags if files.mapping is None else renamed(tags, files.mapping, listing)


def raw_ids(values: np.ndarray) -> np.ndarray | None:
    """Return the ids `[H,W]` of a grey label, or of one with ids in the red channel alone; None for
    colours.

    Three equal channels are ids too, as some recorders write them. Raises BadFile for the instance
    camera's pictures, which have the ids in red and numbers of objects in green and blue.
    """
    values = ids_or_colours(values)
    if values.ndim == 2:
        return values
    if not values[..., 1:].any():
        return values[..., 0]
    is_few = values[..., 0].max(initial=0) <= LARGEST["new"]
    if is_few and any(colour not in COLOURS for colour in count_values(values)):
        raise BadFile(
            "looks like CARLA's instance camera (ids in red, objects in green and blue): use the"
            " semantic camera"
        )
    return None


def _shares(labels: list[Path]) -> dict[int, float]:
    """The share of pixels of each raw id, over a sample of the files."""
    counts: Counter[int] = Counter()
    for path in sample_of(labels):
        try:
            ids = raw_ids(read_label_values(path))
        except BadFile:
            # refused later, by name
            continue
        if ids is not None:
            counts.update(dict(enumerate(np.bincount(ids.ravel()).tolist())))
    total = max(counts.total(), 1)
    return {value: count / total for value, count in counts.items() if count}


def decide_version(shares: dict[int, float], wanted: str | None, notes: list[str]) -> str | None:
    """Decide the numbering, `old` (to 0.9.13) or `new`, as asked for; a doubt is noted.

    Only an id that the older numbering does not have is proof: up to 0.9.9 the sky was 0, and an
    alley has neither road nor sky. Raises UsageError when nothing was asked for, or against proof.
    """
    if not shares:
        return wanted
    likely, clear, reason = likely_version(shares)
    if max(shares) > LARGEST["old"] and wanted == "old":
        raise UsageError(
            f"--carla-version old: {reason}\nuse --carla-version new, or prepare folder with a"
            " --mapping"
        )
    if wanted is None:
        hint = (
            f"\n{reason}: this points to {likely}, but it is no proof; look at some labels after"
            if clear
            else ""
        )
        hint = f"\n{reason}, so they are {likely}" if max(shares) > LARGEST["old"] else hint
        raise UsageError(
            f"CARLA renumbered its ids in 0.9.14: say --carla-version old (to 0.9.13) or new{hint}"
        )
    if clear and wanted != likely:
        notes.append(
            f"{reason}, which is more usual of --carla-version {likely}: look at some labels before"
            " you train"
        )
    notes.append(f"labels are CARLA's ids {'to 0.9.13' if wanted == 'old' else 'from 0.9.14 on'}")
    return wanted


def likely_version(shares: dict[int, float]) -> tuple[str, bool, str]:
    """Return the numbering that fits the shares of the raw ids better, whether clearly so, and
    why.
    """
    if max(shares) > LARGEST["old"]:
        return "new", True, f"id {max(shares)} does not exist before 0.9.14"
    road_and_sky = {
        version: sum(shares.get(k, 0) for k, v in IDS[version].items() if v in (0, 10))
        for version in IDS
    }
    likely = max(road_and_sky, key=road_and_sky.__getitem__)
    clear = road_and_sky[likely] >= max(MUCH, 2 * min(road_and_sky.values()))
    parts = ", ".join(
        f"{100 * share:.0f} % read as {version}" for version, share in road_and_sky.items()
    )
    return likely, clear, f"road and sky cover {parts}"


FORMAT = OwnFormat(
    title="CARLA",
    needs="--images DIR --labels DIR (equal names, or suffixes), --carla-version old|new"
    " [--mapping]",
    licence="https://carla.org",
    labels="semantic tags (red channel) or palette colours to train ids; road lines are road",
    takes=frozenset(
        {
            "images",
            "labels",
            "mapping",
            "carla_version",
            "image_suffix",
            "label_suffix",
            "only",
            "split",
        }
    ),
    open_own=open_own,
)
