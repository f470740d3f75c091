"""The commands as functions, for programs and notebooks. They return what the commands print, and
raise FgdaError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Sets = Mapping[str, Any] | Sequence[str]


def pretrain(
    preset: str = "playground",
    *,
    sets: Sets = (),
    seed: int | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Train on the labelled source alone; returns the path of final.pth. A stopped run is resumed.

    `preset` is a name or a YAML file, `sets` overrides its keys: `{"optim.lr": 1e-4}` or
    `["optim.lr=1e-4"]`. Raises UsageError for a key or value that there is not, FgdaError for work
    that failed.
    """
    from .training import stages

    return stages.pretrain(
        _job(
            preset,
            _with(sets, seed),
            None,
            data_root=data_root,
            out=out,
            device=device,
            fresh=fresh,
            quiet=quiet,
        )
    )


def adapt(
    preset: str = "playground",
    *,
    method: str | None = None,
    init: str | Path | None = None,
    budget: str | None = None,
    sets: Sets = (),
    seed: int | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Adapt a trained model (`init`, else the preset's newest pretrain) to the unlabelled target;
    returns the path of final.pth.

    As `pretrain` otherwise; `budget` is a time, "30m", for which training is planned.
    What signals without labels say of the result: `load_model(path)[1]["verdict"]`.
    """
    from .training import stages

    return stages.adapt(
        _job(
            preset,
            _with(sets, seed, budget),
            method,
            data_root=data_root,
            out=out,
            device=device,
            fresh=fresh,
            quiet=quiet,
        ),
        Path(init) if init is not None else None,
    )


def evaluate(
    checkpoint: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    data_root: str | Path | None = None,
    boundary: bool = False,
    calibration: bool = False,
    intervals: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Return IoU in percent by class and their means on a labelled split: the JSON of `fgda
    evaluate`.

    Data set and split are those of the checkpoint's preset, unless given.
    """
    from .data.store import data_root as root_of
    from .inference.counts import Extras
    from .runtime.devices import make_precision, pick_device
    from .runtime.reporter import Reporter
    from .studies.evaluation import RESAMPLES, EvaluationOptions, evaluate_all

    extras = Extras(boundary, calibration, RESAMPLES if intervals else 0)
    root = root_of(None if data_root is None else Path(data_root))
    wanted = EvaluationOptions(
        data, split, root, precision=make_precision("fp32", pick_device(device)), extras=extras
    )
    _, (result,) = evaluate_all([Path(checkpoint)], wanted, Reporter(quiet=quiet))
    return result.to_json()


def _job(
    preset: str,
    sets: list[str],
    method: str | None,
    data_root: Any,
    out: Any,
    device: str,
    fresh: bool,
    quiet: bool,
):
    from .data.store import data_root as root_of
    from .presets import load_preset
    from .runtime.reporter import Reporter
    from .training.stages import Job

    root = root_of(None if data_root is None else Path(data_root))
    reporter = Reporter(quiet=quiet, decisions=[])
    settings = load_preset(preset, sets, method)
    return Job(
        settings,
        root,
        None if out is None else Path(out),
        device=device,
        fresh=fresh,
        reporter=reporter,
    )


def _with(sets: Sets, seed: int | None, budget: str | None = None) -> list[str]:
    """Return the overrides as `--set` writes them, those of the short arguments last."""
    from .presets import within_budget

    overrides = (
        [f"{key}={_text(value)}" for key, value in sets.items()]
        if isinstance(sets, Mapping)
        else list(sets)
    )
    short = [] if seed is None else [f"run.seed={seed}"]
    return [*overrides, *short, *([] if budget is None else within_budget(budget))]


def _text(value: Any) -> str:
    """Return a value as `--set` would write it: YAML on one line."""
    import json

    return value if isinstance(value, str) else json.dumps(value)
