"""Raw data sets, one file each: `find(root) -> Listing`, `read_label(path) -> train ids`, `SIZE` of training images."""

from __future__ import annotations

import pkgutil

NOT_LAYOUTS = {"base", "folder"}


def layout_names() -> list[str]:
    """Data sets with a layout of their own, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NOT_LAYOUTS)
