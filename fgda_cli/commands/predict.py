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
    from ..data.video import Clip, library, parse_time
    from ..inference.evaluate import networks_beside
    from ..inference.inputs import collect
    from ..inference.outputs import Ids, Pictures, Videos, hash_of_options, remaining
    from ..inference.predict import Reading, fail_on_bad, predict_inputs
    from ..models.checkpoint import load_model
    from ..runtime.distributed import join
    from ..runtime.written import Written, planned

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
    stills = tuple(kind for kind in kinds if kind != "video")
    process_group = join(how.device)
    if "video" in kinds:
        library("--save video")
        check_videos(images, out, stills)
    made_by = hash_of_options([checkpoint, *together], tta, ids, how)
    if skip_existing:
        left, otherwise = remaining(images, stills, Written(out), made_by)
        show.decide(f"{len(images) - len(left)} images have results already")
        if otherwise:
            show.decide(
                f"{otherwise} have results of another checkpoint, of other options or of an image"
                " that has changed: they are predicted again"
            )
        images = left
    names = Pictures.names(images, stills)
    if "video" in kinds:
        names += [f"{item.name}.mp4" for item in images if item.is_video]
    written = planned(out, names, process_group)
    pictures = Pictures(
        out,
        info["classes"],
        stills,
        ids=Ids(ids, info["classes"]),
        written=written,
        made_by=made_by,
    )
    if "ids" in kinds and pictures.ids.note():
        show.decide(pictures.ids.note())
    write = Videos(pictures, video) if "video" in kinds else pictures
    if process_group.is_first:
        pictures.write_legend()
    reading = Reading(workers, max_pixels, clip)
    with_entropy = "video" in kinds and video == "side"
    counts = predict_inputs(
        model,
        images,
        how,
        reporter=show,
        write=write,
        tta=tta,
        reading=reading,
        process_group=process_group,
        with_entropy=with_entropy,
        others=others,
    )
    print(
        f"{out}: {counts.done} predicted"
        + (f", {counts.bad} could not be read" if counts.bad else "")
    )
    if "color" in kinds or "overlay" in kinds:
        print(f"{_most(counts.pixels, info['classes'].names)}; colours: {out / 'legend.png'}")
    fail_on_bad(counts.bad, len(images))


def _most(pixels: tuple[int, ...], names: tuple[str, ...]) -> str:
    """The classes that most pixels were given, with their shares."""
    total = max(sum(pixels), 1)
    order = sorted(range(len(pixels)), key=lambda k: -pixels[k])[:SHOWN]
    shares = ", ".join(f"{names[k]} {100 * pixels[k] / total:.0f} %" for k in order if pixels[k])
    return f"pixels: {shares or 'none'}"


# classes that a prediction's last line names
SHOWN = 5


def check_videos(inputs, out: Path, stills) -> None:
    """Check `--save video`. Raises UsageError when no input is a video, or when an output would
    overwrite one.
    """
    videos = [item for item in inputs if item.is_video]
    if not videos and not stills:
        raise UsageError("--save video: none of the inputs is a video")
    for item in videos:
        if item.stream is None and (out / f"{item.name}.mp4").resolve() == item.path.resolve():
            raise UsageError(f"--out {out}: the result would overwrite the input {item.path}")
