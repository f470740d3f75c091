"""fgda import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from ..runtime.errors import UsageError
from . import _options as cli

Format = Literal[
    "auto",
    "fada",
    "advent",
    "adaptsegnet",
    "clan",
    "crst",
    "dise",
    "fda",
    "dacs",
    "pycda",
    "sac",
    "daformer",
    "hrda",
    "dlv2",
    "refign",
    "vfmuda",
    "vfmuda-teacher",
]


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A published checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where ours goes.", rich_help_panel="Result")],
    format: Annotated[
        Format,
        typer.Option(
            metavar="FORMAT",
            help=f"Code that wrote the file: {', '.join(get_args(Format))} (by its contents).",
        ),
    ] = "auto",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run code in the file, if it asks to: for your own files alone."
        ),
    ] = False,
) -> None:
    """Convert a checkpoint of FADA, ADVENT, AdaptSegNet, CLAN, CRST, SAC, DISE, FDA, DACS, PyCDA,
    DAFormer, HRDA, MIC, SePiCo, PiPa, DDB, Refign or VFM-UDA(++).
    """
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    from ..models import checkpoint
    from ..runtime.written import own_files
    from ..studies.zoo import import_checkpoint

    with own_files(out):
        content = import_checkpoint(file, format, cli.reporter(context), trust=trust)
        checkpoint.save(out, content)
    print(
        f"{out}: {content['method']}, {content['preset']['model']['backbone']},"
        f" {len(content['classes']['names'])} classes"
    )
