"""From a data set's name and a raw folder to prepared folders: what `fgda prepare` calls."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from ..runtime.reporter import Reporter
from .layouts.folder import find as find_folder
from .layouts.folder import load_mapping
from .prepare import Cache, Summary, Task, prepare

PLAYGROUND_SIZE = (256, 128)


def default_workers(workers: int | None) -> int:
    return workers if workers is not None else max(1, len(os.sched_getaffinity(0)))


def prepare_layout(
    kind: str,
    root: Path,
    out: Path,
    size,
    reporter: Reporter,
    workers: int,
    name: str | None = None,
    check_only: bool = False,
    cache: Cache = "raw",
) -> Summary:
    """A data set with a layout of its own (`data/layouts/KIND.py`)."""
    layout = importlib.import_module(f"fgda_cli.data.layouts.{kind}")
    listing = layout.find(root)
    folder = out / (name or kind)
    task = Task(name or kind, folder, size or layout.SIZE, len(listing.classes), layout.read_label, check_only, cache)
    return prepare(task, listing, reporter, workers)


def prepare_playground(
    root: Path, out: Path, size, reporter: Reporter, workers: int, seed: int = 0, cache: Cache = "raw"
) -> list[Summary]:
    """Draw both domains below root, then prepare them with the code that reads GTA5 and Cityscapes."""
    from . import playground

    playground.write_raw(root, seed, reporter, workers)
    size = size or PLAYGROUND_SIZE
    return [
        prepare_layout("gta5", root / "game", out, size, reporter, workers, "playground-game", cache=cache),
        prepare_layout("cityscapes", root / "street", out, size, reporter, workers, "playground-street", cache=cache),
    ]


def prepare_folder(
    images: Path, labels: Path | None, mapping: Path | None, split: str, out: Path, name: str, size, reporter: Reporter,
    workers: int, check_only: bool = False, cache: Cache = "raw",
) -> Summary:  # fmt: skip
    """The user's own images, with labels when there are any."""
    meaning = load_mapping(mapping)
    listing = find_folder(images, labels, split, meaning.classes)
    task = Task(name, out / name, size, len(meaning.classes), meaning.read_label, check_only, cache, keep_other_splits=True)
    return prepare(task, listing, reporter, workers)
