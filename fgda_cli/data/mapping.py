"""The meaning of raw label values: `--mapping FILE` of ids, colours or names, or ids of Cityscapes
(`--label-ids`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.errors import UsageError
from ..runtime.text import BadText, parse_yaml, read_text
from .classes import CITYSCAPES, IGNORE_INDEX, NAMES, ClassMatch, ClassSet, named_classes
from .formats import (
    MAX_ID,
    LabelIds,
    count_values,
    decide_label_ids,
    from_cityscapes_ids,
    from_train_ids,
    grey_values,
    id_table,
    ids_or_colours,
    map_colours,
    read_label_values,
    sample_of,
    sampled_values,
)
from .images import BadFile
from .layouts.base import Listing
from .names import match_names, shown

if TYPE_CHECKING:
    from .layouts.base import Reader

MAPPINGS = Path(__file__).parent / "mappings"


@dataclass(frozen=True)
class Mapping:
    """Meaning of raw label values: ids or colours to train ids; without either, ids of the kind
    `label_ids`.
    """

    classes: ClassSet = CITYSCAPES
    ids: dict[int, int] | None = None
    colours: dict[tuple[int, int, int], int] | None = None
    label_ids: LabelIds | None = None
    # train id by name, for labels that carry names (names.py)
    names: dict[str, int] = field(default_factory=dict)
    # train id of all that the file does not mention. None: refused, or ignored where labels carry
    # names
    rest: int | None = None

    def read_label(self, path: Path) -> np.ndarray:
        """Read a label as train ids `[H,W]`. Raises BadFile."""
        label = read_label_values(path)
        if label.ndim == 3 and self.colours is not None:
            return map_colours(
                label,
                self.colours,
                "add `{}: CLASS`, `{}: ignore` or `rest: ignore` to the mapping",
                rest=self.rest,
            )
        label = grey_values(label)
        if self.ids is None and self.colours is not None:
            raise BadFile("a grey label, but the mapping has [r,g,b] keys alone")
        if self.ids is None:
            train_ids = (
                from_train_ids(label) if self.label_ids == "train" else from_cityscapes_ids(label)
            )
            return ClassMatch(self.classes, CITYSCAPES).table()[train_ids]
        unknown = [int(v) for v in np.unique(label) if int(v) not in self.ids and v != IGNORE_INDEX]
        if unknown and self.rest is None:
            are = f"id {unknown[0]} is" if len(unknown) == 1 else f"ids {shown(unknown, 8)} are"
            each = "" if len(unknown) == 1 else " for each"
            raise BadFile(
                f"label {are} not in the mapping (add `{unknown[0]}: CLASS`, or `{unknown[0]}:"
                f" ignore`{each}, or `rest: ignore`)"
            )
        return id_table(self.ids | {value: self.rest for value in unknown})[label]

    @property
    def rest_name(self) -> str:
        return "ignore" if self.rest == IGNORE_INDEX else self.classes.names[self.rest or 0]

    def taken_by_rest(self, labels: list[Path]) -> str:
        """Return which values no line mentions and how many pixels they have, in a sample of the
        labels, in words.
        """
        if self.rest is None or (self.ids is None and self.colours is None):
            return ""
        counts: Counter = Counter()
        total = 0
        for path in sample_of(labels):
            try:
                values = ids_or_colours(read_label_values(path))
            except BadFile:
                # refused later, by name
                continue
            total += values.shape[0] * values.shape[1]
            known = (self.colours if values.ndim == 3 else self.ids) or {}
            for key, count in count_values(values).items():
                if key not in known and key != IGNORE_INDEX:
                    counts[key] += count
        return shown(
            [f"{key} ({100 * count / max(total, 1):.2f} %)" for key, count in counts.most_common()],
            8,
        )

    @property
    def is_by_name(self) -> bool:
        """Return whether Cityscapes' ids are matched by name with the user's own classes."""
        return self.ids is None and self.colours is None and self.classes.names != CITYSCAPES.names

    def facts(self) -> dict[str, Any]:
        """Return everything that a converted label depends on, for the cache's stamp."""
        colours = sorted(
            (list(colour), train_id) for colour, train_id in (self.colours or {}).items()
        )
        by_name = {"matched": "by name"} if self.is_by_name else {}
        rest = {} if self.rest is None else {"rest": self.rest}
        return (
            by_name
            | rest
            | {
                "classes": self.classes.to_json(),
                "ids": sorted((self.ids or {}).items()),
                "colours": colours,
                "label_ids": self.label_ids,
            }
        )

    def mapped(self) -> set[int]:
        """Train ids that some raw value maps to: a class that never occurs although it is mapped is
        reported.
        """
        return set((self.ids or {}).values()) | set((self.colours or {}).values())


def decided(mapping: Mapping, listing: Listing) -> Mapping:
    """Return the mapping with its kind of ids settled from the files, unless a table says it.
    Raises UsageError when it is ambiguous.
    """
    labels = listing.labels()
    if mapping.is_by_name and labels:
        listing.notes.append(
            "labels are Cityscapes' ids, matched by name with the mapping's classes; others are"
            " ignored"
        )
    if (
        mapping.ids is not None
        or mapping.colours is not None
        or mapping.label_ids is not None
        or not labels
    ):
        return mapping
    label_ids = decide_label_ids(sampled_values(labels, read_label_values))
    if label_ids is not None:
        listing.notes.append(
            "labels are read as Cityscapes label ids (--label-ids train or a --mapping says"
            " otherwise)"
        )
    return replace(mapping, label_ids=label_ids)


def _by_name(classes: ClassSet, label_ids: LabelIds | None, path: Path) -> Mapping:
    """The mapping of a file with `classes:` alone: Cityscapes' ids, matched by name. Raises
    UsageError when no name fits.
    """
    if not ClassMatch(classes, CITYSCAPES).shared:
        raise UsageError(
            f"--mapping {path}: no class has a name of Cityscapes', and no line says which ids or"
            f" colours it has\nadd lines such as `7: {classes.names[0]}`"
        )
    return Mapping(classes, label_ids=label_ids)


def load_mapping(
    path: Path | None, label_ids: LabelIds | None = None, by_name: bool = False
) -> Mapping:
    """Read `{raw id | [r,g,b] | name: class name}` lines, or `class name: [several of them]`.

    `classes:` is an optional list, or a mapping of names to colours.

    A name is one of Cityscapes' and stands for its train id or, `by_name`, any that the labels
    carry. Raises UsageError.
    """
    if path is None:
        return Mapping(label_ids=label_ids)
    path = _named(path)
    try:
        tree = parse_yaml(read_text(path))
    except OSError as error:
        raise UsageError(f"--mapping {path}: {(error.strerror or str(error)).lower()}") from error
    except BadText as error:
        raise UsageError(f"--mapping {path}: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"--mapping {path}: write it as `raw id: class name` lines")
    classes = _classes(path, tree.pop("classes", None))
    rest = _rest(path, tree, classes)
    tree = _without_groups(path, tree)
    if not tree and not by_name:
        return _by_name(classes, label_ids, path)
    if label_ids is not None:
        raise UsageError("--label-ids and --mapping both say what label values mean: give one")
    ids: dict[int, int] = {}
    colours: dict[tuple[int, int, int], int] = {}
    names: dict[str, int] = {}
    for raw, name in tree.items():
        train_id = _train_id(path, name, classes)
        if by_name:
            names[_name(path, raw)] = train_id
        elif _is_colour(raw):
            colours[raw] = train_id
        else:
            ids[_id(path, raw, tree)] = train_id
    # Cityscapes' -1 stands in no file
    ids.pop(-1, None)
    return Mapping(classes, ids or None, colours or None, names=names, rest=rest)


def _train_id(path: Path, name: Any, classes: ClassSet) -> int:
    """Return the train id that a line names, by its class or `ignore`. Raises UsageError."""
    if isinstance(name, str) and name in classes.names:
        return classes.names.index(name)
    if name is None or name == "ignore":
        return IGNORE_INDEX
    raise UsageError(
        f"--mapping {path}: '{name}' is not a class (classes: {', '.join(classes.names)})"
    )


def _name(path: Path, raw: Any) -> str:
    """Return the key of a line as a name that labels carry. Raises UsageError."""
    if not isinstance(raw, str):
        raise UsageError(f"--mapping {path}: key {raw!r} is not a name, but the labels carry names")
    return raw


def _is_colour(raw: Any) -> bool:
    return isinstance(raw, tuple) and len(raw) == 3 and all(isinstance(part, int) for part in raw)


def _id(path: Path, raw: Any, tree: dict) -> int:
    """Return the id that a line's key is, or that it names as Cityscapes does. Raises
    UsageError.
    """
    if type(raw) is int:
        if raw > MAX_ID or raw < -1:
            raise UsageError(
                f"--mapping {path}: id {str(raw)[:20]} is outside 0 to {MAX_ID}, which no label"
                " file can hold"
            )
        return raw
    if raw in NAMES:
        named = NAMES.index(raw)
        if named in tree:
            raise UsageError(f"--mapping {path}: '{raw}' stands for id {named}, which is there too")
        return named
    if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,5}", raw.strip()):
        raise UsageError(
            f"--mapping {path}: key {raw!r} is a text: write the id {int(raw)} without quotes"
        )
    raise UsageError(
        f"--mapping {path}: key {str(raw)[:40]!r} is neither an id, an [r,g,b] colour nor a"
        " class name"
    )


def _without_groups(path: Path, tree: dict) -> dict:
    """Return the lines with `vehicles: [car, 13, [0, 0, 70]]` as a line for each member.

    Raises UsageError for a member that stands twice.
    """
    lines = {raw: name for raw, name in tree.items() if not isinstance(name, list)}
    for name, members in tree.items():
        for member in members if isinstance(members, list) else ():
            raw = tuple(member) if isinstance(member, list) else member
            is_key = isinstance(raw, (int, str)) or (
                isinstance(raw, tuple) and all(isinstance(part, int) for part in raw)
            )
            if not is_key or raw in lines:
                why = f"stands for '{lines[raw]}' too" if is_key else "is no id, colour or name"
                raise UsageError(f"--mapping {path}: {member} in '{name}: [...]' {why}")
            lines[raw] = name
    return lines


def _rest(path: Path, tree: dict, classes: ClassSet) -> int | None:
    """Take `rest: CLASS` or `rest: ignore` out of the lines of a mapping. Raises UsageError for
    another value.
    """
    if "rest" not in tree:
        return None
    name = tree.pop("rest")
    if name not in (*classes.names, "ignore"):
        raise UsageError(
            f"--mapping {path}: rest: '{name}' is not a class (classes:"
            f" {', '.join(classes.names)}), and not `ignore`"
        )
    return _train_id(path, name, classes)


def mapping_names() -> list[str]:
    """Return the names of the shipped mappings."""
    return sorted(path.stem for path in MAPPINGS.glob("*.yaml"))


def _named(path: Path) -> Path:
    """A shipped mapping by its name, where no file has it. Raises UsageError."""
    if path.exists() or path.suffix:
        return path
    if path.name not in mapping_names() or path.name != str(path):
        raise UsageError(
            f"--mapping {path}: no such file, and none of the shipped ones:"
            f" {', '.join(mapping_names())}"
        )
    return MAPPINGS / f"{path.name}.yaml"


def _classes(path: Path, own: Any) -> ClassSet:
    """`classes: [road, tree]`, or `classes: {road: , tree: [0, 120, 0]}`. Raises UsageError."""
    if own is None:
        return CITYSCAPES
    if not (isinstance(own, (list, tuple, dict)) and own):
        raise UsageError(
            f"--mapping {path}: classes is a list of names, or names with [r,g,b] colours"
        )
    given = (
        {str(name): colour for name, colour in own.items() if colour is not None}
        if isinstance(own, dict)
        else {}
    )
    for name, colour in given.items():
        if not (
            isinstance(colour, (list, tuple))
            and len(colour) == 3
            and all(isinstance(part, int) for part in colour)
        ):
            raise UsageError(f"--mapping {path}: the colour of class '{name}' is not an [r, g, b]")
    try:
        return named_classes(
            [str(name) for name in own], {name: tuple(colour) for name, colour in given.items()}
        )
    except ValueError as error:
        raise UsageError(f"--mapping {path}: {error}") from None


@dataclass(frozen=True)
class Renamed:
    """The labels of `reader`, whose train id i becomes `table[i]`."""

    reader: Reader
    classes: ClassSet
    table: tuple[int, ...]

    def read_label(self, path: Path) -> np.ndarray:
        """Return train ids `[H,W]`. Raises BadFile."""
        import numpy as np

        return np.asarray(self.table, np.uint8)[self.reader.read_label(path)]

    def facts(self) -> dict[str, Any]:
        return self.reader.facts() | {
            "classes": self.classes.to_json(),
            "renamed": list(self.table),
        }

    def mapped(self) -> set[int]:
        return set(self.table) - {IGNORE_INDEX}


def renamed(reader: Reader, mapping: Path, listing: Listing) -> Renamed:
    """Return the reader with the classes of a mapping of names (`terrain: vegetation`), which
    become the listing's too.

    A class that the mapping does not mention keeps its name where the mapping's `classes` have it
    and is ignored elsewhere; the ignored ones are noted. Raises UsageError for keys that are no
    names, and when no class is left.
    """
    meaning = load_mapping(mapping, by_name=True)
    ids = match_names(
        reader.classes.names, meaning.classes, meaning.names, notes=listing.notes, rest=meaning.rest
    )
    table = [ids[name] for name in reader.classes.names]
    listing.classes = meaning.classes
    return Renamed(reader, meaning.classes, (*table, *[IGNORE_INDEX] * (256 - len(table))))
