"""The embedded playground: two procedural street domains, written in GTA5's and Cityscapes' own
layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.errors import UsageError
from ...runtime.files import whole_file
from ...runtime.reporter import Reporter
from ...runtime.system import in_processes, median_seconds
from ..classes import CITYSCAPES_IDS, IGNORE_INDEX, PALETTE
from ..images import read_rgb, write_image

# images of each domain's train split, and of the street's val split
TRAIN = 400
VAL = 100
CITY = "procedura"


@dataclass(frozen=True)
class Sheet:
    """One scene to draw and where it goes."""

    look: str
    seed: int
    index: int
    image: Path
    label: Path


def sheets(root: Path, seed: int, train: int = TRAIN, val: int = VAL) -> list[Sheet]:
    """List all scenes of both domains; street's val scenes follow its train scenes in the same
    stream.
    """
    plan = [
        Sheet(
            "game",
            seed,
            i,
            image=root / "game/images" / f"{i + 1:05d}.png",
            label=root / "game/labels" / f"{i + 1:05d}.png",
        )
        for i in range(train)
    ]
    for index in range(train + val):
        split = "train" if index < train else "val"
        name = f"{CITY}_{index:06d}_000019"
        image = root / "street/leftImg8bit" / split / CITY / f"{name}_leftImg8bit.png"
        label = root / "street/gtFine" / split / CITY / f"{name}_gtFine_labelIds.png"
        plan.append(Sheet("street", seed, index, image=image, label=label))
    return plan


def write_sheet(sheet: Sheet) -> None:
    """Draw one scene; game labels are palette PNGs as GTA5's, street labels grey PNGs as
    Cityscapes'.
    """
    image, train_ids = _drawn(sheet)
    table = np.zeros(256, np.uint8)
    table[: len(CITYSCAPES_IDS)] = CITYSCAPES_IDS
    table[IGNORE_INDEX] = 0
    ids = table[train_ids]
    if sheet.look == "game":
        write_palette_png(sheet.label, ids)
    else:
        write_image(sheet.label, ids)
    # last: its presence says that the scene is complete
    write_image(sheet.image, image)


def _drawn(sheet: Sheet) -> tuple[np.ndarray, np.ndarray]:
    """The scene's image and train ids."""
    from .looks import GAME, STREET
    from .scene import draw

    return draw(GAME if sheet.look == "game" else STREET, sheet.seed, sheet.index)


def seconds_a_scene() -> float:
    """Return how long a scene takes to draw here: the median of three."""
    return median_seconds(
        lambda index: _drawn(Sheet("street", seed=0, index=index, image=Path(), label=Path())), 3
    )


def write_palette_png(path: Path, ids: np.ndarray) -> None:
    from PIL import Image

    palette = np.zeros((256, 3), np.uint8)
    palette[list(CITYSCAPES_IDS)] = PALETTE
    picture = Image.fromarray(ids)
    picture.putpalette(palette.ravel().tolist())
    with whole_file(path) as partial:
        picture.save(partial, format="PNG")


def write_raw(
    root: Path, seed: int, reporter: Reporter, workers: int, train: int = TRAIN, val: int = VAL
) -> None:
    """Draw what is not there yet. Raises UsageError where scenes of another seed are there."""
    plan = sheets(root, seed, train, val=val)
    missing = [sheet for sheet in plan if not sheet.image.is_file()]
    _check_seed(root, next((sheet for sheet in plan if sheet.image.is_file()), None))
    if not missing:
        return
    with reporter.progress("drawing scenes", len(missing)) as advance:
        for _ in in_processes(write_sheet, missing, workers, chunk=8):
            advance(1)


def _check_seed(root: Path, sheet: Sheet | None) -> None:
    """Raise UsageError unless a scene that is there is the one that its seed draws."""
    if sheet is None:
        return
    image, _ = _drawn(sheet)
    if not np.array_equal(read_rgb(sheet.image), image):
        raise UsageError(
            f"{root} holds other scenes than those of --seed {sheet.seed}: give another --root, or"
            " delete it"
        )
