"""fgda compare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def compare(
    context: typer.Context,
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT", help="One column each.")],
    images: Annotated[
        list[str],
        typer.Option(
            help="Images, folders, globs, videos, or a prepared data set; repeatable.",
            rich_help_panel="Data",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="A PNG; or an HTML page (.html) to look around in, offline.",
            rich_help_panel="Result",
        ),
    ],
    frames: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            max=200,
            help="Images shown at most, evenly spread. Default: 4, in a page 50.",
            rich_help_panel="Result",
        ),
    ] = None,
    label_maps: cli.LabelMaps = False,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.ComputedIn = None,
    workers: cli.Threads = None,
) -> None:
    """Draw a sheet as the paper's Fig. 3, 6, 7 (image, truth, predictions, entropy), or make a page
    to look around in.
    """
    from ..data.images import write_image
    from ..data.store import data_root as root_of
    from ..inference.evaluate import headings
    from ..runtime.files import write_text
    from ..runtime.written import own_files
    from ..studies.compare import comparison, gather, networks_of, predicted
    from ..studies.look import MOST_CHECKPOINTS, look_page

    cli.check_checkpoints(checkpoints)
    show = cli.reporter(context)
    is_page = out.suffix.lower() in (".html", ".htm")
    if not is_page and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: name it *.png for a sheet, or *.html for a page")
    if any(Path(text).is_file() and Path(text).resolve() == out.resolve() for text in images):
        raise UsageError(f"--out {out} is one of the images: choose another name")
    if is_page and len(checkpoints) > MOST_CHECKPOINTS:
        raise UsageError(
            f"a page shows up to {MOST_CHECKPOINTS} checkpoints, not {len(checkpoints)}"
        )
    how = cli.precision_for(precision, device, show)
    with own_files(out):
        most = frames or (50 if is_page else 4)
        scenes = gather(
            images,
            root_of(data_root),
            most,
            threads=workers,
            label_maps=label_maps,
            reporter=show,
        )
        if is_page:
            models, own, classes = networks_of(checkpoints, scenes, how)
            shown = show.track(predicted(scenes, models, how), "looking", len(scenes))
            write_text(out, look_page(shown, headings(checkpoints), own, classes=classes))
        else:
            write_image(out, comparison(scenes, checkpoints, headings(checkpoints), precision=how))
    print(f"{out}: {len(scenes)} images, {len(checkpoints)} checkpoints")
