"""Everything a resumed run needs to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..methods.base import Method
from ..runtime.devices import Precision


@dataclass
class TrainState:
    """Networks, optimisers and counters of a run; samples need no state (see data/loader.py)."""

    method: Method
    optimizers: dict[str, torch.optim.Optimizer]
    precision: Precision
    iteration: int = 0
    validated: int = 0  # iteration of the last validation
    best: float | None = None
    base_lrs: dict[str, list[float]] = field(init=False)  # before any decay

    def __post_init__(self):
        self.base_lrs = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}

    def set_schedule(self, total: int, power: float) -> None:
        """Poly decay, computed from the iteration alone: lr (1 - it/max)^power."""
        factor = max(0.0, 1 - self.iteration / total) ** power
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self.base_lrs[name], strict=True):
                group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "validated": self.validated,
            "best": self.best,
            "precision": self.precision.name,
            "scaler": self.precision.scaler.state_dict() if self.precision.scaler else None,
            "model": self.method.model.state_dict(),
            "modules": {name: module.state_dict() for name, module in self.method.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": torch.random.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration, self.validated, self.best = state["iteration"], state["validated"], state["best"]
        self.method.model.load_state_dict(state["model"])
        for name, module in self.method.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.precision.scaler and state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        torch.random.set_rng_state(state["random"])
