"""fgda prepare"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli

OWN = "Own folders"


def complete_datasets() -> list[str]:
    from ..data.layouts import OWN, layout_names

    return [*layout_names(), "playground", *OWN]


def prepare(
    context: typer.Context,
    dataset: Annotated[
        Optional[str],
        typer.Argument(
            metavar="DATASET",
            help="gta5, cityscapes, … (--list), playground or folder.",
            autocompletion=complete_datasets,
        ),
    ] = None,
    root: Annotated[
        Optional[Path], typer.Option(help="Raw data set (playground: where to draw it).")
    ] = None,
    data_root: cli.DataRoot = None,
    size: Annotated[
        Optional[str],
        typer.Option(metavar="WxH", help="Training resolution. Default: the data set's."),
    ] = None,
    rows: Annotated[
        Optional[str],
        typer.Option(
            metavar="TOP:BOTTOM",
            help=(
                "Keep only these rows of each image, in percent of its height, to match another"
                " camera."
            ),
        ),
    ] = None,
    cut: Annotated[
        bool,
        typer.Option(
            "--cut",
            help=(
                "Cut training images of another shape to that of --size, instead of squeezing them."
            ),
        ),
    ] = False,
    cache: Annotated[
        Literal["raw", "png"],
        typer.Option(help="raw: BMP, read fastest; png: a half to a third of the disk space."),
    ] = "raw",
    resample: Annotated[
        Literal["area", "bicubic"],
        typer.Option(help="Filter that shrinks images; bicubic: as in the published loaders."),
    ] = "area",
    workers: cli.Workers = None,
    max_pixels: cli.MaxPixels = None,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Check only: write nothing, list refused files.")
    ] = False,
    images: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder of images; folder: also a video, or a folder of videos.",
            rich_help_panel=OWN,
        ),
    ] = None,
    every: Annotated[
        Optional[str],
        typer.Option(
            metavar="STEP",
            help="folder: frames of a video to take, 2s or 30 (frames). Default: 1s.",
            rich_help_panel=OWN,
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],
        typer.Option(help="Labels paired by name; coco: annotations.json.", rich_help_panel=OWN),
    ] = None,
    mapping: Annotated[
        Optional[Path],
        typer.Option(
            help=(
                "YAML of raw ids, colours or names to class names, or a shipped one, e.g. camvid7,"
                " street10."
            ),
            rich_help_panel=OWN,
        ),
    ] = None,
    label_ids: Annotated[
        Optional[Literal["train", "label"]],
        typer.Option(help="folder: Cityscapes' train ids or label ids.", rich_help_panel=OWN),
    ] = None,
    carla_version: Annotated[
        Optional[Literal["old", "new"]],
        typer.Option(help="carla: numbering of the ids; old: to 0.9.13.", rich_help_panel=OWN),
    ] = None,
    image_suffix: Annotated[
        Optional[str],
        typer.Option(
            metavar="END", help="Ending of image names, e.g. _rgb.png.", rich_help_panel=OWN
        ),
    ] = None,
    label_suffix: Annotated[
        Optional[str],
        typer.Option(
            metavar="END", help="Ending of label names, e.g. _seg.png.", rich_help_panel=OWN
        ),
    ] = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="PATTERN",
            help="Take only files whose path below their folder fits; repeatable.",
            rich_help_panel=OWN,
        ),
    ] = None,
    label_maps: cli.LabelMaps = False,
    condition: Annotated[
        Optional[str], typer.Option(help="acdc: fog, night, rain or snow alone.")
    ] = None,
    list_: Annotated[
        bool,
        typer.Option("--list", help="List data sets that can be prepared, and those that are."),
    ] = False,
    split: Annotated[
        Literal["train", "val"],
        typer.Option(help="Split that the files make.", rich_help_panel=OWN),
    ] = "train",
    hold_out: Annotated[
        int,
        typer.Option(
            min=0,
            max=99,
            metavar="PERCENT",
            help="Own files: make the last by name the split val, as a validation set.",
            rich_help_panel=OWN,
        ),
    ] = 0,
    name: Annotated[
        Optional[str], typer.Option(help="Name of the prepared data set.", rich_help_panel=OWN)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="playground: seed of the scenes.")] = 0,
    json: cli.Json = None,
) -> None:
    """Check a raw data set, convert its labels and cache it at training resolution."""
    from ..data import prepare as preparing
    from ..data.geometry import parse_rows, parse_size
    from ..data.layouts import OWN as OWN_FORMATS
    from ..data.layouts import all_layouts
    from ..data.layouts.base import OwnFiles
    from ..data.store import data_root as root_of
    from ..data.store import prepared_below

    if list_:
        from ..visual.tables import layouts_list, prepared_list

        print(layouts_list(all_layouts()))
        print(prepared_list(root_of(data_root), prepared_below(root_of(data_root))))
        return
    known = complete_datasets()
    if dataset is None:
        raise UsageError(f"prepare which data set? known are {', '.join(known)} (--list says more)")
    if dataset not in known:
        raise UsageError(f"prepare {dataset}: known are {', '.join(known)}")
    if hold_out and (split == "val" or dataset not in OWN_FORMATS):
        what = "--split val" if split == "val" else f"{dataset}, which has splits of its own"
        raise UsageError(
            f"--hold-out makes a split val of one's own files: it does not go with {what}"
        )
    if cut and size is None:
        raise UsageError("--cut needs --size, whose shape images are cut to")
    show = cli.reporter(context)
    how = preparing.How(
        root_of(data_root),
        parse_size(size),
        preparing.default_workers(workers),
        reporter=show,
        check_only=check_only,
        cache=cache,
        resample=resample,
        max_pixels=max_pixels,
        rows=parse_rows(rows),
        cut=cut,
        hold_out=hold_out,
    )
    files = OwnFiles(
        images,
        labels,
        root,
        mapping=mapping,
        label_ids=label_ids,
        carla_version=carla_version,
        image_suffix=image_suffix,
        label_suffix=label_suffix,
        only=tuple(only or ()),
        split=split,
        every=every,
        label_maps=label_maps,
    )
    if dataset in OWN_FORMATS:
        summaries = [_own(preparing, dataset, files, name=name, how=how)]
    elif root is None:
        raise UsageError(f"prepare {dataset} needs --root DIR")
    elif dataset == "playground":
        preparing.refuse_options(files, dataset, frozenset({"root"}))
        if check_only:
            raise UsageError(
                "prepare playground draws its own files: there is nothing to check with"
                " --check-only"
            )
        summaries = preparing.prepare_playground(root, how, seed)
    else:
        preparing.refuse_options(files, dataset, frozenset({"root", "mapping"}))
        summaries = [
            preparing.prepare_layout(
                dataset,
                root,
                how,
                name=name and cli.plain_name(name),
                condition=condition,
                mapping=mapping,
            )
        ]
    if json is not None:
        cli.emit_json({"datasets": [summary.to_json() for summary in summaries]}, json, show)
    if json != "-":
        _show(summaries, check_only, show)


def _show(summaries, check_only: bool, show) -> None:
    from ..visual.tables import prepared_table

    for summary in summaries:
        counts = ", ".join(f"{number} {part}" for part, number in summary.images.items())
        refused = (
            f", {summary.refused} refused (see {summary.folder / 'problems.json'})"
            if summary.refused
            else ""
        )
        print(
            f"{summary.folder}: {counts}{refused}"
            if not check_only
            else f"{summary.folder.name}: {counts} are fine"
        )
        if summary.labelled or summary.reasons:
            show.console(stderr=False).print(prepared_table(summary))
        for warning in summary.warnings:
            show.warn(f"{summary.folder.name}: {warning}")


def _own(preparing, kind, files, name, how):
    if kind == "folder" and files.images is None:
        files = replace(files, images=files.root)
    named_by = files.root if kind == "voc" else files.images
    chosen = cli.plain_name(name or (named_by.resolve().name if named_by is not None else kind))
    return preparing.prepare_own(kind, files, chosen, how=how)
