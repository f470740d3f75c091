"""Raw data sets: the published ones (a row each in `published.py`), and formats that a user's own
files have.

A further data set is a file here that holds a `LAYOUT`, and its name is the file's.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import About, Layout, OwnFormat

OWN = ("folder", "carla", "coco", "labelme", "voc")


def layout_names() -> list[str]:
    """Return the data sets that have a layout of their own."""
    from .published import LAYOUTS

    files = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted({*LAYOUTS, *files} - {"base", "published", *OWN})


def layout(name: str) -> Layout:
    """Return the layout of a data set that `layout_names` holds."""
    from .published import LAYOUTS

    return LAYOUTS.get(name) or importlib.import_module(f"{__name__}.{name}").LAYOUT


def own_format(name: str) -> OwnFormat:
    """Return one of the formats OWN."""
    return importlib.import_module(f"{__name__}.{name}").FORMAT


def all_layouts() -> dict[str, About]:
    """Return every data set and format by its name."""
    published = {name: layout(name) for name in layout_names()}
    return published | {name: own_format(name) for name in OWN}
