"""Conversion of a raw data set into a prepared folder: the functions behind `fgda prepare`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from ..runtime.system import usable_cores
from .alignment import better_orientation, has_red_sky, has_sky_below, samples_of
from .cache import fill
from .classes import ClassSet
from .convert import Cache, Task
from .destination import check_destination
from .footage import FRAMES, extract, videos_of
from .geometry import Resample
from .images import VIDEO_SUFFIXES, image_files, natural_order
from .layouts import layout, own_format
from .layouts.base import Listing, OwnFiles, Reader, ReadLabel
from .mapping import renamed
from .prelabels import read_record
from .summary import Summary

PLAYGROUND_SIZE = (256, 128)


@dataclass(frozen=True)
class How:
    """Options of `fgda prepare` for any data set."""

    out: Path
    size: tuple[int, int] | None = None
    workers: int = 1
    reporter: Reporter = Reporter()
    check_only: bool = False
    cache: Cache = "raw"
    resample: Resample = "area"
    max_pixels: int | None = None
    rows: tuple[float, float] | None = None
    cut: bool = False
    # percent of one's own files that become the split `val`
    hold_out: int = 0


def default_workers(workers: int | None) -> int:
    return workers if workers is not None else usable_cores()


@dataclass(frozen=True)
class Published:
    """The labels of a layout as its authors publish them."""

    kind: str
    classes: ClassSet
    read_label: ReadLabel
    version: int

    def facts(self) -> dict[str, Any]:
        return {"layout": self.kind, "version": self.version}

    def mapped(self) -> set[int]:
        return set()


def prepare_layout(
    kind: str,
    root: Path,
    how: How,
    name: str | None = None,
    condition: str | None = None,
    mapping: Path | None = None,
) -> Summary:
    """Prepare a data set with a layout of its own (`data/layouts`); a mapping renames or
    merges its classes.

    Raises UsageError for a condition where there are none, and for a mapping that names none of its
    classes.
    """
    published = layout(kind)
    listing = published.find(root, condition)
    reader: Reader = Published(
        kind, listing.classes, published.read_label, version=published.version
    )
    if mapping is not None:
        reader = renamed(reader, mapping, listing)
    choice = {"condition": condition or "all"} if published.conditions else {}
    reading = {} if mapping is None else {"mapping": str(mapping)}
    origin = Origin(kind, {"root": root}, choice, reading=reading)
    return _fill(
        name or kind,
        listing,
        reader,
        how=replace(how, size=how.size or published.size),
        origin=origin,
    )


def prepare_playground(
    root: Path, how: How, seed: int = 0, scenes: tuple[int, int] | None = None
) -> list[Summary]:
    """Draw both domains below root, then prepare them with the code that reads GTA5 and
    Cityscapes.

    `scenes`: how many of each domain to train on, and how many of the street to validate on.
    """
    from . import playground

    train, val = scenes or (playground.TRAIN, playground.VAL)
    playground.write_raw(root, seed, how.reporter, workers=how.workers, train=train, val=val)
    how = replace(how, size=how.size or PLAYGROUND_SIZE)
    return [
        prepare_layout("gta5", root / "game", how, name="playground-game"),
        prepare_layout("cityscapes", root / "street", how, name="playground-street"),
    ]


def prepare_own(kind: str, files: OwnFiles, name: str, how: How) -> Summary:
    """Prepare the user's own files in one of the formats `layouts.OWN`, with labels if there are
    any.

    Raises UsageError for options that this format does not take.
    """
    own = own_format(kind)
    refuse_options(files, kind, own.takes)
    asked = {"only": list(files.only), "hold_out": how.hold_out, "every": files.every}
    reading = {
        option: value if value is True else str(value)
        for option, value in files.given().items()
        if option not in files.raw() and option not in asked
    }
    origin = Origin(kind, files.raw(), {}, asked=asked, reading=reading, is_own=True)
    if not how.check_only:
        check_destination(how.out / name, origin.resolved())
    videos = []
    if kind == "folder" and files.images is not None:
        videos = videos_of(files.images)
        files = _with_frames(files, videos, how.out / name / FRAMES / files.split, how=how)
    try:
        listing, reader = own.open_own(files)
    except UsageError as error:
        raise UsageError(f"prepare {kind}: {error}") from None
    listing.used += videos
    # outlines are drawn later: a file of them may claim an image of any size
    if not hasattr(reader, "read_shapes"):
        _look_at_some(listing, reader)
    if how.hold_out:
        _hold_out(listing, how.hold_out)
    beside = (files.root, files.labels, files.labels and files.labels.parent)
    return _fill(name, listing, reader, how=how, origin=origin, prelabels=read_record(*beside))


def _look_at_some(listing: Listing, reader: Reader) -> None:
    """Note what some images and labels beside one another show to be wrong."""
    samples = samples_of(listing.pairs, reader.read_label)
    turned = better_orientation(samples)
    if turned is not None:
        listing.notes.append(
            f"labels look {turned}: so turned, borders of classes lie on the images' edges; look at"
            " some before you train"
        )
    names = listing.classes.names
    if "sky" in names and has_red_sky(samples, names.index("sky")):
        listing.notes.append(
            "the sky is redder than blue in most images: but for sunsets and lamplit nights,"
            " red and blue are swapped (written in BGR order)"
        )
    if {"sky", "road"} <= set(names) and has_sky_below(
        samples, names.index("sky"), names.index("road")
    ):
        listing.notes.append(
            "the sky lies below the road: the frames are upside down, or the labels' ids mean other"
            " classes"
        )


def _hold_out(listing: Listing, percent: int) -> None:
    """Make the last files by name the split `val`: one stretch, so that hardly any frame of it has
    its neighbour in training.

    Raises UsageError where one of the two splits would be empty.
    """
    pairs = sorted(listing.pairs, key=lambda pair: natural_order(pair.name))
    count = round(len(pairs) * percent / 100)
    if not 0 < count < len(pairs):
        raise UsageError(
            f"--hold-out {percent}: of {len(pairs)} images that is {count}, and both splits"
            " need one"
        )
    listing.pairs = pairs[:-count] + [replace(pair, split="val") for pair in pairs[-count:]]
    listing.notes.append(
        f"{count} of {len(pairs)} images, the last by name, from {pairs[-count].name} on, are the"
        " split val"
    )


def _with_frames(files: OwnFiles, videos: list[Path], out: Path, how: How) -> OwnFiles:
    """The files with the frames of videos in the place of the videos. Raises UsageError for options
    that do not fit videos.
    """
    if not videos:
        beside = image_files(files.images, suffixes=VIDEO_SUFFIXES) if files.images.is_dir() else []
        if beside:
            how.reporter.decide(
                f"{len(beside)} videos beside the images are not taken, e.g. {beside[0].name}:"
                " prepare them by a command of their own, with another --name"
            )
        if files.every is not None:
            raise UsageError(
                f"--every {files.every}: {files.images} holds no videos, or images beside them"
            )
        return files
    if files.labels is not None or how.check_only:
        option = "--labels" if files.labels is not None else "--check-only"
        raise UsageError(
            f"{option} does not go with videos, as {files.images}: frames are extracted first, and"
            " have no labels"
        )
    return replace(
        files, images=extract(files.images, videos, out, every=files.every, reporter=how.reporter)
    )


@dataclass(frozen=True)
class Origin:
    """Where raw files come from: the reader, the folders that a user named, and the options that
    chose among their files.
    """

    reader: str
    raw: dict[str, Path]
    choice: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    is_own: bool = False

    def resolved(self) -> dict[str, str]:
        return {option: str(path.resolve()) for option, path in self.raw.items()}


def _fill(
    name: str,
    listing: Listing,
    reader: Reader,
    how: How,
    origin: Origin,
    prelabels: dict[str, str] | None = None,
) -> Summary:
    """Convert a listing's files, whose labels `reader` reads, into the prepared data set `name`."""
    task = Task(
        dataset=name,
        out=how.out / name,
        size=how.size,
        num_classes=len(reader.classes),
        read_label=reader.read_label,
        read_shapes=getattr(reader, "read_shapes", None),
        reader=origin.reader,
        raw=origin.resolved(),
        choice=origin.choice,
        asked=origin.asked,
        reading=origin.reading,
        check_only=how.check_only,
        cache=how.cache,
        is_own=origin.is_own,
        resample=how.resample,
        max_pixels=how.max_pixels,
        rows=how.rows,
        cut=how.cut,
        label_facts=reader.facts(),
        prelabels=prelabels or {},
        mapped=frozenset(reader.mapped()),
    )
    return fill(task, listing, how.reporter, workers=how.workers)


def refuse_options(files: OwnFiles, kind: str, takes: frozenset[str]) -> None:
    """Raise UsageError for an option that was given and would have no effect."""
    for option in files.given():
        if option not in takes:
            raise UsageError(
                f"prepare {kind} takes no --{option.replace('_', '-')} (fgda prepare --list"
                " says what it needs)"
            )
