"""Optimisers with their schedules: what `Method.optimizers` returns. The engine steps them and sets their rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

Schedule = Callable[[int, int], float]  # (iteration, length of the schedule) -> factor of every group's rate


class Scheduled(NamedTuple):
    """An optimiser, and how its rates follow the iteration."""

    optimizer: torch.optim.Optimizer
    schedule: Schedule


class Recipe(NamedTuple):
    """What the preset says of optimisation in the stage that runs."""

    lr: float
    head_lr_factor: float
    momentum: float
    weight_decay: float
    schedule: Schedule


def poly(power: float, warmup: int = 0) -> Schedule:
    """(1 - it/max)^power, after a linear warm-up from 0 over the first iterations, as the public codes decay."""

    def factor(iteration: int, length: int) -> float:
        if iteration < warmup:
            return iteration / warmup
        return max(0.0, 1 - iteration / length) ** power

    return factor


def constant_then_linear(constant_share: float = 0.5) -> Schedule:
    """1, then straight down to 0 (CycleGAN's networks)."""

    def factor(iteration: int, length: int) -> float:
        start = constant_share * length
        return 1.0 if iteration < start else max(0.0, (length - iteration) / max(length - start, 1))

    return factor
