"""fgda predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .. import cli
from ..errors import FgdaError, UsageError

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
    from ..data.classes import CITYSCAPES_IDS
    from ..data.files import BadFile, write_png
    from ..engine import predict as engine
    from ..engine.checkpoint import load_model
    from ..engine.evaluate import Views
    from ..visual.colour import colourise, legend, overlay

    show, found = cli.reporter(context), engine.collect(inputs, recursive)
    how, tta = cli.precision_for(precision, device), Views(flip, tuple(scale or (1.0,)))
    model, info = load_model(checkpoint)
    classes = info["classes"]
    if ids == "label" and not classes.is_cityscapes:
        raise UsageError("--ids label needs a model of the Cityscapes classes")
    how.place(model)
    write_png(out / "legend.png", legend(classes))
    bad = 0
    for item, image in show.track(engine.read_inputs(found, workers), "predict", len(found)):
        if isinstance(image, BadFile):
            show.warn(f"{item.path}: {image}")
            bad += 1
            continue
        train_ids = engine.predict(model, image, how, tta)["train_ids"]
        pictures = {
            "color": lambda t=train_ids: colourise(t, classes),
            "overlay": lambda i=image, t=train_ids: overlay(i, t, classes),
            "ids": lambda t=train_ids: to_ids(t, ids, CITYSCAPES_IDS),
        }
        for kind in kinds:
            write_png(out / f"{item.name}_{kind}.png", pictures[kind]())
    print(f"{out}: {len(found) - bad} predicted" + (f", {bad} could not be read" if bad else ""))
    if bad:
        raise FgdaError(f"{bad} of {len(found)} inputs could not be read (see the warnings above)")


def to_ids(train_ids, kind: str, label_ids):
    """Train ids as they are, or as Cityscapes label ids."""
    import numpy as np

    return train_ids if kind == "train" else np.array(label_ids, np.uint8)[train_ids]
