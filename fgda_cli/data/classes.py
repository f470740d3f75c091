"""Class names, palettes and id tables of the supported data sets (the only place that knows them)."""

from __future__ import annotations

from dataclasses import dataclass

IGNORE_INDEX = 255

NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip

PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

# Cityscapes label ids in train id order; GTA5 uses the same ids.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Cityscapes' colours of the label ids without a train id, so that RGB re-packings of GTA5 stay readable.
VOID_COLOURS = {
    (0, 0, 0): 0, (111, 74, 0): 5, (81, 0, 81): 6, (250, 170, 160): 9, (230, 150, 140): 10, (180, 165, 180): 14,
    (150, 100, 100): 15, (150, 120, 90): 16, (0, 0, 90): 29, (0, 0, 110): 30,
}  # fmt: skip

SYNTHIA_IDS = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15,
    20: 16, 12: 17, 11: 18,
}  # fmt: skip

# Terrain, truck and train are neither trained nor evaluated with SYNTHIA; its 13-class mean also drops wall, fence, pole.
NOT_IN_SYNTHIA16 = (9, 14, 16)
NOT_IN_SYNTHIA13 = (3, 4, 5, 9, 14, 16)


@dataclass(frozen=True)
class ClassSet:
    """Names and RGB colours in train id order; travels in manifests and checkpoints."""

    names: tuple[str, ...] = NAMES
    palette: tuple[tuple[int, int, int], ...] = PALETTE

    def __post_init__(self):
        if not self.names or len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names, {len(self.palette)} colours")
        if not all(0 <= part <= 255 for colour in self.palette for part in colour):
            raise ValueError("a colour is three numbers from 0 to 255")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_cityscapes(self) -> bool:
        return self.names == NAMES

    def to_json(self) -> dict:
        return {"names": list(self.names), "palette": [list(colour) for colour in self.palette]}

    @classmethod
    def from_json(cls, value: dict) -> ClassSet:
        """Raises ValueError (pydantic's) for anything but names and as many colours."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(value)


CITYSCAPES = ClassSet()


def distinct_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for a class set of the user's own: evenly spread hues in three lightnesses."""
    import colorsys

    colours = []
    for index in range(count):
        red, green, blue = colorsys.hls_to_rgb((index * 0.618034) % 1.0, (0.45, 0.6, 0.3)[index % 3], 0.65)
        colours.append((int(red * 255), int(green * 255), int(blue * 255)))
    return tuple(colours)
