"""fgda predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .. import cli
from ..errors import UsageError

KINDS = ("color", "ids", "overlay")


def predict(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs or videos.")],
    out: cli.OutFolder,
    save: Annotated[str, typer.Option(help="Any of color,ids,overlay.", rich_help_panel="Result")] = "color,ids,overlay",
    ids: Annotated[str, typer.Option(help="Ids written: train, or Cityscapes label ids.", rich_help_panel="Result")] = "train",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Enter folders of folders.")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Also average over the mirrored image.")] = False,
    scale: Annotated[Optional[list[float]], typer.Option(help="Average over these scales; repeatable.", min=0.1, max=4)] = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Threads = 2,
    seed: cli.AnySeed = None,
) -> None:
    """Label maps, ids and overlays of any images, at their own size."""
    kinds = tuple(part.strip() for part in save.split(",") if part.strip())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"--save {save}: choose from {','.join(KINDS)}")
    if ids not in ("train", "label"):
        raise UsageError(f"--ids {ids}: known are train and label")
    from ..engine import predict as engine
    from ..engine.checkpoint import load_model
    from ..engine.evaluate import Views
    from ..engine.outputs import Pictures
    from ..world import join

    show, found = cli.reporter(context), engine.collect(inputs, recursive)
    how, tta = cli.precision_for(precision, device), Views(flip, tuple(scale or (1.0,)))
    model, info = load_model(checkpoint)
    if ids == "label" and not info["classes"].is_cityscapes:
        raise UsageError("--ids label needs a model of the Cityscapes classes")
    how.place(model)
    world, write = join(how.device), Pictures(out, info["classes"], kinds, ids)
    if world.is_first:
        write.write_legend()
    counts = engine.predict_inputs(model, found, how, show, write, tta, workers, world, with_entropy=False)
    print(f"{out}: {counts.done} predicted" + (f", {counts.bad} could not be read" if counts.bad else ""))
    engine.fail_on_bad(counts.bad, len(found))
