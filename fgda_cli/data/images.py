"""Finding, reading and writing single images."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..runtime.errors import FgdaError
from ..runtime.files import write_bytes

if TYPE_CHECKING:
    from PIL import Image as PillowImage

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".avif", ".heic", ".heif"}
)
# Of files that hold pictures or labels which are not read: they are counted, so that none is missed
# in silence.
UNREAD_SUFFIXES = frozenset(
    {
        ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".exr", ".hdr",
        ".npy", ".npz", ".jxl", ".jp2", ".j2k", ".tga", ".dds", ".psd", ".pgm", ".pbm", ".mat",
    }
)  # fmt: skip
# The only formats whose parsers see a file, whatever its name: Pillow knows some that run other
# programs (EPS).
PILLOW_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF", "HEIF")
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg",
        ".wmv", ".flv", ".3gp", ".h264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".ogv",
    }
)  # fmt: skip
# most pixels of one image, unless more are asked for: a small file can claim any size
MAX_PIXELS = 180_000_000
HIDDEN_NAMES = {"thumbs.db", "__macosx"}
Item = TypeVar("Item")
# around its limit of pixels, which belongs to the whole process
_PILLOW = threading.Lock()


class BadFile(Exception):
    """A file that cannot be used; the text says why."""


def is_hidden(path: Path, below: Path | None = None) -> bool:
    """Return whether the file, or a folder between it and `below`, is hidden from people
    (`.ipynb_checkpoints`, `__MACOSX`).
    """
    parts = path.relative_to(below).parts if below is not None else (path.name,)
    return any(part.startswith(".") or part.lower() in HIDDEN_NAMES for part in parts)


def visible_files(folder: Path, pattern: str = "*", recursive: bool = True) -> list[Path]:
    """Return every file below a folder, sorted, without hidden files and without files in hidden
    folders.

    A pattern with a slash is that of the end of its path, else of its name. Links to folders are
    followed, but no folder is read twice: one that is reached without a link is read there.
    """
    files: list[Path] = []
    seen: set[str] = set()
    waiting = [folder]
    links = []
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
                path.relative_to(folder).match(pattern)
                if "/" in pattern
                else fnmatch(entry.name, pattern)
            ):
                files.append(path)
    return sorted(files, key=natural_order)


def natural_order(path: Path | str) -> tuple:
    """Return a sort key by which `frame2` comes before `frame10`, folder by folder."""
    return tuple(
        tuple(map(_order_of, filter(None, re.split(r"([0-9]+)", name))))
        for name in Path(path).parts
    )


def _order_of(part: str) -> tuple[int, int, str]:
    return (0, int(part), part) if "0" <= part[0] <= "9" else (1, 0, part)


def written_name(name: str) -> str:
    """Return a name that can be written anywhere: bytes that are not UTF-8 become %XX, as in
    addresses.
    """
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter
        for letter in name
    )


def image_files(
    folder: Path, recursive: bool = True, suffixes: frozenset[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """Return the visible image files below a folder in reading order; other `suffixes` may be asked
    for.
    """
    return [
        path
        for path in visible_files(folder, recursive=recursive)
        if path.suffix.lower() in suffixes
    ]


def folders_of(files: Iterable[Path], below: Path, most: int = 4) -> str:
    """Return how many of the files lie in which folder below `below`, in words, the fullest
    first.
    """
    counts = Counter(path.parent.relative_to(below).as_posix() for path in files)
    shown = [
        f"{count} in {below if folder == '.' else folder}"
        for folder, count in counts.most_common(most)
    ]
    return ", ".join(shown) + (
        f" and {len(counts) - most} more folders" if len(counts) > most else ""
    )


def suffixes_of(files: Iterable[Path]) -> str:
    """Return how many of the files have which type, in words: `8 .heic, 2 .dng`."""
    counts = Counter(path.suffix.lower() for path in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


def open_image(path: Path, max_pixels: int | None = None):
    """Open a Pillow image and read its header. Raises BadFile when it claims more pixels than
    `max_pixels`.
    """
    from PIL import Image

    _load_plugins()
    has_library = path.suffix.lower() not in (".heic", ".heif") or _reads_heif()
    # Pillow's guard would warn in its own words; the size is checked here, before decoding
    with _PILLOW:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(
                path, formats=[name for name in PILLOW_FORMATS if name in Image.OPEN]
            )
        except Image.UnidentifiedImageError:
            if has_library:
                raise
            raise BadFile(
                "HEIC pictures need the package pillow-heif: pip install 'fgda[heif]'"
            ) from None
        finally:
            Image.MAX_IMAGE_PIXELS = before
    pixels = image.width * image.height
    most = max_pixels or MAX_PIXELS
    if pixels > most:
        image.close()
        raise BadFile(
            f"{pixels / 1e6:.0f} megapixels, more than the {most / 1e6:.0f} that are read"
            " (--max-pixels)"
        )
    return image


@cache
def _load_plugins() -> None:
    """Register the formats that are read, and no other."""
    for name in ("Png", "Jpeg", "Mpo", "Bmp", "Tiff", "WebP", "Ppm", "Avif"):
        # an older Pillow has no AVIF
        with suppress(ImportError):
            import_module(f"PIL.{name}ImagePlugin")


def _reads_heif() -> bool:
    """Let Pillow read HEIC where the library for it is installed; return whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


# EXIF's tag: how a picture is turned or mirrored for showing, 1 to 8
ORIENTATION = 0x0112
# TIFF's tag of a page's kind; its bits for a smaller copy and for a mask of another page
NEW_SUBFILE_TYPE = 254
COPY_OR_MASK = 1 | 4


def read_rgb(path: Path, max_pixels: int | None = None) -> np.ndarray:
    """Read an image file as RGB uint8 `[H,W,3]`, with EXIF rotation applied and alpha dropped.
    Raises BadFile.
    """
    return read_picture(path, max_pixels)[0]


def read_picture(path: Path, max_pixels: int | None = None) -> tuple[np.ndarray, int]:
    """Return `read_rgb` of a file, and the EXIF orientation that was applied (1: none). Raises
    BadFile.
    """
    try:
        with open_image(path, max_pixels) as image:
            refuse_several(image)
            orientation = int(image.getexif().get(ORIENTATION, 1) or 1)
            if image.format in ("PNG", "TIFF", "PPM") and is_deep_colour(path, image):
                return (
                    turned(_from_deep(deep_pixels(path, "save it with 8")), orientation),
                    orientation,
                )
            return rgb_of(image), orientation
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile("no such file") from None
    # Pillow raises OSError, SyntaxError, ValueError, struct.error for damaged files
    except Exception as error:
        raise BadFile(unreadable(path, error)) from error


def refuse_several(image: PillowImage.Image) -> None:
    """Raise BadFile for a file of several pictures: an animation, a TIFF of many pages.

    A phone's second picture (MPO, HEIF) and a TIFF's smaller copies of its page are no pictures of
    their own.
    """
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format in ("MPO", "HEIF"):
        return
    if image.format == "TIFF":
        kinds = []
        for page in range(frames):
            image.seek(page)
            kinds.append(image.tag_v2.get(NEW_SUBFILE_TYPE, 0))
        image.seek(0)
        frames = sum(not kind & COPY_OR_MASK for kind in kinds)
    if frames > 1:
        raise BadFile(f"holds {frames} pictures, of which one would be read: save each alone")


def rgb_of(image: PillowImage.Image) -> np.ndarray:
    """Return a Pillow image as RGB uint8 `[H,W,3]`, upright and without alpha. Raises BadFile."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I;16", "I", "F")):
        return _from_deep(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image or label `[H,W,...]` as EXIF's orientation (1 to 8) says that it is to be
    shown.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    upside_down = orientation in (3, 4, 7, 8)
    mirrored = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def is_deep_colour(path: Path, image: PillowImage.Image) -> bool:
    """Return whether an opened image has colours of 16 bits a channel, which Pillow cuts to 8
    without a word.
    """
    with open(path, "rb") as handle:
        head = handle.read(32)
    if image.format == "PNG":
        return len(head) >= 26 and head[24] == 16 and head[25] in (2, 4, 6)
    if image.format == "TIFF":
        return image.mode in ("RGB", "RGBA") and max(image.tag_v2.get(258, (8,))) > 8
    return image.format == "PPM" and head[:2] == b"P6" and int(head.split()[3]) > 255


def deep_pixels(path: Path, remedy: str) -> np.ndarray:
    """Return RGB or grey uint16 `[H,W,3]` or `[H,W]` of a file of 16 bits a channel, as it is
    stored.

    Raises BadFile, with the remedy, where they cannot be read exactly.
    """
    import cv2

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if pixels is None or pixels.dtype != np.uint16:
        raise BadFile(f"16 bit a channel, in a form that cannot be read exactly: {remedy}")
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return pixels if pixels.ndim == 2 else pixels[..., 0]
    return np.ascontiguousarray(pixels[..., 2::-1])


def _from_deep(values: np.ndarray) -> np.ndarray:
    """Grey `[H,W]` or RGB `[H,W,3]` of more than 8 bits, or of floats, as RGB uint8.

    Floats are 0 to 1, or 0 to 255 where a value is larger. Integers are of 16 bits where a value
    proves it. Raises BadFile where it is not known which value is white: guessed file by file, the
    frames of one camera would differ in brightness.
    """
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise BadFile("holds negative or infinite values, so it is not a picture")
    most = float(values.max(initial=0))
    is_float = values.dtype.kind == "f"
    if is_float and most > 255:
        raise BadFile(
            f"floats up to {most:g}: pictures are read with values from 0 to 1, or to 255"
        )
    if not is_float and most < 2**14:
        raise BadFile(
            f"16 bits a value, with values up to {most:.0f}: white may be 255, 1023, 4095, 16383 or"
            " 65535; save the whole folder with 8 bits, or scaled to 16"
        )
    scale = 255.0 / 65535.0
    if is_float:
        scale = 255.0 if most <= 1 else 1.0
    scaled = (values.astype(np.float64) * scale).clip(0, 255)
    eight_bits = (np.round(scaled) if is_float else scaled).astype(np.uint8)
    return eight_bits if eight_bits.ndim == 3 else np.repeat(eight_bits[..., None], 3, axis=2)


LABEL_ENDINGS = ("_labelids", "_labeltrainids", "_instanceids")
LABEL_FOLDERS = ("gtfine", "gtcoarse")
# Endings and folders of label maps that may be coloured, and of some photographs: there the pixels
# decide.
COLOURED = (
    "_color",
    "_ids",
    "_l",
    "_seg",
    "_mask",
    "_label",
    "_labels",
    "_gt",
    "_annot",
    "_semantic",
)
COLOURED_FOLDERS = (
    "seg", "semantic", "segmentation", "segmentationclass", "masks", "mask", "labels", "label",
    "gt", "annotations", "annot", "trainannot", "valannot", "testannot",
)  # fmt: skip
# most values of a label map: a photograph has more
FEW_VALUES = 48


def is_label_map(path: Path) -> bool:
    """Return whether an image file looks like a label map: by its name, or as a palette or grey
    image of few values.
    """
    stem = path.stem.lower()
    if stem.endswith(LABEL_ENDINGS) or any(
        part.lower() in LABEL_FOLDERS for part in path.parent.parts
    ):
        return True
    if path.suffix.lower() not in (".png", ".bmp", ".tif", ".tiff", ".ppm"):
        return False
    may_be_coloured = stem.endswith(COLOURED) or any(
        part.lower() in COLOURED_FOLDERS for part in path.parent.parts[-3:]
    )
    modes = ("1", "L", "P", "I", "I;16", *(("RGB", "RGBA") if may_be_coloured else ()))
    try:
        with open_image(path) as image:
            if image.mode not in modes:
                return False
            values = np.asarray(image)
    except Exception:  # noqa: BLE001 - what cannot be read is refused by name where it is read
        return False
    return 1 < _distinct_values(values) <= FEW_VALUES


# files of a folder and ending that are opened before all of them are
PROBED = 3


def label_maps_among(files: Sequence[Path]) -> list[Path]:
    """Return the files that are label maps. Where a few of a folder's files of one ending are none,
    the rest is not opened.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        ending = re.sub(r"[0-9]+", "#", path.name)[-12:]
        groups.setdefault((path.parent, ending), []).append(path)
    maps: list[Path] = []
    for group in groups.values():
        if any(map(is_label_map, evenly_spaced(group, PROBED))):
            maps += [path for path in group if is_label_map(path)]
    return maps


def _distinct_values(values: np.ndarray) -> int:
    """Count the values of a grey image `[H,W]`, or the colours of one of uint8 `[H,W,C]`."""
    if values.ndim == 3:
        weights = 256 ** np.arange(values.shape[2], dtype=np.int64)
        values = values.astype(np.int64) @ weights
    return len(np.unique(values))


def unreadable(path: Path, error: Exception) -> str:
    """Say in one phrase why an image library failed on a file."""
    if path.exists() and path.stat().st_size == 0:
        return "the file is empty (zero bytes)"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not a readable image" if "cannot identify" in text else f"damaged image ({text})"


def write_image(path: Path, image: np.ndarray, compression: int = 3, sync: bool = True) -> None:
    """Write grey `[H,W]` or RGB `[H,W,3]` uint8 as PNG, or as uncompressed BMP when the path ends
    so.

    `sync` waits until the disk has it (runtime/files.py).
    """
    import cv2

    pixels = (
        image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    )
    how = [cv2.IMWRITE_PNG_COMPRESSION, compression] if path.suffix == ".png" else []
    done, buffer = cv2.imencode(path.suffix, pixels, how)
    if not done:
        raise FgdaError(f"cannot encode {path}")
    write_bytes(path, buffer.tobytes(), sync)


def apart(ranked: Sequence[Item], count: int, of: Iterable[Item]) -> list[Item]:
    """Return the first `count` names (or numbers) of a ranking that lie apart in `of`, those of all
    frames: neighbours in a drive show one scene. Where too few lie apart, the next of the ranking
    follow.
    """
    place = {name: number for number, name in enumerate(sorted(of))}
    reach = len(place) // (4 * max(count, 1))
    chosen: list[Item] = []
    for name in ranked:
        if all(abs(place[name] - place[other]) > reach for other in chosen):
            chosen.append(name)
        if len(chosen) == count:
            return chosen
    return [*chosen, *(name for name in ranked if name not in chosen)][:count]


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of the items, evenly spread, including the first and the last."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items)))]


# difference hashes of 64 bits that differ in this many or fewer show one view
SAME_BITS = 5


def look_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whether difference hashes `[…,64]` are of one view, bool `[…]`."""
    return (first ^ second).sum(-1) <= SAME_BITS


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Return bool `[64]`: whether each of 8x8 places is brighter than its left neighbour, in a
    thumbnail of 9x8.
    """
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()
