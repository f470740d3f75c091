"""fgda evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def evaluate(
    context: typer.Context,
    checkpoints: Annotated[list[Path], typer.Argument(help="One checkpoint, or several to compare.", metavar="CKPT...")],
    data: Annotated[
        Optional[str],
        typer.Option(help="Data set name, or folder of a prepared one. Default: the preset's.", rich_help_panel="Data"),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split.", rich_help_panel="Data")] = "val",
    data_root: cli.DataRoot = None,
    flip: cli.Flip = False,
    scale: cli.Scale = None,
    json: cli.Json = None,
    save_predictions: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Write predicted ids here.", rich_help_panel="Result")
    ] = None,
    ids: cli.Ids = "train",
    report: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Write an HTML page with tables and pictures.", rich_help_panel="Result")
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
    cli.check_ids(ids)
    from ..data.store import PreparedDataset, open_dataset
    from ..data.store import data_root as root_of
    from ..inference.evaluate import evaluate_file, headings
    from ..inference.outputs import Ids, SavedIds
    from ..models.checkpoint import load
    from ..runtime.distributed import join
    from ..studies.report import ImageScores, evaluation_page, write_page
    from ..visual.tables import iou_table

    show = cli.reporter(context)
    how, tta = cli.precision_for(precision, device), cli.views(flip, scale)
    process_group, names, results = join(how.device), headings(checkpoints), []
    for path, heading in zip(checkpoints, names, strict=True):
        name = data or load(path)["preset"]["data"]["evaluation"]["dataset"]
        dataset = (
            PreparedDataset(Path(name)) if (Path(name) / "manifest.json").is_file() else open_dataset(root_of(data_root), name)
        )
        below = heading.strip("./").replace("/", "_") if len(checkpoints) > 1 else ""
        scores, save = ImageScores(), save_predictions and SavedIds(save_predictions / below, Ids(ids, dataset.classes))

        def keep(item, train_ids, counts, scores=scores, save=save):
            scores(item, train_ids, counts)
            if save:
                save(item, train_ids)

        results.append(evaluate_file(path, dataset, split, how, show, tta, keep, workers, process_group))
        if report is None:
            continue
        all_scores = {name: score for part in process_group.gather(scores.scores, how.device) for name, score in part.items()}
        if process_group.is_first:
            page = write_page(report / below / "index.html", evaluation_page(results[-1], all_scores, dataset, how, tta))
            show.say(f"report: {page}")
    if json is not None:
        cli.emit_json(results[0] if len(results) == 1 else results, json)
    if json != "-":
        show.console(stderr=False).print(iou_table(names, results))
