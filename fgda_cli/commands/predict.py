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
    from ..data.classes import CITYSCAPES_IDS
    from ..data.files import write_image
    from ..engine import predict as engine
    from ..engine.checkpoint import load_model
    from ..engine.evaluate import Views
    from ..visual.colour import colourise, legend, overlay
    from ..world import join

    show, found = cli.reporter(context), engine.collect(inputs, recursive)
    how, tta = cli.precision_for(precision, device), Views(flip, tuple(scale or (1.0,)))
    model, info = load_model(checkpoint)
    classes = info["classes"]
    if ids == "label" and not classes.is_cityscapes:
        raise UsageError("--ids label needs a model of the Cityscapes classes")
    how.place(model)
    write_image(out / "legend.png", legend(classes))
    pictures = {
        "color": lambda image, train_ids: colourise(train_ids, classes),
        "overlay": lambda image, train_ids: overlay(image, train_ids, classes),
        "ids": lambda image, train_ids: to_ids(train_ids, ids, CITYSCAPES_IDS),
    }

    def write(item, image, result) -> None:
        for kind in kinds:
            write_image(out / f"{item.name}_{kind}.png", pictures[kind](image, result["train_ids"]))

    counts = engine.predict_inputs(model, found, how, show, write, tta, workers, join(how.device))
    print(f"{out}: {counts.done} predicted" + (f", {counts.bad} could not be read" if counts.bad else ""))
    engine.fail_on_bad(counts.bad, len(found))


def to_ids(train_ids, kind: str, label_ids):
    """Train ids as they are, or as Cityscapes label ids."""
    import numpy as np

    return train_ids if kind == "train" else np.array(label_ids, np.uint8)[train_ids]
