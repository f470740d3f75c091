"""Finding, reading and writing single images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..runtime.errors import FgdaError
from ..runtime.files import write_bytes

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
MAX_PIXELS = 180_000_000  # of one image, unless more are asked for: a small file can claim any size
HIDDEN_NAMES = {"thumbs.db", "__macosx"}
Item = TypeVar("Item")


class BadFile(Exception):
    """A file that cannot be used; the text says why."""


def is_hidden(path: Path, below: Path | None = None) -> bool:
    """Whether the file, or a folder between it and `below`, is one that people do not see (`.ipynb_checkpoints`, `__MACOSX`)."""
    parts = path.relative_to(below).parts if below is not None else (path.name,)
    return any(part.startswith(".") or part.lower() in HIDDEN_NAMES for part in parts)


def visible_files(folder: Path, pattern: str = "*", recursive: bool = True) -> list[Path]:
    """Every file below a folder, sorted, without hidden ones and without what lies in hidden folders."""
    found = folder.rglob(pattern) if recursive else folder.glob(pattern)
    return sorted(path for path in found if not is_hidden(path, folder) and path.is_file())


def image_files(folder: Path, recursive: bool = True, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Visible image files below a folder in reading order; other `suffixes` may be asked for."""
    return [path for path in visible_files(folder, recursive=recursive) if path.suffix.lower() in suffixes]


def open_image(path: Path, max_pixels: int | None = None):
    """A Pillow image, its header read. Raises BadFile when it claims more pixels than `max_pixels`."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # its own guard warns in its own words; the size is checked here, before anything is decoded
    image = Image.open(path)
    pixels, most = image.width * image.height, max_pixels or MAX_PIXELS
    if pixels > most:
        image.close()
        raise BadFile(f"{pixels / 1e6:.0f} megapixels, more than the {most / 1e6:.0f} that are read (--max-pixels)")
    return image


def read_rgb(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """Any image file as RGB uint8 `[H,W,3]`, EXIF rotation applied, alpha dropped. Raises BadFile."""
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
    values = values.astype(np.float32)
    scale = 255.0 / 65535.0 if values.max(initial=0) > 255 else 1.0
    return np.repeat((values * scale).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def unreadable(path: Path, error: Exception) -> str:
    """Why an image library failed on a file, in one phrase."""
    if path.exists() and path.stat().st_size == 0:
        return "the file is empty (zero bytes)"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "no image that can be read" if "cannot identify" in text else f"damaged image ({text})"


def write_image(path: Path, image: np.ndarray, compression: int = 3) -> None:
    """Grey `[H,W]` or RGB `[H,W,3]` uint8 as PNG or, where the path ends so, as BMP (uncompressed)."""
    import cv2

    pixels = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_PNG_COMPRESSION, compression] if path.suffix == ".png" else []
    done, buffer = cv2.imencode(path.suffix, pixels, how)
    if not done:
        raise FgdaError(f"cannot encode {path}")
    write_bytes(path, buffer.tobytes())


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread, the first and the last among them."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items)))]
