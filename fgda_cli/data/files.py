"""Reading and writing single files: images of any kind in, whole files or none out."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..runtime.errors import FgdaError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


class BadFile(Exception):
    """A file that cannot be used; the text says why."""


def is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() == "thumbs.db"


def image_files(folder: Path, recursive: bool = True) -> list[Path]:
    """Image files below a folder in natural reading order, without hidden ones."""
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p) and p.is_file())


def read_rgb(path: Path) -> np.ndarray:
    """Any image file as RGB uint8 `[H,W,3]`, EXIF rotation applied, alpha dropped. Raises BadFile."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I;16", "I", "F")):
                return _from_deep_grey(np.asarray(image))
            if image.mode in ("RGBA", "LA", "PA"):
                image = image.convert("RGBA")
            return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    except FileNotFoundError:
        raise BadFile("no such file") from None
    except Image.DecompressionBombError:
        raise BadFile("more pixels than can be read safely") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error for damaged files
        raise BadFile(_reason(path, error)) from error


def _from_deep_grey(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    scale = 255.0 / 65535.0 if values.max(initial=0) > 255 else 1.0
    return np.repeat((values * scale).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def read_indexed(path: Path) -> np.ndarray:
    """A label PNG as it is stored: palette indices or grey values `[H,W]`, or RGB `[H,W,3]` uint8. Raises BadFile."""
    from PIL import Image

    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise BadFile("a JPEG cannot hold labels (compression changes the ids): export them as PNG")
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "L", "I", "I;16", "1"):
                return np.asarray(image)
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise BadFile(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if path.exists() and path.stat().st_size == 0:
        return "the file is empty (zero bytes)"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "no image that can be read" if "cannot identify" in text else f"damaged image ({text})"


def map_colours(rgb: np.ndarray, table: dict[tuple[int, int, int], int]) -> np.ndarray:
    """RGB labels `[H,W,3]` to ids `[H,W]`. Raises BadFile for colours outside the table, with their count."""
    packed = (rgb[..., 0].astype(np.int32) << 16) | (rgb[..., 1].astype(np.int32) << 8) | rgb[..., 2]
    values, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    lookup = {(r << 16) | (g << 8) | b: value for (r, g, b), value in table.items()}
    unknown = [int(value) for value in values if int(value) not in lookup]
    if unknown:
        colour = (unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255)
        pixels = int(counts[np.isin(values, unknown)].sum())
        raise BadFile(f"{len(unknown)} unknown label colours on {pixels} pixels, e.g. RGB {colour}")
    ids = np.array([lookup[int(value)] for value in values], np.uint8)
    return ids[inverse].reshape(rgb.shape[:2])


@contextmanager
def whole_file(path: Path):
    """Yields a temporary path in the same folder; it takes the real name only when the block ends well."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        raise FgdaError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value, indent: int | None = 1) -> None:
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_image(path: Path, image: np.ndarray, compression: int = 3) -> None:
    """Grey `[H,W]` or RGB `[H,W,3]` uint8 as PNG or, where the path ends so, as BMP (uncompressed)."""
    import cv2

    pixels = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    how = [cv2.IMWRITE_PNG_COMPRESSION, compression] if path.suffix == ".png" else []
    done, buffer = cv2.imencode(path.suffix, pixels, how)
    if not done:
        raise FgdaError(f"cannot encode {path}")
    write_bytes(path, buffer.tobytes())
