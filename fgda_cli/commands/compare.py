"""fgda compare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as cli


def compare(
    context: typer.Context,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="One column each.")],
    inputs: Annotated[list[str], typer.Option(help="Images, folders, globs, or a prepared data set; repeatable.")],
    out: Annotated[Path, typer.Option(help="The PNG.", rich_help_panel="Result")],
    most: Annotated[int, typer.Option(min=1, max=50, help="Images shown at most.", rich_help_panel="Result")] = 4,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Threads = None,
) -> None:
    """Draw a sheet as the paper's Fig. 3, 6, 7: image, truth, and for each checkpoint prediction and entropy."""
    from ..data.images import write_image
    from ..data.store import data_root as root_of
    from ..inference.evaluate import headings
    from ..studies.compare import comparison, gather

    how = cli.precision_for(precision, device, cli.reporter(context))
    scenes = gather(inputs, root_of(data_root), most, workers)
    write_image(out, comparison(scenes, checkpoints, headings(checkpoints), how))
    print(f"{out}: {len(scenes)} images, {len(checkpoints)} checkpoints")
