"""fgda entropy-map"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as cli


def entropy_map(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Images, folders, globs or videos.")
    ],
    out: cli.OutFolder,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Also float32 [H,W] arrays (.npy).", rich_help_panel="Result"),
    ] = False,
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
    """Draw heat maps of the prediction's entropy (eq. 4), which show where the model is unsure."""
    from ..inference.inputs import collect
    from ..inference.outputs import EntropyMaps
    from ..inference.predict import Reading, fail_on_bad, predict_inputs
    from ..models.checkpoint import load_model
    from ..runtime.distributed import join
    from ..runtime.files import write_json
    from ..runtime.written import planned

    show = cli.reporter(context)
    images = collect(inputs, recursive, out, label_maps=label_maps, reporter=show)
    model, _ = load_model(checkpoint, exported=True)
    how = cli.precision_for(precision, device, show, model=model)
    tta = cli.views(flip, scale, sliding, overlap=overlap, blend=blend)
    how.to_device(model)
    process_group = join(how.device)
    names = EntropyMaps.names([item.name for item in images if not item.is_video], raw)
    write = EntropyMaps(out, planned(out, [*names, "entropy.json"], process_group), raw)
    counts = predict_inputs(
        model,
        images,
        how,
        reporter=show,
        write=write,
        tta=tta,
        reading=Reading(workers, max_pixels),
        process_group=process_group,
        label="entropy-map",
    )
    means = dict(
        sorted(pair for part in process_group.gather(write.means) for pair in part.items())
    )
    if process_group.is_first:
        write_json(out / "entropy.json", means)
        write.written.done("entropy.json")
    average = f", mean entropy {sum(means.values()) / len(means):.3f}" if means else ""
    print(f"{out}: {len(means)} maps{average}")
    fail_on_bad(counts.bad, counts.given)
