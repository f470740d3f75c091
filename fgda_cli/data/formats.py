"""Label files: exact values whatever the file type, and the kind of ids that they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..runtime.errors import UsageError
from .classes import CITYSCAPES_IDS, IGNORE_INDEX, NAMES
from .images import (
    BadFile,
    deep_pixels,
    evenly_spaced,
    is_deep_colour,
    open_image,
    refuse_several,
    unreadable,
)
from .names import shown

LabelIds = Literal["train", "label"]
MAX_ID = 65535  # of 16-bit labels
# label files looked at before their ids are read one way or the other
SAMPLE = 40
# and before they are taken for sharp ones
FEW = 8
# share of pixels at edges with ids between those of both sides, from which on a label is none
BETWEEN = 0.03


def read_label_values(path: Path) -> np.ndarray:
    """Return a label file's values as they are stored: palette indices or grey values `[H,W]`, or
    colours `[H,W,3]`, uint8 or uint16.

    Nothing is scaled, rounded or cut to 8 bit. Raises BadFile, also for what cannot hold labels
    exactly.
    """
    try:
        head = _head(path)
        if head.startswith(b"\xff\xd8") or path.suffix.lower() in (".jpg", ".jpeg"):
            raise BadFile(
                "a JPEG cannot hold labels (compression changes the ids): export them as PNG"
            )
        if head[:4] == b"RIFF" and head[12:16] == b"VP8 ":
            raise BadFile(
                "a lossy WebP cannot hold labels (compression changes the ids): export them as PNG"
            )
        with open_image(path) as image:
            if image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
                raise BadFile(
                    "a TIFF with lossy compression cannot hold labels: export them as PNG"
                )
            refuse_several(image)
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                raise BadFile(f"a {image.mode} image cannot hold labels: export them as PNG")
            if image.format in ("PNG", "TIFF", "PPM") and is_deep_colour(path, image):
                return deep_pixels(path, "export it as a grey PNG")
            values = np.asarray(image.convert("RGB") if image.mode in ("RGBX", "RGBa") else image)
            return _plain(values, image.mode, _grey_step(head))
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(unreadable(path, error)) from error


def read_label_colours(path: Path) -> np.ndarray:
    """Return the colours `[H,W,3]` of a label file, through its palette if it has one; a grey value
    v is the colour (v, v, v).

    Raises BadFile.
    """
    values = read_label_values(path)
    if values.ndim == 3:
        return values
    with open_image(path) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    if palette is None:
        return np.repeat(values[..., None], 3, axis=2)
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette) // 3] = np.asarray(palette, np.uint8).reshape(-1, 3)
    return table[values]


def _head(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(32)


def _is_png(head: bytes) -> bool:
    return head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 26


def _grey_step(head: bytes) -> int:
    """Return the factor by which Pillow spreads the values of a grey PNG of 2 or 4 bit."""
    return {2: 85, 4: 17}.get(head[24], 1) if _is_png(head) and head[25] == 0 else 1


def _plain(values: np.ndarray, mode: str, step: int) -> np.ndarray:
    # grey or palette + alpha, RGB + alpha
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., 0] if values.shape[2] == 2 else values[..., :3]
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.round(values)):
            raise BadFile("holds fractions, so it is not a label")
        values = values.astype(np.int64)
    if values.dtype.kind == "i" or values.dtype.itemsize > 2:
        low = int(values.min(initial=0))
        high = int(values.max(initial=0))
        if low < 0 or high > MAX_ID:
            raise BadFile(f"label value {low if low < 0 else high} is outside 0 to {MAX_ID}")
        values = values.astype(np.uint16)
    return values // step if step > 1 and mode == "L" else values


def grey_values(values: np.ndarray) -> np.ndarray:
    """Return the values `[H,W]` of a label whose channels agree. Raises BadFile for colours."""
    if values.ndim == 2:
        return values
    if not (values[..., :1] == values).all():
        raise BadFile(
            "a label with colours, where ids are expected (a --mapping with [r,g,b] keys reads"
            " colours)"
        )
    return values[..., 0]


def ids_or_colours(values: np.ndarray) -> np.ndarray:
    """Return ids `[H,W]` where a label has one channel or three equal ones, else its colours
    `[H,W,3]`.
    """
    is_grey = values.ndim == 2 or (values[..., :1] == values).all()
    return grey_values(values) if is_grey else values


def count_values(values: np.ndarray) -> dict[int | tuple[int, int, int], int]:
    """Return how many pixels have each id of a label `[H,W]`, or each colour of one `[H,W,3]`, of 8
    or 16 bits.
    """
    if values.ndim == 2:
        present, counts = np.unique(values, return_counts=True)
        return dict(zip(present.tolist(), counts.tolist(), strict=True))
    present, counts = np.unique(_packed(values), return_counts=True)
    return dict(zip(map(_colour_of, present.tolist()), counts.tolist(), strict=True))


def _packed(rgb: np.ndarray) -> np.ndarray:
    """Return colours `[H,W,3]` as one number each: to sort rows of three takes twenty times as
    long.
    """
    return (rgb[..., 0].astype(np.int64) << 32) | (rgb[..., 1].astype(np.int64) << 16) | rgb[..., 2]


def _colour_of(packed: int) -> tuple[int, int, int]:
    return (packed >> 32, packed >> 16 & 65535, packed & 65535)


def map_colours(
    rgb: np.ndarray,
    table: dict[tuple[int, int, int], int],
    remedy: str = "",
    rest: int | None = None,
) -> np.ndarray:
    """Return RGB labels `[H,W,3]` as ids `[H,W]`; colours outside the table become `rest`, where it
    is given.

    Raises BadFile for colours outside the table, the commonest ones first, with the remedy, in
    which `{}` stands for a colour.
    """
    values, inverse, counts = np.unique(_packed(rgb), return_inverse=True, return_counts=True)
    lookup = {(r << 32) | (g << 16) | b: value for (r, g, b), value in table.items()}
    unknown = [int(value) for value in values if int(value) not in lookup]
    if unknown and rest is None:
        pixels = {value: int(counts[np.searchsorted(values, value)]) for value in unknown}
        colours = [
            _colour_of(value) for value in sorted(unknown, key=pixels.__getitem__, reverse=True)
        ]
        how = f" ({remedy.replace('{}', str(list(colours[0])))})" if remedy else ""
        raise BadFile(
            f"{len(unknown)} unknown label colours on {sum(pixels.values())} pixels: RGB"
            f" {shown(colours, 5)}{how}"
        )
    ids = np.array([lookup.get(int(value), rest) for value in values], np.uint8)
    return ids[inverse].reshape(rgb.shape[:2])


def id_table(ids: dict[int, int]) -> np.ndarray:
    """Return a lookup `[65536]` uint8 from raw ids to train ids; all other ids become 255."""
    table = np.full(MAX_ID + 1, IGNORE_INDEX, np.uint8)
    for raw, train_id in ids.items():
        table[raw] = train_id
    return table


CITYSCAPES_TABLE = id_table(
    {label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_IDS)}
)


def from_cityscapes_ids(ids: np.ndarray) -> np.ndarray:
    """Convert Cityscapes label ids `[H,W]` to train ids. Raises BadFile for values that are not
    label ids.
    """
    ids = ids.astype(np.int64)
    # licence plate, unlabelled
    ids[(ids == -1) | (ids == 255) | (ids == 34)] = 0
    if ids.min(initial=0) < 0 or ids.max(initial=0) > 33:
        raise BadFile(
            f"label id {ids.max() if ids.max() > 33 else ids.min()} is not one of Cityscapes' (0"
            " to 33)"
        )
    return CITYSCAPES_TABLE[ids]


def from_train_ids(ids: np.ndarray, count: int = len(NAMES)) -> np.ndarray:
    """Return train ids `[H,W]` as they are. Raises BadFile for other values than 0 to count - 1 and
    255.
    """
    bad = ids[(ids >= count) & (ids != IGNORE_INDEX)]
    if bad.size:
        raise BadFile(
            f"train id {int(bad[0])} is not one of the {count} classes' (0 to {count - 1},"
            f" {IGNORE_INDEX})"
        )
    return ids.astype(np.uint8)


def read_city_label(path: Path) -> np.ndarray:
    """Read a label as train ids `[H,W]`; its name says which ids it holds, as Cityscapes' names do:
    `*TrainIds`, else label ids. Raises BadFile.
    """
    label = grey_values(read_label_values(path))
    return (
        from_train_ids(label)
        if path.stem.endswith("_labelTrainIds")
        else from_cityscapes_ids(label)
    )


def sample_of(files: Sequence[Path]) -> list[Path]:
    """Return at most SAMPLE of the files, evenly spread."""
    return evenly_spaced(files, SAMPLE)


def sampled_values(labels: Sequence[Path], read: Callable[[Path], np.ndarray]) -> set[int]:
    """Return the ids that occur in a sample of the files. Colours and unreadable files are skipped
    here and refused later, by name.
    """
    seen: set[int] = set()
    for path in sample_of(labels):
        try:
            seen |= set(np.unique(grey_values(read(path))).tolist())
        except BadFile:
            continue
    return seen


def between_share(ids: np.ndarray) -> float:
    """Return which share of the pixels at edges, along the rows of ids `[H,W]`, have an id between
    those of their left and right neighbour.

    Real label maps have less than 0.02. Interpolation makes ramps of ids, each another class.
    """
    left, middle, right = (ids[:, first : ids.shape[1] - 2 + first] for first in range(3))
    rising = (left < middle) & (middle < right)
    falling = (left > middle) & (middle > right)
    return float((rising | falling).sum() / max(1, (left != right).sum()))


def interpolated(labels: Sequence[Path]) -> tuple[int, int]:
    """Return how many labels of a sample look resized by interpolation, and how many were looked
    at. Colours and unreadable files are refused later, by name.
    """
    found = 0
    looked = 0
    for path in evenly_spaced(labels, FEW):
        try:
            share = between_share(grey_values(read_label_values(path)))
        except BadFile:
            continue
        looked += 1
        found += share > BETWEEN
    return found, looked


class AmbiguousIds(UsageError):
    """Label values that can be two things; `what` says which, without what to do."""

    def __init__(self, what: str):
        super().__init__(
            f"{what}: say which\nwith --label-ids train or --label-ids label (or give --mapping)"
        )
        self.what = what


def decide_label_ids(seen: set[int]) -> LabelIds | None:
    """Decide from the values that occur whether ids without a mapping are Cityscapes train ids or
    label ids.

    Values above 18 occur in label ids alone; when there is none, the files could be either. None
    where nothing was seen. Raises AmbiguousIds.
    """
    named = seen - {IGNORE_INDEX}
    if not named:
        return "label" if seen else None
    if max(named) >= len(NAMES):
        return "label"
    # values that mean something either way
    telling = sorted(named & set(CITYSCAPES_IDS)) or sorted(named)
    as_train = ", ".join(f"{k} {NAMES[k]}" for k in telling[:3])
    as_label = ", ".join(f"{k} {_label_name(k)}" for k in telling[:3])
    raise AmbiguousIds(
        f"label values {min(named)} to {max(named)} can be train ids ({as_train}, …) or Cityscapes"
        f" label ids ({as_label}, …)"
    )


def _label_name(label_id: int) -> str:
    return NAMES[CITYSCAPES_IDS.index(label_id)] if label_id in CITYSCAPES_IDS else "ignored"
