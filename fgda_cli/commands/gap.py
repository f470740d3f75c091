"""fgda gap"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def gap(
    context: typer.Context,
    source: Annotated[
        Optional[str],
        typer.Argument(help="Prepared data set with labels, by name or folder."),
    ] = None,
    target: Annotated[
        Optional[str], typer.Argument(help="Prepared data set of the target.")
    ] = None,
    preset: Annotated[
        Optional[str],
        typer.Option(
            "--preset",
            "-p",
            help="Preset whose domains are compared: only advice that it lacks is given.",
            rich_help_panel="Preset",
            autocompletion=cli.complete_presets,
        ),
    ] = None,
    model: Annotated[
        Optional[Path],
        typer.Option(
            metavar="CKPT",
            help=(
                "Model that predicts class shares. Default: the newest of the source, else a guess."
            ),
            rich_help_panel="Data",
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            min=4,
            help="Number of images of each data set to look at.",
            rich_help_panel="Compute",
        ),
    ] = 60,
    data_root: cli.DataRoot = None,
    report: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR",
            help="Write an HTML page with pictures of both data sets.",
            rich_help_panel="Result",
        ),
    ] = None,
    json: cli.Json = None,
    device: cli.Device = "auto",
) -> None:
    """Compare two data sets before training, and suggest settings."""
    if (preset is None) == (source is None) or (source is None) != (target is None):
        raise UsageError("name two data sets, or a preset that has both: gap --preset mine.yaml")
    settings = None if preset is None else cli.preset_from(preset).data
    from ..data.store import data_root as root_of
    from ..data.store import open_anywhere, open_domain
    from ..studies.gap import beyond, gap_json, measure, predicted_shares, trained_on
    from ..studies.gap_page import gap_page
    from ..studies.report import check_page, write_page
    from ..visual.tables import gap_table

    show = cli.reporter(context)
    root = root_of(data_root)
    check_page(report)
    if settings is None:
        sides = [open_anywhere(root, name) for name in (source, target)]
    else:
        domains = (settings.source, settings.target)
        sides = [open_domain(root, one.dataset, one.weights) for one in domains]
    if model is None and (model := trained_on(sides[0])) is not None:
        show.decide(
            f"class shares of {sides[1].name} are those that {model} predicts (--model names"
            " another)"
        )
    shares = (
        None
        if model is None
        else predicted_shares(model, *sides, frames, cli.precision_for(None, device, show))
    )
    measured = measure(*sides, frames, shares)
    if settings is not None:
        measured = beyond(measured, settings)
    if report is not None:
        write_page(report, gap_page(measured), show)
    result = gap_json(measured)
    if json is not None:
        cli.emit_json(result, json, show)
    if json != "-":
        show.console(stderr=False).print(gap_table(result))
