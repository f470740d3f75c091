"""What a person names as INPUT: images, folders, globs, videos, streams, standard input; each with the name of its results."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, BadFile, image_files, is_hidden, read_rgb, spread
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError
from .pipeline import CHUNK, ahead, batched, read_ahead, share
from .video import STDIN, STREAM, Clip, frames_of

READABLE = IMAGE_SUFFIXES | VIDEO_SUFFIXES
RESULT_ENDINGS = ("_color", "_ids", "_overlay", "_entropy")  # of the names that predict and entropy-map write


@dataclass(frozen=True)
class Input:
    """One image or video; `name` is its path below the folder given, without suffix. A video's frame knows its place among those
    that are taken (`order`, from 0) and how many come a second."""

    name: str
    path: Path
    stream: str | None = None  # a camera, an address, or "-" for frames on standard input
    order: int = 0
    rate: float = 0.0

    @property
    def is_video(self) -> bool:
        return self.stream is not None or self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def source(self) -> str:
        """What it is read from."""
        return self.stream or str(self.path)

    @property
    def video(self) -> str:
        """The name of the video that a frame is of."""
        return self.name.rpartition("/")[0]


def collect(inputs: list[str], recursive: bool, out: Path | None = None) -> list[Input]:
    """Images, folders and globs to a list without doubles. Raises FgdaError for an input that gives none.

    With several inputs, a folder's name stands before those of its images. What an earlier run wrote to `out` is left out.
    """
    found: dict[Path, str] = {}
    folders = _folder_names([Path(text) for text in inputs if Path(text).is_dir()])
    streams = [text for text in inputs if text == STDIN or STREAM.match(text)]
    for text in inputs:
        path = Path(text)
        if text in streams:
            continue
        if path.is_dir():
            prefix = f"{folders[path]}/" if len(inputs) > 1 else ""
            files = _without_results(image_files(path, recursive, READABLE), path, out)
            images = {file: prefix + file.relative_to(path).with_suffix("").as_posix() for file in files}
            if not images:
                deeper = " (there are some in its folders: use --recursive)" if _more_below(path, recursive, out) else ""
                raise FgdaError(f"{path} holds no image or video{deeper}")
        elif path.is_file():
            images = {path: path.stem}
        else:
            matches = [Path(p) for p in sorted(glob.glob(text, recursive=True))]
            images = {p: p.stem for p in matches if p.suffix.lower() in READABLE and not is_hidden(p) and p.is_file()}
            if not images:
                raise FgdaError(f"{text}: no such image, folder or pattern")
        for image, name in images.items():
            found.setdefault(image, name)
    return [*_distinct(found), *(entry for text in streams for entry in _stream(text))]


def _stream(text: str) -> list[Input]:
    """A camera, an address, frames on standard input, or the images that it lists, a path a line."""
    if text != STDIN:
        return [Input(re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-"), Path(text), stream=text)]
    head = sys.stdin.buffer.peek(512)[:512]
    if not head:
        raise FgdaError("standard input is empty: images or their paths are expected")
    line = head.partition(b"\n")[0].strip()
    if b"\0" in head or not line.isascii() or Path(line.decode()).suffix.lower() not in READABLE:
        return [Input("stdin", Path(STDIN), stream=STDIN)]
    listed = [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
    return _distinct({Path(line): Path(line).stem for line in listed})


def _folder_names(folders: list[Path]) -> dict[Path, str]:
    """The last part of each folder's path, or as many parts as tell them apart."""
    names: dict[Path, str] = {}
    for folder in folders:
        parts = folder.resolve().parts
        for depth in range(1, len(parts) + 1):
            name = "/".join(part for part in parts[-depth:] if part != "/")
            if sum(other.resolve().parts[-depth:] == parts[-depth:] for other in dict.fromkeys(folders)) == 1:
                break
        names[folder] = name
    return names


def _without_results(files: list[Path], folder: Path, out: Path | None) -> list[Path]:
    """The files that are not results of an earlier run into `out`, be it a folder in this one or this one itself."""
    if out is None:
        return files
    inside, here = out.resolve(), folder.resolve()
    if inside == here:
        stems = {file.with_suffix("") for file in files}
        return [file for file in files if not _is_result(file, stems)]
    if not inside.is_relative_to(here):
        return files
    return [file for file in files if not file.resolve().is_relative_to(inside)]


def _is_result(file: Path, stems: set[Path]) -> bool:
    if file.name == "legend.png":
        return True
    bases = (file.with_name(file.stem.removesuffix(ending)) for ending in RESULT_ENDINGS if file.stem.endswith(ending))
    return any(base in stems for base in bases)


def _more_below(path: Path, recursive: bool, out: Path | None) -> bool:
    return not recursive and bool(_without_results(image_files(path, True, READABLE), path, out))


def _distinct(found: dict[Path, str]) -> list[Input]:
    """`a.png` and `a.jpg` would write the same file: such names keep their suffix, and then get a number."""
    names = list(found.values())
    used: set[str] = set()
    result = []
    for path, name in found.items():
        chosen = name if names.count(name) == 1 else f"{name}{path.suffix}"
        number = 2
        while chosen in used:
            chosen, number = f"{name}-{number}", number + 1
        used.add(chosen)
        result.append(Input(chosen, path))
    return result


def read_inputs(inputs: list[Input], threads: int | None = None, max_pixels: int | None = None) -> Iterator[tuple]:
    """Each image, read ahead; a file that cannot be read comes as its reason, so that the others go on."""
    return (pair for chunk in read_chunks(inputs, threads, max_pixels=max_pixels) for pair in chunk)


def spread_images(text: str, count: int, recursive: bool = True, max_pixels: int | None = None) -> list[np.ndarray]:
    """`count` images of a folder or glob, evenly spread, RGB. Raises FgdaError when none can be read."""
    inputs = [item for item in collect([text], recursive) if not item.is_video]
    images = [image for _, image in read_inputs(spread(inputs, count), max_pixels=max_pixels) if isinstance(image, np.ndarray)]
    if not images:
        raise FgdaError(f"{text} holds no image that can be read (videos: take frames of them first)")
    return images


def read_chunks(
    inputs: list[Input],
    threads: int | None = None,
    process_group: ProcessGroup = ProcessGroup(),
    max_pixels: int | None = None,
    clip: Clip = Clip(),
) -> Iterator[list[tuple]]:
    """This process's share of the images in chunks, and then its videos' frames, video by video."""

    def read(item: Input) -> np.ndarray | BadFile:
        try:
            return read_rgb(item.path, max_pixels)
        except BadFile as error:
            return error
        except Exception as error:  # noqa: BLE001 - what no reader foresaw is that file's problem alone
            return BadFile(f"cannot be read ({type(error).__name__}: {error})")

    stills = [item for item in inputs if not item.is_video]
    yield from batched(read_ahead(read, share(stills, process_group), threads), CHUNK)
    for item in process_group.part([item for item in inputs if item.is_video]):
        yield from batched(_frames(item, clip), CHUNK if item.stream is None else 1)  # a stream's frames as they come


def _frames(item: Input, clip: Clip) -> Iterator[tuple[Input, np.ndarray | BadFile]]:
    """A video's frames as NAME/000001, NAME/000002, … by their number in the video."""
    try:
        frames = frames_of(item.source, clip)
        for order, (number, image, rate) in enumerate(frames if item.stream else ahead(frames, CHUNK)):
            yield Input(f"{item.name}/{number:06d}", item.path, item.stream, order, clip.rate(rate)), image
    except BadFile as error:
        yield item, error
