"""Raw data sets, one file each: `find(root) -> Listing`, `read_label(path) -> train ids`, `SIZE` of
training images.

Formats that a user's own files have: `open_own(files) -> (Listing, Reader)`, `TAKES`, the options
that they use.
"""

from __future__ import annotations

import pkgutil

OWN = ("folder", "carla", "coco", "labelme", "voc")


def layout_names() -> list[str]:
    """Return the data sets that have a layout of their own, by file name."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name not in ("base", *OWN)
    )
