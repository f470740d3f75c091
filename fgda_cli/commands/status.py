"""fgda status"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as cli


def status(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"),
    json: cli.Json = None,
) -> None:
    """List the runs below a folder: how far each is, and the command that goes on."""
    from ..studies.status import runs_below
    from ..visual.tables import status_table

    show = cli.reporter(context)
    rows = [run.to_json() for run in runs_below(folder)]
    if json is not None:
        cli.emit_json({"runs": rows}, json, show)
    if json == "-":
        return
    if not rows:
        print(f"{folder}: no run")
        return
    show.console(stderr=False).print(status_table(rows, folder))
    for run in rows:
        if run["goes_on"]:
            print(f"{run['state']}: {run['goes_on']}")
