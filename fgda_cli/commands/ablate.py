"""fgda ablate"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import cli
from ..errors import UsageError


def ablate(
    context: typer.Context,
    preset: cli.PresetName = "playground",
    sets: cli.SetValues = None,
    methods: Annotated[str, typer.Option(help="table3, all, or names with commas.", rich_help_panel="Preset")] = "table3",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.", rich_help_panel="Compute")] = "0,1,2",
    out: cli.Out = None,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Workers = None,
    json: cli.Json = None,
) -> None:
    """The paper's Table 3 on a preset: every method, several seeds, resumable by cell."""
    from ..methods.registry import method_names

    settings = cli.preset_from(preset, sets, None, precision, workers)
    table3 = ["source-only", "adaptsegnet", "fada", "fgda"]
    named = {"table3": table3, "all": [*table3, *(name for name in method_names() if name not in table3)]}
    chosen = named.get(methods) or [name.strip() for name in methods.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in method_names()]
    if unknown or not chosen:
        raise UsageError(f"--methods {methods}: known are table3, all, {', '.join(method_names())}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {seeds}: whole numbers with commas, e.g. 0,1,2") from None
    from ..data.store import data_root as root_of
    from ..engine import ablate as engine
    from ..engine.stages import Job
    from ..visual.tables import ablation_table

    show = cli.reporter(context)
    job = Job(settings, root_of(data_root), out, device, False, show)
    extra = {"run.precision": precision, "run.workers": workers}
    overrides = [*(sets or []), *(f"{key}={value}" for key, value in extra.items() if value is not None)]
    summary = engine.run_ablation(job, preset, overrides, chosen, numbers)
    if json is not None:
        cli.emit_json(summary, json)
    if json != "-":
        show.console(stderr=False).print(ablation_table(summary))
