"""Optimisers with their schedules, as `Method.optimizers` returns them. The trainer steps them and
sets their rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..runtime.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.segmenter import Segmenter
    from ..settings import Optim, Stage

# (iteration, length of the schedule) -> factor of every group's rate
Schedule = Callable[[int, int], float]
# devices where one kernel steps all parameters, without waiting for the host with loss scaling
# either
FUSED = ("cuda",)


class Scheduled(NamedTuple):
    """An optimiser and the schedule of its learning rates."""

    optimizer: torch.optim.Optimizer
    schedule: Schedule


class Recipe(NamedTuple):
    """Settings of optimisation, and the stage that runs."""

    optim: Optim
    stage: Stage

    @property
    def lr(self) -> float:
        return self.stage.lr or self.optim.lr

    @property
    def schedule(self) -> Schedule:
        times_decay = self.optim.warmup == "times_decay"
        return poly(self.optim.poly_power, self.stage.warmup_iterations, times_decay)

    def make(self, groups: list[dict], model: Segmenter) -> torch.optim.Optimizer:
        """Return the optimiser of the segmentation network's groups. Raises UsageError for an
        encoder without layers to count.
        """
        optim = self.optim
        groups = refine(groups, model, optim)
        if optim.kind == "adamw":
            return adamw(groups, betas=optim.betas, weight_decay=optim.weight_decay)
        return sgd(groups, momentum=optim.momentum, weight_decay=optim.weight_decay)


def sgd(parameters: Iterable, **settings: Any) -> torch.optim.Optimizer:
    """Return torch's fastest SGD for the parameters' device."""
    return _made("SGD", parameters, settings)


def adam(parameters: Iterable, **settings: Any) -> torch.optim.Optimizer:
    return _made("Adam", parameters, settings)


def adamw(parameters: Iterable, **settings: Any) -> torch.optim.Optimizer:
    return _made("AdamW", parameters, settings)


def _made(name: str, parameters: Iterable, settings: dict) -> torch.optim.Optimizer:
    import torch

    groups = list(parameters)
    flat = [
        p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])
    ]
    fused = bool(flat) and all(p.device.type in FUSED and p.is_floating_point() for p in flat)
    return getattr(torch.optim, name)(groups, **settings, **({"fused": True} if fused else {}))


def refine(groups: list[dict], model: Segmenter, optim: Optim) -> list[dict]:
    """Return the groups, split by weight decay and by the depth of their layer where the settings
    ask for it.
    """
    without = {True: (), False: norms(model)}.get(optim.decay_norms, norms(model.backbone))
    free = {id(p) for layer in without for p in layer.parameters(recurse=False)}
    factors = _layer_factors(model, optim.layer_decay) if optim.layer_decay < 1 else {}
    if not free and not factors:
        return groups
    refined: dict[tuple, dict] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            factor = factors.get(id(parameter), 1.0)
            is_free = id(parameter) in free
            like = {key: value for key, value in group.items() if key != "params"} | {
                "params": [],
                "lr": group["lr"] * factor,
            }
            if is_free:
                like["weight_decay"] = 0.0
            refined.setdefault((number, factor, is_free), like)["params"].append(parameter)
    return list(refined.values())


def norms(model: nn.Module) -> list[nn.Module]:
    """Return a module's normalisation layers, found by the name of their class."""
    return [layer for layer in model.modules() if "Norm" in type(layer).__name__]


def _layer_factors(model: Segmenter, decay: float) -> dict[int, float]:
    """Return decay^(layers above) for each encoder parameter; the encoder's layers count from its
    first, the heads come last.

    Parts of the encoder that learn with the heads are not in it.
    """
    depths = model.backbone.layer_depths() if hasattr(model.backbone, "layer_depths") else None
    if depths is None:
        raise UsageError(
            "optim.layer_decay: this encoder has no transformer blocks to count: set it to 1"
        )
    last = max(depths.values()) + 1
    new = {id(p) for p in model.new_in_encoder()}
    own = [(name, p) for name, p in model.backbone.named_parameters() if id(p) not in new]
    return {id(p): decay ** (last - depths.get(name, last - 1)) for name, p in own}


def poly(power: float, warmup: int = 0, times_decay: bool = False) -> Schedule:
    """Return the schedule (1 - it/max)^power after a linear warm-up: from 0, as in the public codes
    of the paper's time, or (`times_decay`) from a millionth and times the decay, as in
    mmsegmentation.
    """

    def factor(iteration: int, length: int) -> float:
        decay = max(0.0, 1 - iteration / length) ** power
        if iteration >= warmup:
            return decay
        return (
            decay * (1 - (1 - iteration / warmup) * (1 - 1e-6))
            if times_decay
            else iteration / warmup
        )

    return factor


def constant_then_linear(constant_share: float = 0.5) -> Schedule:
    """Return a schedule that is 1 and then falls linearly to 0 (CycleGAN)."""

    def factor(iteration: int, length: int) -> float:
        start = constant_share * length
        return 1.0 if iteration < start else max(0.0, (length - iteration) / max(length - start, 1))

    return factor
