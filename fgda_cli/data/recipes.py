"""From a data set's name and a raw folder to prepared folders: what `fgda prepare` calls."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..runtime.errors import UsageError
from ..runtime.reporter import Reporter
from ..runtime.system import usable_cores
from .convert import Cache, Task
from .formats import LabelIds
from .geometry import Resample
from .layouts import layout_names
from .layouts.folder import decided, load_mapping
from .layouts.folder import find as find_folder
from .prepare import Summary, prepare

PLAYGROUND_SIZE = (256, 128)


@dataclass(frozen=True)
class How:
    """What the options of `fgda prepare` say for any data set."""

    out: Path
    size: tuple[int, int] | None = None
    workers: int = 1
    reporter: Reporter = Reporter()
    check_only: bool = False
    cache: Cache = "raw"
    resample: Resample = "area"
    max_pixels: int | None = None


def default_workers(workers: int | None) -> int:
    return workers if workers is not None else usable_cores()


def prepare_layout(kind: str, root: Path, how: How, name: str | None = None, condition: str | None = None) -> Summary:
    """A data set with a layout of its own (`data/layouts/KIND.py`). Raises UsageError for a condition where there are none."""
    layout = importlib.import_module(f"fgda_cli.data.layouts.{kind}")
    if condition is not None and not hasattr(layout, "CONDITIONS"):
        raise UsageError(f"--condition {condition}: {layout.TITLE} has no conditions")
    listing = layout.find(root) if condition is None else layout.find(root, condition)
    facts = {"layout": kind, "version": getattr(layout, "VERSION", 1)}
    task = Task(
        name or kind, how.out / (name or kind), how.size or layout.SIZE, len(listing.classes), layout.read_label,
        how.check_only, how.cache, resample=how.resample, max_pixels=how.max_pixels, label_facts=facts,
    )  # fmt: skip
    return prepare(task, listing, how.reporter, how.workers)


def prepare_playground(root: Path, how: How, seed: int = 0) -> list[Summary]:
    """Draw both domains below root, then prepare them with the code that reads GTA5 and Cityscapes."""
    from dataclasses import replace

    from . import playground

    playground.write_raw(root, seed, how.reporter, how.workers)
    how = replace(how, size=how.size or PLAYGROUND_SIZE)
    return [
        prepare_layout("gta5", root / "game", how, "playground-game"),
        prepare_layout("cityscapes", root / "street", how, "playground-street"),
    ]


def prepare_folder(
    images: Path, labels: Path | None, mapping: Path | None, label_ids: LabelIds | None, split: str, name: str, how: How
) -> Summary:
    """The user's own images, with labels when there are any."""
    meaning = load_mapping(mapping, label_ids)
    listing = find_folder(images, labels, split, meaning.classes)
    meaning = decided(meaning, listing)
    task = Task(
        name, how.out / name, how.size, len(meaning.classes), meaning.read_label, how.check_only, how.cache,
        keep_other_splits=True, resample=how.resample, max_pixels=how.max_pixels, label_facts=meaning.facts(),
        mapped=frozenset(meaning.mapped()),
    )  # fmt: skip
    return prepare(task, listing, how.reporter, how.workers)


def layouts() -> dict[str, ModuleType]:
    """Every layout by its name."""
    return {name: importlib.import_module(f"fgda_cli.data.layouts.{name}") for name in layout_names()}
