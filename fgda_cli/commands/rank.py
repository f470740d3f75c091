"""fgda rank"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def rank(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Images, folders, globs or videos.")
    ],
    top: Annotated[
        int, typer.Option(min=1, help="How many frames.", rich_help_panel="Result")
    ] = 50,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder for the results. Name it.", rich_help_panel="Result"),
    ] = None,
    export: Annotated[
        Optional[str],
        typer.Option(help="Write pre-labels: any of cvat,coco,png.", rich_help_panel="Result"),
    ] = None,
    labelled: Annotated[
        Optional[Path],
        typer.Option(
            help="File with names of labelled frames: one a line, or a ranking.json.",
            rich_help_panel="Data",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Every N-th frame of videos.", rich_help_panel="Data")
    ] = 1,
    recursive: cli.Recursive = False,
    label_maps: cli.LabelMaps = False,
    json: cli.Json = None,
    device: cli.Device = "auto",
    precision: cli.ComputedIn = None,
    workers: cli.Threads = None,
    max_pixels: cli.MaxPixels = None,
) -> None:
    """Choose the frames to label next: unsure, with rare classes, unlike each other; write
    pre-labels.
    """
    kinds = tuple(dict.fromkeys(part.strip() for part in (export or "").split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in ("cvat", "coco", "png")]
    if unknown:
        raise UsageError(f"--export {export}: choose from cvat,coco,png")
    from ..data.video import Clip
    from ..inference.inputs import collect
    from ..inference.predict import Reading, fail_on_bad
    from ..models.checkpoint import load_model
    from ..studies.rank import plan_ranking, run_rank
    from ..visual.tables import ranking_table

    show = cli.reporter(context)
    if out is None:
        out = Path("ranking")
        show.warn("the results go to ranking/: from the next version on, --out must be named")
    images = collect(inputs, recursive, out, label_maps=label_maps, reporter=show)
    if any(item.stream is not None for item in images):
        raise UsageError(
            "rank reads the chosen frames a second time: name files, not a camera, a stream or"
            " standard input"
        )
    ranking = plan_ranking(out, top, kinds, labelled)
    model, info = load_model(checkpoint)
    how = cli.precision_for(precision, device, show, model=model)
    how.to_device(model)
    result, bad = run_rank(
        model,
        checkpoint,
        info["classes"],
        inputs=images,
        ranking=ranking,
        precision=how,
        reading=Reading(workers, max_pixels, Clip(every)),
        reporter=show,
    )
    if json is not None:
        cli.emit_json(result, json, show)
    if json != "-":
        show.console(stderr=False).print(ranking_table(result))
        print(
            f"{out}: ranking.json, contact.png, look.html{''.join(f', {kind}/' for kind in kinds)}"
        )
        if "cvat" in kinds:
            show.say(
                f"CVAT: make a task of {out / 'cvat/JPEGImages'} with the labels of labelmap.txt,"
                " upload annotations.zip as Segmentation mask 1.1, correct it, export it in the"
                f" same format and unpack that over {out / 'cvat'}"
            )
    fail_on_bad(bad, len(images))
