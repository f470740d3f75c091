"""fgda adapt"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import _options as cli


def adapt(
    context: typer.Context,
    preset: cli.PresetName = None,
    sets: cli.SetValues = None,
    method: cli.MethodName = None,
    init: Annotated[
        Optional[Path],
        typer.Option(
            help="Checkpoint to start from. Default: the preset's newest pretrain.",
            rich_help_panel="Data",
        ),
    ] = None,
    out: cli.Out = None,
    init_model: Annotated[
        bool,
        typer.Option(
            "--init-model",
            help="Take the model settings from that checkpoint.",
            rich_help_panel="Data",
        ),
    ] = False,
    budget: Annotated[
        Optional[str],
        typer.Option(
            metavar="TIME",
            help=(
                "Plan the training for this time in all (30m, 2h); end with the best checkpoint by"
                " label-free signals."
            ),
            rich_help_panel="Result",
        ),
    ] = None,
    fresh: cli.Fresh = False,
    extend: cli.Extend = False,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Workers = None,
    seed: cli.Seed = None,
) -> None:
    """Adapt a pretrained model to the unlabelled target; the same command resumes a stopped run."""
    from ..presets import within_budget

    within = [] if budget is None else within_budget(budget)
    settings = cli.preset_from(
        preset,
        [*(sets or []), *within],
        seed=seed,
        precision=precision,
        workers=workers,
        method=method,
    )
    from ..training import stages

    job = cli.job_of(
        context,
        settings,
        data_root,
        out=out,
        device=device,
        fresh=fresh,
        extend=extend,
        init_model=init_model,
    )
    print(stages.adapt(job, init))
