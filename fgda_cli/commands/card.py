"""fgda card"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import _options as cli


def card(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    out: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder for card.md and card.json. Default: the run's.", rich_help_panel="Result"
        ),
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            help="Labelled data set of the figures. Default: the preset's.", rich_help_panel="Data"
        ),
    ] = None,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
) -> None:
    """Write a model card: data, settings, scores with intervals, calibration, verdict, licences."""
    from ..data.store import data_root as root_of
    from ..studies.model_card import write_card

    show = cli.reporter(context)
    out = out or cli.folder_of(checkpoint)
    write_card(
        checkpoint,
        out,
        root_of(data_root),
        data=data,
        precision=cli.precision_for(None, device, show),
        reporter=show,
    )
    print(f"{out}: card.md, card.json")
