"""The optimisers and schedules of a stage."""

from __future__ import annotations

from ..methods.base import Method
from ..methods.optimizers import Recipe, Scheduled, poly
from ..settings import Preset, Stage


def make_optimizers(method: Method, preset: Preset, stage: Stage) -> dict[str, Scheduled]:
    """What the method makes of the preset's rates."""
    return method.optimizers(recipe_of(preset, stage))


def recipe_of(preset: Preset, stage: Stage) -> Recipe:
    """What a preset says of optimisation in a stage."""
    optim = preset.optim
    schedule = poly(optim.poly_power, stage.warmup_iterations, optim.warmup == "times_decay")
    return Recipe(
        stage.lr or optim.lr, optim.head_lr_factor, optim.momentum, optim.weight_decay, schedule,
        optim.kind, optim.betas, optim.decay_norms, optim.layer_decay,
    )  # fmt: skip
