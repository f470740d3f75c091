"""fgda evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .. import cli
from ..errors import UsageError


def evaluate(
    context: typer.Context,
    checkpoints: Annotated[list[Path], typer.Argument(help="One checkpoint, or several to compare.", metavar="CKPT...")],
    data: Annotated[
        Optional[str],
        typer.Option(help="Data set name, or folder of a prepared one. Default: the preset's.", rich_help_panel="Data"),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split.", rich_help_panel="Data")] = "val",
    data_root: cli.DataRoot = None,
    flip: Annotated[bool, typer.Option("--flip", help="Also average over the mirrored image.")] = False,
    scale: Annotated[Optional[list[float]], typer.Option(help="Average over these scales; repeatable.", min=0.1, max=4)] = None,
    json: cli.Json = None,
    save_predictions: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Write predicted train ids here.", rich_help_panel="Result")
    ] = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Threads = 2,
    seed: cli.AnySeed = None,
) -> None:
    """IoU per class and mIoU; several checkpoints are compared side by side."""
    for path in checkpoints:
        if not path.exists():
            raise UsageError(f"no such checkpoint: {path}")
    from ..data.files import write_image
    from ..data.store import PreparedDataset, open_dataset
    from ..data.store import data_root as root_of
    from ..engine.checkpoint import load
    from ..engine.evaluate import Views, evaluate_file, headings
    from ..visual.tables import iou_table
    from ..world import join

    show = cli.reporter(context)
    how, tta = cli.precision_for(precision, device), Views(flip, tuple(scale or (1.0,)))
    results = []
    for path in checkpoints:
        name = data or load(path)["preset"]["data"]["evaluation"]["dataset"]
        dataset = (
            PreparedDataset(Path(name)) if (Path(name) / "manifest.json").is_file() else open_dataset(root_of(data_root), name)
        )
        folder = None if save_predictions is None else save_predictions / (path.stem if len(checkpoints) > 1 else "")
        save = None if folder is None else lambda item, ids, folder=folder: write_image(folder / f"{item.name}.png", ids)
        results.append(evaluate_file(path, dataset, split, how, show, tta, save, workers, join(how.device)))
    if json is not None:
        cli.emit_json(results[0] if len(results) == 1 else results, json)
    if json != "-":
        show.console(stderr=False).print(iou_table(headings(checkpoints), results))
