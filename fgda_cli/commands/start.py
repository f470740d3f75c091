"""fgda start"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def start(
    context: typer.Context,
    images: Annotated[
        Optional[Path], typer.Option(help="The simulator's images.", rich_help_panel="Data")
    ] = None,
    labels: Annotated[
        Optional[Path], typer.Option(help="Their label images.", rich_help_panel="Data")
    ] = None,
    footage: Annotated[
        Optional[Path],
        typer.Option(help="Real images, a video, or a folder of either.", rich_help_panel="Data"),
    ] = None,
    classes: Annotated[
        Optional[str],
        typer.Option(
            metavar="A,B,…",
            help="Classes to learn. Default: all that occur.",
            rich_help_panel="Data",
        ),
    ] = None,
    label_ids: Annotated[
        Optional[Literal["train", "label", "own"]],
        typer.Option(
            help="What grey labels hold, if unclear: Cityscapes' train or label ids, or own.",
            rich_help_panel="Data",
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=1,
            help="Time for training, by which the image size is chosen.",
            rich_help_panel="Compute",
        ),
    ] = 30,
    device: cli.Device = "auto",
    name: Annotated[
        str, typer.Option(help="Name of the preset and of the data sets.", rich_help_panel="Result")
    ] = "mine",
    out: Annotated[
        Path, typer.Option(help="Folder for the mapping and the preset.", rich_help_panel="Result")
    ] = Path("."),
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing.", rich_help_panel="Result")
    ] = False,
    json: cli.Json = None,
) -> None:
    """Look at a simulator and footage, write a mapping and a preset, and print the commands to
    run.
    """
    cli.plain_name(name)
    asks = not yes and sys.stdin.isatty()
    wanted = {
        "--images": (images, "Folder of the simulator's images"),
        "--labels": (labels, "Folder of their label images"),
        "--footage": (footage, "Folder of real images, or a video"),
    }
    missing = [option for option, (value, _) in wanted.items() if value is None]
    if missing and not asks:
        raise UsageError(
            f"start needs {' and '.join(missing)} (in a terminal, without --yes, it asks)"
        )
    images, labels, footage = (
        typer.prompt(what, value_proc=_existing) if value is None else value
        for value, what in wanted.values()
    )

    from ..data.survey import choose, rename
    from ..runtime.devices import pick_device
    from ..studies.start import check_place, look_at, write_start

    show = cli.reporter(context)
    check_place(name, out)
    # a device that is not there is refused before anything is read or written
    pick_device(device)
    source = look_at(images, "--images")
    target = look_at(footage, "--footage")
    meaning = _surveyed(images, labels, label_ids, asks=asks)
    show.say(
        f"{images}: {meaning.count} labelled images, most {source.size[0]}x{source.size[1]}; read"
        f" as {meaning.told_by}"
    )
    show.say(
        "classes: "
        + ", ".join(f"{key} {100 * share:.1f} %" for key, share in meaning.shares().items())
    )
    if asks:
        meaning = rename(
            meaning,
            {
                line.name: typer.prompt(
                    f"What is label value {line.key} ({100 * line.share:.1f} %)?", default=line.name
                )
                for line in meaning.unnamed
            },
        )
        classes = classes or typer.prompt(
            "Classes to learn, separated by commas", default=",".join(meaning.names)
        )
    chosen = [part.strip() for part in classes.split(",") if part.strip()] if classes else None
    meaning = choose(meaning, chosen)
    what = "videos" if target.is_video else "images"
    show.say(f"{footage}: {target.count} {what}, most {target.size[0]}x{target.size[1]}")
    show.say("measuring how fast this machine trains …")
    result = write_start(
        name,
        out,
        source,
        labels=labels,
        meaning=meaning,
        target=target,
        minutes=minutes,
        device=device,
    )
    if json is not None:
        cli.emit_json(result.to_json(), json, show)
    if json != "-":
        _print(result)


def _existing(text: str) -> Path:
    """Return an answer as a path; the question is asked again if nothing is there."""
    path = Path(text).expanduser()
    if not path.exists():
        raise typer.BadParameter(f"{path}: no such folder or video")
    return path


def _surveyed(images: Path, labels: Path, label_ids: str | None, asks: bool):
    """Ask what grey values are where they can be two things. Raises UsageError where nothing can be
    asked.
    """
    from ..data.formats import AmbiguousIds
    from ..data.survey import survey

    try:
        return survey(images, labels, label_ids)
    except AmbiguousIds as error:
        if not asks:
            raise UsageError(
                f"{error.what}: say which with\n--label-ids train, --label-ids label, or own for"
                " ids of your simulator"
            ) from None
        print(error.what, file=sys.stderr)
        return survey(
            images,
            labels,
            typer.prompt("train, label, or own (ids of your simulator)", default="own"),
        )


def _print(result) -> None:
    for note in result.notes:
        print(f"note: {note}")
    print(
        f"{result.mapping} and {result.preset} are written: read them, change what is wrong, then"
        " run\n"
    )
    for number, step in enumerate(result.steps, 1):
        took = "" if step.minutes is None else f" (about {max(1, round(step.minutes))} min)"
        print(f"# {number}. {step.what}{took}\n{step.command}\n")
