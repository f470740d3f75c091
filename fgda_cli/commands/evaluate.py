"""fgda evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def evaluate(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path], typer.Argument(help="One checkpoint, or several to compare.", metavar="CKPT")
    ],
    data: Annotated[
        Optional[str],
        typer.Option(
            help="Data set name, or folder of a prepared one. Default: the preset's.",
            rich_help_panel="Data",
        ),
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(
            help="Split to evaluate. Default: the preset's; val with --data.",
            rich_help_panel="Data",
        ),
    ] = None,
    data_root: cli.DataRoot = None,
    protocol: Annotated[
        Optional[Literal["fgda", "paper"]],
        typer.Option(
            help="Rule; paper squeezes images to the input size by Pillow's bicubic.",
            rich_help_panel="Compute",
        ),
    ] = None,
    mean: Annotated[
        bool,
        typer.Option(
            "--mean",
            help="Average the checkpoints' class probabilities: one result.",
            rich_help_panel="Compute",
        ),
    ] = False,
    boundary: Annotated[
        bool,
        typer.Option(
            "--boundary",
            help="Also boundary IoU, 2 % of the diagonal wide.",
            rich_help_panel="Result",
        ),
    ] = False,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration", help="Also the expected calibration error.", rich_help_panel="Result"
        ),
    ] = False,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals",
            help=(
                "Also 95 % intervals over the images; with several checkpoints, of what changed"
                " from the first."
            ),
            rich_help_panel="Result",
        ),
    ] = False,
    flip: cli.Flip = False,
    scale: cli.Scale = None,
    sliding: cli.Sliding = None,
    overlap: cli.Overlap = 0.25,
    blend: cli.Blend = "taper",
    json: cli.Json = None,
    save_predictions: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR", help="Write predicted ids to this folder.", rich_help_panel="Result"
        ),
    ] = None,
    ids: cli.Ids = "train",
    report: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR",
            help="Write an HTML page with tables and pictures.",
            rich_help_panel="Result",
        ),
    ] = None,
    device: cli.Device = "auto",
    precision: cli.ComputedIn = None,
    workers: cli.Threads = None,
) -> None:
    """Print IoU by class and mIoU; compare several checkpoints side by side."""
    cli.check_checkpoints(checkpoints)
    if mean and len(checkpoints) < 2:
        raise UsageError("--mean needs two checkpoints or more")
    from ..data.store import data_root as root_of
    from ..inference.counts import Extras
    from ..studies.evaluation import RESAMPLES, EvaluationOptions, evaluate_all
    from ..visual.iou_tables import change_table, iou_table

    show = cli.reporter(context)
    how = cli.precision_for(precision, device, show)
    tta = cli.views(flip, scale, sliding, overlap=overlap, blend=blend)
    extras = Extras(
        boundary,
        calibration,
        RESAMPLES if intervals or (report is not None and len(checkpoints) > 1) else 0,
    )
    wanted = EvaluationOptions(
        data,
        split,
        root_of(data_root),
        precision=how,
        tta=tta,
        protocol=protocol,
        save_predictions=save_predictions,
        ids=ids,
        report=report,
        threads=workers,
        extras=extras,
        mean=mean,
    )
    names, results = evaluate_all(checkpoints, wanted, show)
    trees = [result.to_json() for result in results]
    if json is not None:
        cli.emit_json(trees[0] if len(trees) == 1 else trees, json, show)
    if json != "-":
        console = show.console(stderr=False)
        console.print(iou_table(names, trees))
        for name, result in zip(names, results, strict=True):
            if result.change is not None:
                console.print(change_table(f"{names[0]} → {name}, points of IoU", result.change))
