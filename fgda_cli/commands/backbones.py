"""fgda backbones"""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from . import _options as cli


def backbones(
    context: typer.Context,
    pattern: Annotated[
        Optional[str],
        typer.Argument(help="Part of a name, or a pattern: efficientnet, 'vit*dinov2*'."),
    ] = None,
    json: cli.Json = None,
) -> None:
    """List encoders: parameters, strides, source and licence of their weights."""
    from ..studies.backbones import describe_all
    from ..visual.tables import backbone_table

    show = cli.reporter(context)
    rows, left_out = describe_all(pattern)
    if json is not None:
        cli.emit_json({"backbones": rows, "left_out": left_out}, json, show)
    if json != "-":
        show.console(stderr=False).print(backbone_table(rows))
        if left_out:
            print(f"{left_out} more: name them more closely, e.g. fgda backbones convnext_tiny")
