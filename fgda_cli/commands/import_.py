"""fgda import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runtime.errors import UsageError


def import_(
    file: Annotated[Path, typer.Argument(help="A published checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where ours goes.", rich_help_panel="Result")],
    format: Annotated[str, typer.Option(help="auto, fada, advent or adaptsegnet.")] = "auto",
) -> None:
    """Turn a checkpoint of FADA, ADVENT or AdaptSegNet into one of ours."""
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    if format not in ("auto", "fada", "advent", "adaptsegnet"):
        raise UsageError(f"--format {format}: known are auto, fada, advent, adaptsegnet")
    from ..models import checkpoint, foreign

    content = foreign.convert(file, format)
    checkpoint.save(out, content)
    print(f"{out}: {content['method']}, {content['preset']['model']['backbone']}, {len(content['classes']['names'])} classes")
