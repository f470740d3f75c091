"""fgda verdict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def verdict(
    context: typer.Context,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT", help="Adapted checkpoints.")],
    images: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="DIR",
            help="Target images, folders or globs; repeatable.",
            rich_help_panel="Data",
        ),
    ] = None,
    label_maps: cli.LabelMaps = False,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="Prepared data set of target frames. Default: the preset's.",
            rich_help_panel="Data",
        ),
    ] = None,
    baseline: Annotated[
        Optional[Path],
        typer.Option(
            help="Model before adaptation. Default: the checkpoint that each run started from.",
            rich_help_panel="Data",
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            min=4, help="Number of frames to look at, evenly spaced.", rich_help_panel="Compute"
        ),
    ] = 40,
    data_root: cli.DataRoot = None,
    report: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR",
            help="Write an HTML page with frames before and after.",
            rich_help_panel="Result",
        ),
    ] = None,
    json: cli.Json = None,
    device: cli.Device = "auto",
    precision: cli.ComputedIn = None,
    max_pixels: cli.MaxPixels = None,
) -> None:
    """Say without labels whether adaptation helped, and which classes it hurt."""
    if images and data:
        raise UsageError("--images and --data: one of them")
    cli.check_checkpoints([*checkpoints, *([] if baseline is None else [baseline])])
    from ..data.store import data_root as root_of
    from ..inference.evaluate import headings
    from ..studies.report import check_page, write_page
    from ..studies.verdict import VerdictOptions, run_verdict, scenes_of, verdict_page
    from ..visual.tables import verdict_lines, verdict_table

    show = cli.reporter(context)
    check_page(report)
    how = cli.precision_for(precision, device, show)
    wanted = VerdictOptions(
        root_of(data_root),
        tuple(images or ()),
        data,
        baseline=baseline,
        frames=frames,
        max_pixels=max_pixels,
        label_maps=label_maps,
    )
    study = run_verdict(checkpoints, headings(checkpoints), wanted, precision=how, reporter=show)
    if report is not None:
        write_page(report, verdict_page(study, scenes_of(study, how, show)), show)
    results = [one.to_json() for one in study.checkpoints]
    if json is not None:
        cli.emit_json({"frames": study.what, "checkpoints": results}, json, show)
    if json != "-":
        console = show.console(stderr=False)
        console.print(
            verdict_table(study.what, [one.heading for one in study.checkpoints], results)
        )
        for line in verdict_lines([one.heading for one in study.checkpoints], results):
            console.print(line)
