"""fgda demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as cli


def demo(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demo writes.", rich_help_panel="Result")
    ] = Path("runs/demo"),
    preset: cli.PresetName = "demo",
    sets: cli.SetValues = None,
    fresh: cli.Fresh = False,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Workers = None,
    seed: cli.Seed = None,
    json: cli.Json = None,
) -> None:
    """Run the whole path on embedded data: prepare, pretrain, adapt, evaluate, compare."""
    settings = cli.preset_from(preset, sets, seed=seed, precision=precision, workers=workers)
    from ..studies.demo import run_demo
    from ..visual.iou_tables import iou_table

    show = cli.reporter(context)
    summary = run_demo(settings, out, device, fresh=fresh, reporter=show, workers=workers)
    if json is not None:
        cli.emit_json(summary, json, show)
    if json != "-":
        show.console(stderr=False).print(
            iou_table(["source only", "adapted"], [summary["source_only"], summary["adapted"]])
        )
        print(
            f"gain {summary['gain']:+.1f} mIoU in {summary['seconds'] / 60:.1f} minutes; see"
            f" {out / 'comparison.png'}"
        )
