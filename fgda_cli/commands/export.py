"""fgda export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT")],
    out: Annotated[Path, typer.Option(help="The ONNX file.", rich_help_panel="Result")] = Path("model.onnx"),
    size: Annotated[
        Optional[str], typer.Option(metavar="WxH", help="Of the images. Default: the evaluation size.", rich_help_panel="Result")
    ] = None,
) -> None:
    """ONNX of the network, any batch size, checked against torch with onnxruntime."""
    from ..data.prepare import parse_size

    pixels = parse_size(size)
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out}: name it *.onnx")
    from ..inference.export import export_onnx

    found = export_onnx(checkpoint, out, pixels)
    width, height = found.size
    print(f"{out}: images [B,3,{height},{width}] RGB 0-255 float32 -> logits [B,{found.classes},{height},{width}]")
    print(f"onnxruntime differs from torch by {found.difference:.1e} at most (logits up to {found.largest:.1f})")
