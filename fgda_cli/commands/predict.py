"""fgda predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli

KINDS = ("color", "ids", "overlay")


def predict(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Images, folders, globs, videos, camera:0, rtsp://…, - (standard input).",
        ),
    ],
    out: cli.OutFolder,
    beside: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--with",
            metavar="CKPT",
            help="Average over the class probabilities of this checkpoint too; repeatable.",
            rich_help_panel="Compute",
        ),
    ] = None,
    save: Annotated[
        str,
        typer.Option(
            help="Results to write: any of color,ids,overlay,video (one MP4 for each video).",
            rich_help_panel="Result",
        ),
    ] = "color,ids,overlay",
    video: Annotated[
        Literal["overlay", "color", "side"],
        typer.Option(
            help="Picture in the MP4; side: image, overlay and entropy.",
            rich_help_panel="Video",
        ),
    ] = "overlay",
    every: Annotated[
        int, typer.Option(min=1, help="Every N-th frame.", rich_help_panel="Video")
    ] = 1,
    start: Annotated[
        Optional[str],
        typer.Option(metavar="TIME", help="Start time: seconds, or 1:30.", rich_help_panel="Video"),
    ] = None,
    end: Annotated[
        Optional[str], typer.Option(metavar="TIME", help="End time.", rich_help_panel="Video")
    ] = None,
    stream: Annotated[
        Optional[int],
        typer.Option(
            min=0, help="Video stream of a file that has several, from 0.", rich_help_panel="Video"
        ),
    ] = None,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="Open a network stream again when it breaks.",
            rich_help_panel="Video",
        ),
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave out images whose results are there, by the same CKPT and options.",
            rich_help_panel="Result",
        ),
    ] = False,
    ids: cli.Ids = "train",
    recursive: cli.Recursive = False,
    label_maps: cli.LabelMaps = False,
    flip: cli.Flip = False,
    scale: cli.Scale = None,
    sliding: cli.Sliding = None,
    overlap: cli.Overlap = 0.25,
    blend: cli.Blend = "taper",
    device: cli.Device = "auto",
    precision: cli.ComputedIn = None,
    workers: cli.Threads = None,
    max_pixels: cli.MaxPixels = None,
) -> None:
    """Predict images and videos: label maps, ids and overlays at the images' own size."""
    kinds = tuple(part.strip() for part in save.split(",") if part.strip())
    unknown = [kind for kind in kinds if kind not in (*KINDS, "video")]
    if unknown or not kinds:
        raise UsageError(f"--save {save}: choose from {','.join(KINDS)},video")
    together = tuple(beside or ())
    cli.check_checkpoints([checkpoint, *together])
    from ..data.video import Clip, parse_time
    from ..inference.evaluate import networks_beside
    from ..inference.inputs import collect
    from ..inference.predict import Reading, fail_on_bad
    from ..inference.predict_files import Results, predict_files
    from ..models.checkpoint import load_model

    clip = Clip(
        every,
        parse_time(start, "--start") or 0.0,
        parse_time(end, "--end"),
        stream=stream,
        reconnect=reconnect,
    )
    if clip.end is not None and clip.end <= clip.start:
        raise UsageError(f"--end {end} is not after --start {start}")
    show = cli.reporter(context)
    images = collect(inputs, recursive, out, label_maps=label_maps, reporter=show)
    model, info = load_model(checkpoint, exported=True)
    how = cli.precision_for(precision, device, show, model=model)
    tta = cli.views(flip, scale, sliding, overlap=overlap, blend=blend)
    how.to_device(model)
    others = networks_beside(checkpoint, model, info, together, precision=how)
    counts = predict_files(
        model,
        info["classes"],
        [checkpoint, *together],
        inputs=images,
        results=Results(out, kinds, video, ids=ids, skip_existing=skip_existing),
        precision=how,
        tta=tta,
        reading=Reading(workers, max_pixels, clip),
        others=others,
        reporter=show,
    )
    print(
        f"{out}: {counts.done} predicted"
        + (f", {counts.bad} could not be read" if counts.bad else "")
    )
    if "color" in kinds or "overlay" in kinds:
        print(f"{_most(counts.pixels, info['classes'].names)}; colours: {out / 'legend.png'}")
    fail_on_bad(counts.bad, counts.given)


def _most(pixels: tuple[int, ...], names: tuple[str, ...]) -> str:
    """The classes that most pixels were given, with their shares."""
    total = max(sum(pixels), 1)
    order = sorted(range(len(pixels)), key=lambda k: -pixels[k])[:SHOWN]
    shares = ", ".join(f"{names[k]} {100 * pixels[k] / total:.0f} %" for k in order if pixels[k])
    return f"pixels: {shares or 'none'}"


# classes that a prediction's last line names
SHOWN = 5
