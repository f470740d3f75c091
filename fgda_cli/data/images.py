"""Finding, reading and writing single images."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..runtime.errors import FgdaError
from ..runtime.files import write_bytes

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
)
MAX_PIXELS = 180_000_000  # of one image, unless more are asked for: a small file can claim any size
HIDDEN_NAMES = {"thumbs.db", "__macosx"}
Item = TypeVar("Item")
_PILLOW = threading.Lock()  # around its limit of pixels, which belongs to the whole process


class BadFile(Exception):
    """A file that cannot be used; the text says why."""


def is_hidden(path: Path, below: Path | None = None) -> bool:
    """Return whether the file, or a folder between it and `below`, is hidden from people (`.ipynb_checkpoints`, `__MACOSX`)."""
    parts = path.relative_to(below).parts if below is not None else (path.name,)
    return any(part.startswith(".") or part.lower() in HIDDEN_NAMES for part in parts)


def visible_files(folder: Path, pattern: str = "*", recursive: bool = True) -> list[Path]:
    """Return every file below a folder, sorted, without hidden files and without files in hidden folders.

    A pattern with a slash is that of the end of its path, else of its name. Links to folders are followed, but no folder is read
    twice: one that is reached without a link is read there.
    """
    files: list[Path] = []
    seen: set[str] = set()
    waiting, links = [folder], []
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        for entry in sorted(os.scandir(current), key=lambda entry: entry.name):
            path = current / entry.name
            if is_hidden(path):
                continue
            if entry.is_dir() and recursive:
                (links if entry.is_symlink() else waiting).append(path)
            elif entry.is_file() and (
                path.relative_to(folder).match(pattern) if "/" in pattern else fnmatch(entry.name, pattern)
            ):
                files.append(path)
    return sorted(files)


def written_name(name: str) -> str:
    """Return a name that can be written anywhere: bytes that are not UTF-8 become %XX, as in addresses."""
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in name)


def image_files(folder: Path, recursive: bool = True, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the visible image files below a folder in reading order; other `suffixes` may be asked for."""
    return [path for path in visible_files(folder, recursive=recursive) if path.suffix.lower() in suffixes]


def open_image(path: Path, max_pixels: int | None = None):
    """Open a Pillow image and read its header. Raises BadFile when it claims more pixels than `max_pixels`."""
    from PIL import Image

    with _PILLOW:  # its own guard warns in its own words; the size is checked here, before anything is decoded
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    pixels, most = image.width * image.height, max_pixels or MAX_PIXELS
    if pixels > most:
        image.close()
        raise BadFile(f"{pixels / 1e6:.0f} megapixels, more than the {most / 1e6:.0f} that are read (--max-pixels)")
    return image


def read_rgb(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """Read an image file as RGB uint8 `[H,W,3]`, with EXIF rotation applied and alpha dropped. Raises BadFile."""
    from PIL import ImageOps

    try:
        with open_image(path, max_pixels) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I;16", "I", "F")):
                return _from_deep_grey(np.asarray(image))
            if image.mode in ("RGBA", "LA", "PA"):
                image = image.convert("RGBA")
            return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile("no such file") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error for damaged files
        raise BadFile(unreadable(path, error)) from error


def _from_deep_grey(values: np.ndarray) -> np.ndarray:
    """Grey `[H,W]` of more than 8 bits, or of floats, as RGB uint8. Raises BadFile where it is not known which value is white.

    Floats are 0 to 1, or 0 to 255 where a value is larger. Integers up to 255 are 8 bits; those above 4095 have 16.
    """
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise BadFile("holds negative or infinite values, so it is not a picture")
    most, is_float = float(values.max(initial=0)), values.dtype.kind == "f"
    if is_float and most > 255:
        raise BadFile(f"floats up to {most:g}: pictures are read with values from 0 to 1, or to 255")
    if not is_float and 255 < most < 4096:
        raise BadFile(f"16-bit grey with values up to {most:.0f}, so probably of 10 or 12 bits: save it with 8, or scaled to 16")
    scale = 255.0 if is_float and most <= 1 else 1.0 if most <= 255 else 255.0 / 65535.0
    grey = (values.astype(np.float64) * scale).clip(0, 255)
    return np.repeat((np.round(grey) if is_float else grey).astype(np.uint8)[..., None], 3, axis=2)


LABEL_ENDINGS = ("_labelids", "_labeltrainids", "_instanceids")
LABEL_FOLDERS = ("gtfine", "gtcoarse")
COLOURED = ("_color", "_ids")  # endings of label maps, and of some photographs
FEW_VALUES = 48  # of a palette or grey image: a photograph has more


def is_label_map(path: Path) -> bool:
    """Return whether an image file looks like a label map: by its name, or as a palette or grey image of few values."""
    stem = path.stem.lower()
    if stem.endswith(LABEL_ENDINGS) or any(part.lower() in LABEL_FOLDERS for part in path.parent.parts):
        return True
    if path.suffix.lower() not in (".png", ".bmp", ".tif", ".tiff", ".ppm"):
        return False
    modes = ("1", "L", "P", "I", "I;16", *(("RGB", "RGBA") if stem.endswith(COLOURED) else ()))
    try:
        with open_image(path) as image:
            if image.mode not in modes:
                return False
            values = np.asarray(image)
    except Exception:  # noqa: BLE001 - what cannot be read is refused by name where it is read
        return False
    pixels = values.reshape(-1, values.shape[2]) if values.ndim == 3 else values.ravel()
    return 1 < len(np.unique(pixels, axis=0)) <= FEW_VALUES


def unreadable(path: Path, error: Exception) -> str:
    """Say in one phrase why an image library failed on a file."""
    if path.exists() and path.stat().st_size == 0:
        return "the file is empty (zero bytes)"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not a readable image" if "cannot identify" in text else f"damaged image ({text})"


def write_image(path: Path, image: np.ndarray, compression: int = 3) -> None:
    """Write grey `[H,W]` or RGB `[H,W,3]` uint8 as PNG, or as uncompressed BMP when the path ends so."""
    import cv2

    pixels = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_PNG_COMPRESSION, compression] if path.suffix == ".png" else []
    done, buffer = cv2.imencode(path.suffix, pixels, how)
    if not done:
        raise FgdaError(f"cannot encode {path}")
    write_bytes(path, buffer.tobytes())


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of the items, evenly spread, including the first and the last."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items)))]


SAME_BITS = 5  # of 64: difference hashes that differ in so few are of one view


def look_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whether difference hashes `[…,64]` are of one view, bool `[…]`."""
    return (first ^ second).sum(-1) <= SAME_BITS


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Return bool `[64]`: whether each of 8x8 places is brighter than its left neighbour, in a thumbnail of 9x8."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()
