"""Class names, palettes and id tables of the supported data sets (the only place that knows
them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtime.errors import FgdaError

if TYPE_CHECKING:
    import numpy as np

IGNORE_INDEX = 255

NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip

PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
    (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
    (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

# Cityscapes label ids in train id order; GTA5 uses the same ids.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Cityscapes' colours of the label ids without a train id, so that RGB re-packings of GTA5 stay
# readable.
VOID_COLOURS = {
    (0, 0, 0): 0, (111, 74, 0): 5, (81, 0, 81): 6, (250, 170, 160): 9, (230, 150, 140): 10,
    (180, 165, 180): 14, (150, 100, 100): 15, (150, 120, 90): 16, (0, 0, 90): 29, (0, 0, 110): 30,
}  # fmt: skip

SYNTHIA_IDS = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13,
    18: 14, 19: 15, 20: 16, 12: 17, 11: 18,
}  # fmt: skip

# Terrain, truck and train are neither trained nor evaluated with SYNTHIA; its 13-class mean also
# drops wall, fence, pole.
NOT_IN_SYNTHIA16 = ("terrain", "truck", "train")
NOT_IN_SYNTHIA13 = ("wall", "fence", "pole", *NOT_IN_SYNTHIA16)


@dataclass(frozen=True)
class ClassSet:
    """Names and RGB colours in train id order; travels in manifests and checkpoints."""

    names: tuple[str, ...] = NAMES
    palette: tuple[tuple[int, int, int], ...] = PALETTE

    def __post_init__(self):
        if not self.names or len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names, {len(self.palette)} colours")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"a class is named twice: {', '.join(self.names)}")
        if len(self.names) > IGNORE_INDEX:
            raise ValueError(f"{len(self.names)} classes, {IGNORE_INDEX} at most")
        if not all(0 <= part <= 255 for colour in self.palette for part in colour):
            raise ValueError("a colour is three numbers from 0 to 255")

    def __len__(self) -> int:
        return len(self.names)

    def label_ids(self) -> tuple[int, ...] | None:
        """Return the Cityscapes label ids of the classes, in order; None when a class is not
        Cityscapes'.
        """
        if not set(self.names) <= set(NAMES):
            return None
        return tuple(CITYSCAPES_IDS[NAMES.index(name)] for name in self.names)

    def to_json(self) -> dict:
        return {"names": list(self.names), "palette": [list(colour) for colour in self.palette]}

    @classmethod
    def from_json(cls, value: dict) -> ClassSet:
        """Read a class set. Raises ValueError (pydantic's) unless it has names and one colour for
        each.
        """
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(value)


CITYSCAPES = ClassSet()


def named_classes(
    names: Sequence[str], colours: dict[str, tuple[int, int, int]] | None = None
) -> ClassSet:
    """Return a class set of these names. Cityscapes' names keep their colours; others get the given
    colour, or a new one.
    """
    known = dict(zip(NAMES, PALETTE, strict=True)) | (colours or {})
    used = {known[name] for name in names if name in known}
    fresh = (
        colour for colour in distinct_palette(4 * len(names) + len(PALETTE)) if colour not in used
    )
    return ClassSet(
        tuple(names), tuple(known[name] if name in known else next(fresh) for name in names)
    )


def union_of(sets: Sequence[ClassSet]) -> ClassSet:
    """Return every name of several class sets once, in the colour of its first occurrence."""
    colours: dict[str, tuple[int, int, int]] = {}
    for classes in sets:
        for name, colour in zip(classes.names, classes.palette, strict=True):
            colours.setdefault(name, colour)
    return ClassSet(tuple(colours), tuple(colours.values()))


def distinct_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return colours for a user's own classes: evenly spread hues in three lightnesses."""
    import colorsys

    colours = []
    for index in range(count):
        red, green, blue = colorsys.hls_to_rgb(
            (index * 0.618034) % 1.0, (0.45, 0.6, 0.3)[index % 3], 0.65
        )
        colours.append((int(red * 255), int(green * 255), int(blue * 255)))
    return tuple(colours)


@dataclass(frozen=True)
class ClassMatch:
    """Correspondence between two class sets, by name."""

    ours: ClassSet
    theirs: ClassSet

    @property
    def shared(self) -> tuple[str, ...]:
        """Return the names that both class sets have, in the order of ours."""
        return tuple(name for name in self.ours.names if name in self.theirs.names)

    @property
    def is_identity(self) -> bool:
        return self.ours.names == self.theirs.names

    def table(self) -> np.ndarray:
        """Return a lookup `[256]` uint8 from their train ids to ours; classes that we lack become
        255.
        """
        import numpy as np

        table = np.full(256, IGNORE_INDEX, np.uint8)
        for their_id, name in enumerate(self.theirs.names):
            if name in self.ours.names:
                table[their_id] = self.ours.names.index(name)
        return table

    def describe(self) -> str | None:
        """Say how two class sets differ, for the user; None when they match one to one."""
        if self.is_identity:
            return None
        if set(self.ours.names) == set(self.theirs.names):
            return "the classes stand in another order: matched by name"
        missing = [name for name in self.theirs.names if name not in self.ours.names]
        extra = [name for name in self.ours.names if name not in self.theirs.names]
        text = f"evaluated on the {len(self.shared)} shared classes"
        text += f"; truth of {', '.join(missing)} is ignored" if missing else ""
        return text + (f"; predictions of {', '.join(extra)} count as wrong" if extra else "")


def mean_without(left_out: Sequence[str], shared: Sequence[str]) -> tuple[str, ...] | None:
    """Return Cityscapes' classes without `left_out`, over which the literature takes its mean. None
    unless `shared` holds all of them and only Cityscapes' classes.
    """
    wanted = tuple(name for name in NAMES if name not in left_out)
    return wanted if set(wanted) <= set(shared) <= set(NAMES) else None


def match_classes(ours: ClassSet, theirs: ClassSet, what_ours: str, what_theirs: str) -> ClassMatch:
    """Compare by name: the same names in any order, or one set within the other. Raises FgdaError
    with both lists else.
    """
    first = set(ours.names)
    second = set(theirs.names)
    if first <= second or second <= first:
        return ClassMatch(ours, theirs)
    raise FgdaError(
        f"the classes differ: {what_ours} has {', '.join(ours.names)}\n{what_theirs} has"
        f" {', '.join(theirs.names)}"
    )
