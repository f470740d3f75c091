"""fgda predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runtime.errors import UsageError
from . import _options as cli

KINDS = ("color", "ids", "overlay")


def predict(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs or videos.")],
    out: cli.OutFolder,
    save: Annotated[str, typer.Option(help="Any of color,ids,overlay.", rich_help_panel="Result")] = "color,ids,overlay",
    ids: cli.Ids = "train",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Enter folders of folders.")] = False,
    flip: cli.Flip = False,
    scale: cli.Scale = None,
    sliding: cli.Sliding = None,
    overlap: cli.Overlap = 0.25,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Threads = 2,
    max_pixels: cli.MaxPixels = None,
) -> None:
    """Label maps, ids and overlays of any images, at their own size."""
    kinds = tuple(part.strip() for part in save.split(",") if part.strip())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"--save {save}: choose from {','.join(KINDS)}")
    cli.check_ids(ids)
    from ..inference.inputs import collect
    from ..inference.outputs import Ids, Pictures
    from ..inference.predict import fail_on_bad, predict_inputs
    from ..models.checkpoint import load_model
    from ..runtime.distributed import join

    show, found = cli.reporter(context), collect(inputs, recursive, out)
    model, info = load_model(checkpoint)
    how, tta = cli.precision_for(precision, device, show, model), cli.views(flip, scale, sliding, overlap)
    how.to_device(model)
    process_group, write = join(how.device), Pictures(out, info["classes"], kinds, Ids(ids, info["classes"]))
    if process_group.is_first:
        write.write_legend()
    counts = predict_inputs(
        model, found, how, show, write, tta, workers, process_group, with_entropy=False, max_pixels=max_pixels
    )
    print(f"{out}: {counts.done} predicted" + (f", {counts.bad} could not be read" if counts.bad else ""))
    fail_on_bad(counts.bad, len(found))
