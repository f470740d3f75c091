"""fgda pretrain"""

from __future__ import annotations

import typer

from . import _options as cli


def pretrain(
    context: typer.Context,
    preset: cli.PresetName = None,
    sets: cli.SetValues = None,
    out: cli.Out = None,
    fresh: cli.Fresh = False,
    extend: cli.Extend = False,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Workers = None,
    seed: cli.Seed = None,
) -> None:
    """Train on the labelled source alone; the same command resumes a stopped run."""
    settings = cli.preset_from(preset, sets, seed=seed, precision=precision, workers=workers)
    from ..training import stages

    job = cli.job_of(
        context, settings, data_root, out=out, device=device, fresh=fresh, extend=extend
    )
    print(stages.pretrain(job))
