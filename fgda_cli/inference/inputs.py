"""Inputs that a user names: images, folders, globs, videos, streams, standard input; each with the
name of its results.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.images import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    VIDEO_SUFFIXES,
    BadFile,
    evenly_spaced,
    image_files,
    is_hidden,
    label_maps_among,
    natural_order,
    read_rgb,
    suffixes_of,
    written_name,
)
from ..data.video import STDIN, STREAM, Clip, CutShort, frames_of, is_live, without_secrets
from ..runtime.distributed import ProcessGroup, ranks
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..runtime.written import without_written
from .pipeline import CHUNK, ahead, batched, chunks_of, newest, read_ahead, share

READABLE = IMAGE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class InputImage:
    """One image or video; `name` is its path below the folder given, without suffix. A video's
    frame knows its place among those that are taken (`order`, from 0), how many come a second on
    average, and its own time.
    """

    name: str
    path: Path
    # a camera, an address, or "-" for frames on standard input
    stream: str | None = None
    order: int = 0
    rate: float = 0.0
    seconds: float = 0.0

    @property
    def is_video(self) -> bool:
        return self.stream is not None or self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def source(self) -> str:
        """Return the file or stream that the image is read from; an address may hold a password."""
        return self.stream or str(self.path)

    @property
    def shown(self) -> str:
        """Return the file or stream as messages show it, without a password."""
        return without_secrets(self.source)

    @property
    def video(self) -> str:
        """Return the name of the video that a frame belongs to."""
        return self.name.rpartition("/")[0]


def collect(
    inputs: list[str],
    recursive: bool,
    out: Path | None = None,
    label_maps: bool = False,
    reporter: Reporter = Reporter(quiet=True),
) -> list[InputImage]:
    """List the images of files, folders and globs, each once. Raises FgdaError for an input that
    gives none.

    With several inputs, a folder's name stands before those of its images. Left out of folders and
    globs are `out`, where it lies in a folder, and, which is said: what fgda wrote among the
    images, and label maps, unless `label_maps` asks for them.
    """
    streams = [text for text in inputs if text == STDIN or STREAM.match(text)]
    folders = _folder_names([Path(text) for text in inputs if Path(text).is_dir()])
    names: dict[Path, str] = {}
    left_out = _LeftOut()
    for text in inputs:
        if text in streams:
            continue
        path = Path(text)
        if path.is_dir():
            prefix = f"{folders[path]}/" if len(inputs) > 1 else ""
            images, left = _of_folder(path, recursive, out=out, label_maps=label_maps)
            images = {file: prefix + name for file, name in images.items()}
        elif path.is_file():
            images, left = {path: path.stem}, _LeftOut()
        else:
            images, left = _of_pattern(text, label_maps)
        left_out += left
        for image, name in images.items():
            names.setdefault(image, name)
    if left_out.unread:
        reporter.decide(
            f"{len(left_out.unread)} files of types that are not read are left out:"
            f" {suffixes_of(left_out.unread)}"
        )
    for count, example in left_out.in_words():
        reporter.decide(f"{count} are left out, e.g. {example}")
    distinct = _distinct(names)
    for item in distinct:
        if "%" in item.name and written_name(item.path.stem) != item.path.stem:
            reporter.decide(f"a name that is not UTF-8 is written with %XX: {item.name}")
    return [*distinct, *(entry for text in streams for entry in _stream(text))]


@dataclass(frozen=True)
class _LeftOut:
    """Files in folders and patterns that are not predicted."""

    written: tuple[Path, ...] = ()
    maps: tuple[Path, ...] = ()
    # of types that are not read
    unread: tuple[Path, ...] = ()

    def __add__(self, other: _LeftOut) -> _LeftOut:
        return _LeftOut(
            self.written + other.written, self.maps + other.maps, self.unread + other.unread
        )

    def in_words(self) -> list[tuple[str, str]]:
        """How many of what, and an example with what takes it."""
        kinds = (
            (self.written, "files that fgda wrote", "a file that is named itself is taken"),
            (self.maps, "label maps", "--label-maps takes them as images"),
        )
        return [
            (f"{len(files)} {what}", f"{files[0]} ({remedy})")
            for files, what, remedy in kinds
            if files
        ]

    def alone(self) -> str:
        """The end of a message about an input that holds nothing else."""
        return "".join(f" but {count}, e.g. {example}" for count, example in self.in_words())


def _of_folder(
    folder: Path, recursive: bool, out: Path | None, label_maps: bool
) -> tuple[dict[Path, str], _LeftOut]:
    """The images and videos of a folder, with their paths in it, and what is left out."""
    found = _outside(image_files(folder, recursive, READABLE), folder, out)
    files, left_out = _photographs(found, folder, label_maps)
    if not files:
        deeper = (
            " (there are some in its folders: use --recursive)"
            if _more_below(folder, recursive, out)
            else ""
        )
        raise FgdaError(f"{folder} holds no image or video{deeper}{left_out.alone()}")
    unread = _LeftOut(unread=tuple(image_files(folder, recursive, UNREAD_SUFFIXES)))
    names = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
    return names, left_out + unread


def _of_pattern(text: str, label_maps: bool) -> tuple[dict[Path, str], _LeftOut]:
    """The images and videos that a pattern matches, with their names, and what is left out."""
    matches = sorted(map(Path, glob.glob(text, recursive=True)), key=natural_order)
    found = [
        path
        for path in matches
        if path.suffix.lower() in READABLE and not is_hidden(path) and path.is_file()
    ]
    files, left_out = _photographs(found, None, label_maps)
    if files:
        return {file: file.stem for file in files}, left_out
    if any(match.is_dir() for match in matches):
        raise FgdaError(f"{text}: matches folders alone: name them, or end the pattern in /*")
    if left_out.in_words():
        raise UsageError(f"{text}: matches no image{left_out.alone()}")
    raise UsageError(f"{text}: no such image, folder or pattern")


def _photographs(
    files: list[Path], below: Path | None, label_maps: bool
) -> tuple[list[Path], _LeftOut]:
    """The images and videos that a person put there, and what is left out: what fgda wrote, and
    label maps unless they are asked for.
    """
    files, written = without_written(files, below)
    stills = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    maps = set() if label_maps else set(label_maps_among(stills))
    kept = [file for file in files if file not in maps and _is_what_it_says(file)]
    return kept, _LeftOut(tuple(written), tuple(sorted(maps)))


def _is_what_it_says(file: Path) -> bool:
    """Return whether a .ts file is a video (a transport stream begins with its sync byte) and no
    program text.
    """
    if file.suffix.lower() != ".ts":
        return True
    with open(file, "rb") as handle:
        return handle.read(1) == b"G"


def _stream(text: str) -> list[InputImage]:
    """A camera, an address, frames on standard input, or the images that it lists, a path a
    line.
    """
    if text != STDIN:
        plain = without_secrets(text)
        return [
            InputImage(re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-"), Path(plain), stream=text)
        ]
    if ranks()[1] > 1:
        raise UsageError(
            "standard input cannot be shared by several processes: start one, or name files"
        )
    head = sys.stdin.buffer.peek(512)[:512]
    if not head:
        raise FgdaError("standard input is empty: images or their paths are expected")
    ends_in_null = _is_null_list(head)
    if not (ends_in_null or _is_text(head)):
        return [InputImage("stdin", Path(STDIN), stream=STDIN)]
    content = sys.stdin.buffer.read().removeprefix(b"\xef\xbb\xbf")
    lines = content.split(b"\0") if ends_in_null else content.splitlines()
    listed = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    return _distinct({Path(line): Path(line).stem for line in listed})


def _is_null_list(head: bytes) -> bool:
    """Return whether the first bytes are a list of paths that each end in a null byte, as `find
    -print0` writes it.
    """
    first, null, _ = head.partition(b"\0")
    return bool(first and null) and _is_text(first) and os.path.exists(os.fsdecode(first))


def _is_text(head: bytes) -> bool:
    """Return whether the first bytes are text: images and videos begin with bytes that no text
    has.
    """
    return not any(byte < 32 and byte not in b"\t\r\n" for byte in head) and not head.startswith(
        (b"\xff\xd8", b"\x89PNG")
    )


def _folder_names(folders: list[Path]) -> dict[Path, str]:
    """The last part of each folder's path, or as many parts as tell them apart."""
    parts_of = {folder: folder.resolve().parts for folder in folders}
    endings = Counter(
        parts[-depth:] for parts in parts_of.values() for depth in range(1, len(parts) + 1)
    )
    names: dict[Path, str] = {}
    for folder, parts in parts_of.items():
        depths = range(1, len(parts) + 1)
        depth = next((depth for depth in depths if endings[parts[-depth:]] == 1), len(parts))
        names[folder] = "/".join(part for part in parts[-depth:] if part != "/")
    return names


def _outside(files: list[Path], folder: Path, out: Path | None) -> list[Path]:
    """The files that do not lie in `out`, where that is a folder in this one."""
    if out is None:
        return files
    inside = out.resolve()
    here = folder.resolve()
    if inside == here or not inside.is_relative_to(here):
        return files
    return [file for file in files if not file.resolve().is_relative_to(inside)]


def _more_below(path: Path, recursive: bool, out: Path | None) -> bool:
    if recursive:
        return False
    found, _ = without_written(_outside(image_files(path, True, READABLE), path, out), path)
    return any(file.parent != path for file in found)


def _distinct(files: dict[Path, str]) -> list[InputImage]:
    """An input for each file, under names that no other has.

    `a.png` and `a.jpg` keep their suffix; files of one name in several folders get as much of their
    path as tells them apart; a video's name gives way to a folder of that name, in which its frames
    would lie.
    """
    unique: dict[Path, tuple[Path, str]] = {}
    for path, name in files.items():
        unique.setdefault(Path(os.path.abspath(path)), (path, name))
    names = {path: written_name(name) for path, name in unique.values()}
    for depth in range(2, 1 + max((len(path.absolute().parts) for path in names), default=1)):
        clashes = [group for group in _by_name(names) if len(group) > 1]
        if not clashes:
            break
        for group in clashes:
            with_suffix = {path: f"{names[path]}{path.suffix}" for path in group}
            if len(set(with_suffix.values())) == len(group):
                names |= with_suffix
            else:
                longer = (path.absolute().with_suffix("").parts[-depth:] for path in group)
                names |= {
                    path: written_name("/".join(part for part in parts if part != "/"))
                    for path, parts in zip(group, longer, strict=True)
                }
    folders = {
        parent.as_posix() for name in names.values() for parent in PurePosixPath(name).parents
    }
    for path, name in names.items():
        if path.suffix.lower() in VIDEO_SUFFIXES and name in folders:
            names[path] = f"{name}{path.suffix}"
    return [InputImage(name, path) for path, name in names.items()]


def _by_name(names: dict[Path, str]) -> list[list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path, name in names.items():
        groups.setdefault(name, []).append(path)
    return list(groups.values())


def read_inputs(
    inputs: list[InputImage],
    threads: int | None = None,
    max_pixels: int | None = None,
    clip: Clip = Clip(),
) -> Iterator[tuple]:
    """Yield each image, read ahead. A file that cannot be read yields its reason instead, so that
    the others go on.
    """
    return (
        pair
        for chunk in read_chunks(inputs, threads, max_pixels=max_pixels, clip=clip)
        for pair in chunk
    )


def spread_images(
    text: str,
    count: int,
    recursive: bool = True,
    max_pixels: int | None = None,
    label_maps: bool = False,
    reporter: Reporter = Reporter(quiet=True),
) -> list[np.ndarray]:
    """Read `count` images of a folder or glob, evenly spaced, RGB; those that cannot be read are
    left out and warned of. Raises FgdaError when none can be read.
    """
    found = collect([text], recursive, None, label_maps=label_maps, reporter=reporter)
    inputs = [item for item in found if not item.is_video]
    if inputs and len(inputs) < len(found):
        videos = len(found) - len(inputs)
        reporter.decide(
            f"{text}: {videos} videos beside the images are not looked at (take frames of them"
            " first)"
        )
    pairs = read_inputs(evenly_spaced(inputs, count), max_pixels=max_pixels)
    images = [image for _, image in readable(pairs, reporter)[0]]
    if not images:
        raise FgdaError(f"{text} holds no readable image (videos: take frames of them first)")
    return images


def readable(
    pairs: Iterable[tuple], reporter: Reporter
) -> tuple[list[tuple[InputImage, np.ndarray]], int]:
    """Return the inputs that could be read, with their images, and how many could not, of which the
    reporter warns. A video that was cut short could be read.
    """
    good = []
    bad = 0
    for item, image in pairs:
        if isinstance(image, BadFile):
            reporter.warn(f"{item.shown}: {image}", of_own_share=True)
            bad += not isinstance(image, CutShort)
        else:
            good.append((item, image))
    return good, bad


def different_frames(images: list[np.ndarray]) -> int:
    """Count the images that differ from each other and show more than one colour."""
    return len({image.tobytes() for image in images if image.min() < image.max()})


def read_chunks(
    inputs: list[InputImage],
    threads: int | None = None,
    process_group: ProcessGroup = ProcessGroup(),
    max_pixels: int | None = None,
    clip: Clip = Clip(),
) -> Iterator[list[tuple]]:
    """Yield this process's share of the images in chunks, and then its videos' frames, video by
    video.
    """

    def read(item: InputImage) -> np.ndarray | BadFile:
        try:
            return read_rgb(item.path, max_pixels)
        except BadFile as error:
            return error
        except Exception as error:  # noqa: BLE001 - what no reader foresaw is that file's problem alone
            return BadFile(f"cannot be read ({type(error).__name__}: {error})")

    stills = [item for item in inputs if not item.is_video]
    yield from chunks_of(read_ahead(read, share(stills, process_group), threads))
    for item in process_group.part([item for item in inputs if item.is_video]):
        # a stream's frames as they come
        yield from batched(_frames(item, clip), CHUNK if item.stream is None else 1)


def _frames(item: InputImage, clip: Clip) -> Iterator[tuple[InputImage, np.ndarray | BadFile]]:
    """A video's frames as NAME/000001, NAME/000002, … by their number in the video; at the end,
    what was missing of it.
    """
    noticed: list[BadFile] = []

    def words() -> Iterator[tuple[InputImage, BadFile]]:
        while noticed:
            yield item, noticed.pop(0)

    try:
        frames = frames_of(item.source, clip, noticed.append)
        if item.stream is not None and is_live(item.source):
            frames = newest(frames)
        elif item.stream is None:
            frames = ahead(frames, CHUNK)
        for order, frame in enumerate(frames):
            yield from words()
            name = f"{item.name}/{frame.number:06d}"
            yield (
                InputImage(
                    name,
                    item.path,
                    item.stream,
                    order=order,
                    rate=clip.rate(frame.rate),
                    seconds=frame.seconds,
                ),
                frame.image,
            )
    except BadFile as error:
        noticed.append(error)
    yield from words()
