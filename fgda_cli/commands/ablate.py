"""fgda ablate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..runtime.errors import UsageError
from . import _options as cli


def ablate(
    context: typer.Context,
    preset: cli.PresetName = None,
    sets: cli.SetValues = None,
    methods: Annotated[
        str,
        typer.Option(
            help=(
                "table1, table2, table3, all, or names with commas; with settings of their own:"
                " mic,mic+lambda_fd=0; "
                "source-only+ trains on as long as adaptation, oracle on the target's labels."
            ),
            rich_help_panel="Preset",
        ),
    ] = "table3",
    seeds: Annotated[
        str, typer.Option(help="Seeds, with commas.", rich_help_panel="Compute")
    ] = "0,1,2",
    labelled: Annotated[
        Optional[str],
        typer.Option(
            help="Numbers of labelled target images, with commas (all is one): one row for each.",
            rich_help_panel="Preset",
        ),
    ] = None,
    select: Annotated[
        Optional[Literal["labels", "label-free"]],
        typer.Option(
            help="Score that ranks the rows. Default: the preset's.", rich_help_panel="Preset"
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder for all cells. Default: runs/PRESET/ablation.", rich_help_panel="Result"
        ),
    ] = None,
    data_root: cli.DataRoot = None,
    device: cli.Device = "auto",
    precision: cli.PrecisionName = None,
    workers: cli.Workers = None,
    json: cli.Json = None,
) -> None:
    """Train and compare methods over several seeds, as the paper's tables; resumable by cell."""
    from ..methods.registry import method_names
    from ..studies.ablate import CONTINUED, ORACLE
    from ..studies.published import TABLES

    sets = [*(sets or []), *([] if select is None else [f"run.select={select}"])]
    counts = [part.strip() for part in (labelled or "0").split(",") if part.strip()]
    if not counts or not all(
        part.isdigit() or part == "all" or Path(part).is_file() for part in counts
    ):
        raise UsageError(
            f"--labelled {labelled}: numbers with commas, all, or files that list images, e.g."
            " 0,5,20,all"
        )
    settings = cli.preset_from(preset, sets, precision=precision, workers=workers)
    first = TABLES["table3"]
    named = {name: list(table) for name, table in TABLES.items()}
    named["all"] = [*first, *(name for name in method_names() if name not in first)]
    chosen = named.get(methods) or [name.strip() for name in methods.split(",") if name.strip()]
    names = {*method_names(), ORACLE}
    if not chosen or any(name.partition("+")[0] not in names for name in chosen):
        known = ", ".join((*named, *method_names(), CONTINUED, ORACLE))
        raise UsageError(f"--methods {methods}: known are {known}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {seeds}: whole numbers with commas, e.g. 0,1,2") from None
    from ..studies.ablate import Row, run_ablation
    from ..visual.tables import ablation_table

    job = cli.job_of(context, settings, data_root, out=out, device=device)
    rows = [Row.parse(text).with_labels(count) for text in chosen for count in counts]
    summary = run_ablation(
        job,
        preset,
        cli.overrides(sets, None, precision, workers=workers),
        rows=list(dict.fromkeys(rows)),
        seeds=numbers,
    )
    if json is not None:
        cli.emit_json(summary, json, job.reporter)
    if json != "-":
        job.reporter.console(stderr=False).print(ablation_table(summary))
