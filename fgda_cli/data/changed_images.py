"""A prepared data set made of another by changing its images (translation); labels are copied.
Resumable by image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..runtime.errors import FgdaError
from ..runtime.files import write_bytes, write_json
from ..runtime.reporter import Reporter
from .images import write_image
from .store import PreparedDataset


def derive(
    dataset: PreparedDataset,
    out: Path,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    reporter: Reporter,
) -> PreparedDataset:
    """Write the training images of `dataset` after `change` (RGB uint8 `[H,W,3]` to the same size),
    with their labels.

    Files that are there already are kept; the manifest comes last. Raises FgdaError for an image of
    another size.
    """
    items = dataset.items("train", labelled=True)
    entries = []
    with reporter.progress(f"translate {dataset.name}", len(items)) as advance:
        for item in items:
            image = out / f"images/train/{item.name}.png"
            label = out / f"labels/train/{item.name}.png"
            if not image.is_file():
                original = dataset.image(item)
                changed = change(original)
                if changed.shape != original.shape:
                    raise FgdaError(f"{item.name}: {original.shape} became {changed.shape}")
                write_image(image, changed, compression=1)
            if not label.is_file():
                write_bytes(label, (dataset.folder / item.label).read_bytes())
            entries.append(
                {
                    "name": item.name,
                    "image": str(image.relative_to(out)),
                    "label": str(label.relative_to(out)),
                    "counts": item.counts,
                    "size": item.size,
                }
            )
            advance(1)
    kept = {
        key: dataset.manifest[key]
        for key in ("format", "version", "size", "ignore_index", "classes")
        if key in dataset.manifest
    }
    write_json(
        out / "manifest.json",
        {**kept, "resample": dataset.resample, "dataset": name, "splits": {"train": entries}},
        indent=None,
    )
    return PreparedDataset(out)
