"""fgda prepare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def complete_datasets() -> list[str]:
    from ..data.layouts import layout_names

    return [*layout_names(), "playground", "folder"]


def prepare(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(help="gta5, synthia, cityscapes, playground or folder.", autocompletion=complete_datasets)
    ],
    root: Annotated[Optional[Path], typer.Option(help="Raw data set (playground: where to draw it).")] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Prepared data sets go to OUT/<dataset>. Default: $FGDA_DATA or ./data.")
    ] = None,
    size: Annotated[Optional[str], typer.Option(metavar="WxH", help="Training resolution. Default: the data set's.")] = None,
    cache: Annotated[str, typer.Option(help="raw (BMP: read fastest) or png (a half to a third of the disk space).")] = "raw",
    workers: cli.Workers = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Verify only; write nothing, list what is refused.")] = False,
    images: Annotated[Optional[Path], typer.Option(help="folder: images.", rich_help_panel="Own folders")] = None,
    labels: Annotated[Optional[Path], typer.Option(help="folder: labels, paired by name.", rich_help_panel="Own folders")] = None,
    mapping: Annotated[
        Optional[Path], typer.Option(help="folder: YAML of raw ids or colours to class names.", rich_help_panel="Own folders")
    ] = None,
    split: Annotated[str, typer.Option(help="folder: train or val.", rich_help_panel="Own folders")] = "train",
    name: Annotated[Optional[str], typer.Option(help="folder: name of the data set.", rich_help_panel="Own folders")] = None,
    seed: Annotated[int, typer.Option(min=0, help="playground: seed of the scenes.")] = 0,
) -> None:
    """Check a raw data set, convert its labels and cache it at training resolution."""
    from ..data import recipes
    from ..data.prepare import CACHE_SUFFIX, parse_size
    from ..data.store import data_root

    if cache not in CACHE_SUFFIX:
        raise UsageError(f"--cache {cache}: known are {' and '.join(CACHE_SUFFIX)}")
    known = complete_datasets()
    if dataset not in known:
        raise UsageError(f"prepare {dataset}: known are {', '.join(known)}")
    target, pixels, show = data_root(out), parse_size(size), cli.reporter(context)
    count = recipes.default_workers(workers)
    if dataset == "folder":
        summaries = [
            _folder(recipes, images or root, labels, mapping, split, name, target, pixels, show, count, check_only, cache)
        ]
    elif root is None:
        raise UsageError(f"prepare {dataset} needs --root DIR")
    elif dataset == "playground":
        if check_only:
            raise UsageError("prepare playground draws its own files: there is nothing to check with --check-only")
        summaries = recipes.prepare_playground(root, target, pixels, show, count, seed, cache)
    else:
        summaries = [recipes.prepare_layout(dataset, root, target, pixels, show, count, check_only=check_only, cache=cache)]
    for summary in summaries:
        counts = ", ".join(f"{number} {part}" for part, number in summary.images.items())
        refused = f", {summary.refused} refused (see {summary.folder / 'problems.json'})" if summary.refused else ""
        print(f"{summary.folder}: {counts}{refused}" if not check_only else f"{summary.folder.name}: {counts} are fine")


def _folder(recipes, images, labels, mapping, split, name, target, pixels, show, count, check_only, cache):
    if images is None:
        raise UsageError("prepare folder needs --images DIR")
    if split not in ("train", "val"):
        raise UsageError(f"--split {split}: known are train and val")
    chosen = name or images.resolve().name
    if Path(chosen).name != chosen or chosen in (".", ".."):
        raise UsageError(f"--name {chosen}: a plain name, without folders")
    return recipes.prepare_folder(images, labels, mapping, split, target, chosen, pixels, show, count, check_only, cache)
