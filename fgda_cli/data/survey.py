"""A guess at the meaning of a folder of label images from their values: the layout that reads them,
and a mapping to classes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime.errors import FgdaError, UsageError
from ..runtime.text import parse_yaml
from .classes import CITYSCAPES_IDS, IGNORE_INDEX, NAMES, PALETTE
from .formats import count_values, decide_label_ids, read_label_values
from .images import BadFile, evenly_spaced, image_files
from .layouts.base import Listing, OwnFiles, pair_by_name
from .layouts.carla import COLOURS, IDS, likely_version, raw_ids
from .layouts.folder import pair_folders, refuse_neighbours, suggest, suggested_endings

# share of the pixels below which a class is not worth training
RARE = 0.0005
# label files that are read
LOOKED_AT = 400
# share of the pixels that the chosen classes should cover: else the others become a class of their
# own
MOST = 0.8


@dataclass(frozen=True)
class Line:
    """A line of a mapping: the label value as YAML, its class (None: ignored), and its share of the
    pixels looked at.
    """

    key: str
    name: str | None
    share: float
    # the class that it would be if it occurred more often
    rare: str | None = None


@dataclass(frozen=True)
class Survey:
    """The `fgda prepare` that reads a folder of labels, and what its values mean."""

    # the `fgda prepare` format that reads these labels: folder or carla
    command: str
    options: tuple[str, ...]
    # lines of the table, the largest share first
    lines: tuple[Line, ...]
    # how the meaning was found, in words
    told_by: str
    # images that have a label
    count: int
    # number of label files that were read
    looked_at: int
    # The class of values without a line. None: `fgda prepare` refuses them, for not all files were
    # looked at.
    rest: str | None = None

    @property
    def names(self) -> list[str]:
        names = [line.name for line in self.lines if line.name is not None]
        return list(
            dict.fromkeys(names + ([self.rest] if self.rest not in (None, "ignore") else []))
        )

    @property
    def unnamed(self) -> list[Line]:
        """Return the lines whose class is named after its value, because nothing says what the
        class is.
        """
        return [
            line
            for line in self.lines
            if line.name is not None and line.name.startswith(("id ", "colour "))
        ]

    def shares(self) -> dict[str, float]:
        """Return the share of each class, with the ignored pixels under `ignore`."""
        shares: Counter[str] = Counter()
        for line in self.lines:
            shares[line.name or self.rest or "ignore"] += line.share
        return dict(shares)

    @property
    def left_out(self) -> dict[str, float]:
        """Return the classes that are ignored because they hardly occur, and their shares."""
        rare: Counter[str] = Counter()
        for line in self.lines:
            if line.rare is not None:
                rare[line.rare] += line.share
        return dict(rare.most_common())


def survey(images: Path, labels: Path, label_ids: str | None = None) -> Survey:
    """Look at a sample of label images. `label_ids`: what grey values below 34 are, `train`,
    `label` (Cityscapes') or `own`.

    Raises UsageError where the values can mean two things, FgdaError for folders without pairs.
    """
    suffixes, files = _paired(images, labels)
    sample = evenly_spaced(files, LOOKED_AT)
    values, is_red = _count(sample)
    if not values:
        raise FgdaError(
            f"--labels {labels}: no file of the {len(sample)} looked at can be read as a label"
            " image"
        )
    total = sum(values.values())
    shares = {value: number / total for value, number in values.most_common()}
    if all(isinstance(value, tuple) for value in shares):
        result = Survey(
            "folder",
            suffixes,
            _by_colour(shares),
            told_by="the labels' colours",
            count=len(files),
            looked_at=len(sample),
        )
    elif any(isinstance(value, tuple) for value in shares):
        raise UsageError(
            f"--labels {labels}: some labels are grey and others have colours: keep one kind in the"
            " folder"
        )
    elif is_red:
        version, clear, reason = likely_version(shares)
        if not clear:
            raise UsageError(
                f"--labels {labels} look like CARLA's, but of which numbering? ({reason})\nwrite"
                " the mapping yourself"
            )
        options = ("--carla-version", version, *suffixes)
        told_by = f"CARLA's ids, {version} numbering: {reason}"
        result = Survey(
            "carla",
            options,
            _carla_lines(shares, version),
            told_by=told_by,
            count=len(files),
            looked_at=len(sample),
        )
    else:
        numbering = label_ids or decide_label_ids(set(shares)) or "label"
        ids = {
            "train": dict(enumerate(NAMES)),
            "label": dict(zip(CITYSCAPES_IDS, NAMES, strict=True)),
            "own": {},
        }[numbering]
        told_by = "ids of one's own" if numbering == "own" else f"Cityscapes' {numbering} ids"
        lines = tuple(
            _grey_line(value, share, ids, numbering=numbering) for value, share in shares.items()
        )
        result = Survey(
            "folder", suffixes, lines, told_by=told_by, count=len(files), looked_at=len(sample)
        )
    all_seen = len(sample) == len(files)
    return replace(_without_rare(result), rest="ignore" if all_seen else None)


def choose(known: Survey, classes: list[str] | None) -> Survey:
    """Keep only these classes, rare ones too; the others are ignored, or become the class `other`
    if they cover much.

    Raises UsageError for a class that the labels do not have.
    """
    if classes is None:
        return known
    there = [*known.names, *known.left_out]
    unknown = [name for name in classes if name not in there]
    if unknown:
        raise UsageError(f"--classes {', '.join(unknown)}: the labels have {', '.join(there)}")
    lines = []
    for line in known.lines:
        name = line.name or line.rare
        kept = name if name in classes else None
        lines.append(replace(line, name=kept, rare=None if kept else line.rare))
    known = replace(known, lines=tuple(lines))
    covered = sum(line.share for line in known.lines if line.name is not None)
    return replace(known, rest="other" if covered < MOST else "ignore")


def rename(known: Survey, names: dict[str, str]) -> Survey:
    """Give classes other names; `ignore` leaves one out."""
    given = {old: None if new.strip() == "ignore" else new.strip() for old, new in names.items()}
    return replace(
        known,
        lines=tuple(replace(line, name=given.get(line.name, line.name)) for line in known.lines),
    )


def mapping_text(known: Survey) -> str:
    """Return the mapping as YAML, with each line's share of the pixels as a comment."""
    head = [
        (
            "# What the label values mean: VALUE: CLASS. Two lines with one class merge them,"
            " `ignore` leaves a value out."
        ),
        f"# Found by: {known.told_by}. Percentages: shares of the pixels of the labels looked at.",
        f"classes: [{', '.join(map(_quoted, known.names))}]",
    ]
    lines = [
        f"{line.key}: {_quoted(line.name or known.rest or 'ignore')}".ljust(36)
        + f"# {100 * line.share:.2f} %"
        for line in known.lines
    ]
    if known.rest is None:
        rest = [
            (
                f"# {known.looked_at} of {known.count} label files were looked at. A value of the"
                " others that has no line here is"
            ),
            "# refused by `fgda prepare`, by name; `rest: ignore` would ignore it.",
        ]
    else:
        rest = [f"rest: {known.rest}".ljust(36) + "# every other value"]
    return "\n".join([*head, *lines, *rest]) + "\n"


def _quoted(name: str) -> str:
    """The name as YAML reads it back, in quotes where it must."""
    return (
        name
        if re.fullmatch(r"[A-Za-z_][\w -]*", name) and parse_yaml(name) == name
        else json.dumps(name, ensure_ascii=False)
    )


def _paired(images: Path, labels: Path) -> tuple[tuple[str, ...], list[Path]]:
    """The suffix options under which names agree, and the labels that have an image."""
    files = OwnFiles(images, labels)
    options = ()
    listing = Listing()
    files.folders()
    pictures = image_files(images)
    label_files = image_files(labels)
    if images.resolve() == labels.resolve():
        ends = suggested_endings(images, pictures)
    else:
        pair_by_name(
            listing, pictures, label_files, image_root=images, label_root=labels, split=files.split
        )
        ends = None if listing.pairs else suggest(pictures, label_files, images, label_root=labels)
    if ends:
        options = ("--image-suffix", ends[0], "--label-suffix", ends[1])
        pair_folders(listing, replace(files, image_suffix=ends[0], label_suffix=ends[1]))
    if images.resolve() == labels.resolve() and not listing.pairs:
        # It refuses, and shows the endings of the files.
        pair_folders(listing, files)
    if not listing.pairs:
        raise FgdaError(f"no image of {images} has a label of its name in {labels}")
    refuse_neighbours(listing.pairs, listing.problems)
    return options, listing.labels()


def _count(files: Sequence[Path]) -> tuple[Counter, bool]:
    """Pixels by label value, an id or a colour; and whether the ids stand in the red channel
    alone.
    """
    values: Counter = Counter()
    red = False
    for path in files:
        try:
            label = read_label_values(path)
        except BadFile:
            # refused later, by name
            continue
        ids = raw_ids(label) if label.ndim == 3 else label
        if ids is None and (label == label[..., :1]).all():
            ids = label[..., 0]
        elif label.ndim == 3 and ids is not None and ids.any():
            red = True
        values.update(count_values(label if ids is None else ids))
    return values, red


def _by_colour(shares: dict[tuple, float]) -> tuple[Line, ...]:
    known = dict(COLOURS)
    known |= {colour: train_id for train_id, colour in enumerate(PALETTE)}

    def name(colour: tuple) -> str | None:
        if colour not in known:
            return "colour " + "-".join(map(str, colour))
        return None if known[colour] == IGNORE_INDEX else NAMES[known[colour]]

    return tuple(Line(str(list(colour)), name(colour), share) for colour, share in shares.items())


def _carla_lines(shares: dict[int, float], version: str) -> tuple[Line, ...]:
    by_class: Counter[str] = Counter()
    for value, share in shares.items():
        if value in IDS[version]:
            by_class[NAMES[IDS[version][value]]] += share
    return tuple(Line(name, name, share) for name, share in by_class.most_common())


def _grey_line(value: int, share: float, ids: dict[int, str], numbering: str) -> Line:
    own = f"id {value}" if numbering == "own" and value != IGNORE_INDEX else None
    return Line(str(value), ids.get(value, own), share)


def _without_rare(known: Survey) -> Survey:
    """Leave out classes that hardly occur."""
    shares = known.shares()
    lines = (
        (
            line
            if line.name is None or shares[line.name] >= RARE
            else replace(line, name=None, rare=line.name)
        )
        for line in known.lines
    )
    return replace(known, lines=tuple(lines))
