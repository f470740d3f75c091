"""fgda report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of pretrain or adapt.")],
    out: Annotated[
        Optional[Path],
        typer.Option(help="The page. Default: RUN/report.html.", rich_help_panel="Result"),
    ] = None,
) -> None:
    """Write the training curves of a run, finished or not, as one HTML page."""
    if not run.is_dir():
        raise UsageError(f"no such run folder: {run}")
    from ..runtime.files import write_text
    from ..studies.report import run_page

    place = out or run / "report.html"
    write_text(place, run_page(run))
    print(place)
