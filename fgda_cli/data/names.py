"""Labels that carry class names (VOC, CVAT, COCO, Labelme): which name means which class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..runtime.errors import UsageError
from .classes import IGNORE_INDEX, ClassSet

NOTHING = frozenset(
    {
        "background",
        "unlabeled",
        "unlabelled",
        "void",
        "ignore",
        "_background_",
        "__ignore__",
        "out of roi",
    }
)


def canonical(name: str) -> str:
    """Return one spelling of a name, so that `Traffic_Light`, `traffic-light` and `traffic light`
    are equal.
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split()) or name


def match_names(
    names: Iterable[str],
    classes: ClassSet,
    table: dict[str, int] | None,
    notes: list[str],
    rest: int | None = None,
) -> dict[str, int]:
    """Return each name's train id: by `table` (of a mapping) first, then by the classes' own names;
    others become `rest`, or 255.

    What is ignored for want of a class is noted once. Raises UsageError when no name means a class.
    """
    names = list(dict.fromkeys(names))
    own = {canonical(name): train_id for train_id, name in enumerate(classes.names)}
    known = own | {canonical(name): train_id for name, train_id in (table or {}).items()}
    matched = {
        name: known.get(canonical(name), IGNORE_INDEX if rest is None else rest) for name in names
    }
    unknown = [
        name
        for name in names
        if canonical(name) not in known and canonical(name) not in map(canonical, NOTHING)
    ]
    if all(train_id == IGNORE_INDEX for train_id in matched.values()):
        raise UsageError(
            f"no label name is a class: {shown(names) or 'there is none'}\n"
            f"give --mapping FILE with `name: class` lines (classes: {', '.join(classes.names)})"
        )
    if unknown and rest is None:
        notes.append(
            f"names of no class, ignored: {shown(unknown)} (--mapping with `name: class` lines says"
            " otherwise)"
        )
    return matched


def shown(names: Sequence[object], most: int = 12) -> str:
    """Return the first of some names, ids or colours as text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name)[:40] for name in names[:most]) + more
