"""The state that a resumed run needs to continue as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..methods.base import Method
from ..methods.optimizers import Scheduled
from ..models.checkpoint import frozen_hash
from ..models.tuning import frozen_ids, load_trained, plain_state, trained_state
from ..models.weights import non_finite
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError


@dataclass
class TrainState:
    """Networks, optimisers and counters of a run; samples need no state (see data/loader.py)."""

    method: Method
    scheduled: dict[str, Scheduled]
    precision: Precision
    iteration: int = 0
    # iteration of the last validation
    validated: int = 0
    best: float | None = None
    # validations since the best
    stale: int = 0
    # signals of the network that the run began as (training/validation.py)
    before: dict | None = None
    # iteration and mIoU of each validation on the source
    curve: list[tuple[int, float]] = field(default_factory=list)
    # mean of the weights so far; None before averaging begins
    averaged: dict[str, Tensor] | None = None
    # iterations that the mean is of
    averages: int = 0
    # the last iteration that a time limit leaves time for. None: not limited, or not known yet
    planned: int | None = None
    # seconds of a time limit that earlier commands took
    spent: float = 0.0
    # the start's weights until its signals are observed; not saved
    began: dict[str, Tensor] | None = None
    # number of frames for the signals, if a time limit reduced it
    frames: int | None = None
    base_lrs: dict[str, list[float]] = field(init=False)  # before any decay

    def __post_init__(self):
        self.base_lrs = {
            name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()
        }

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {name: scheduled.optimizer for name, scheduled in self.scheduled.items()}

    def set_rates(self, length: int, pace: float = 1.0) -> None:
        """Set the learning rates of all optimisers from the iteration alone; `length` is the
        schedule's.

        Where a time limit leaves room for fewer iterations, the whole schedule, its warm-up too,
        runs at this `pace`.
        """
        position = self.iteration if pace == 1 else self.iteration * pace
        for name, (optimizer, schedule) in self.scheduled.items():
            factor = schedule(position, length)
            for group, base in zip(optimizer.param_groups, self.base_lrs[name], strict=True):
                group["lr"] = base * factor

    def average_weights(self) -> None:
        """Take the present weights into the running mean; whole numbers (counters) are copied."""
        weights = {
            name: value.detach()
            for name, value in self.method.inference_state_dict().items()
            if name not in self.method.model.frozen
        }
        self.averages += 1
        if self.averaged is None:
            self.averaged = {name: value.clone() for name, value in weights.items()}
            return
        for name, value in weights.items():
            mean = self.averaged[name]
            mean.lerp_(value, 1 / self.averages) if mean.is_floating_point() else mean.copy_(value)

    def inference_state_dict(self) -> dict[str, Tensor]:
        """Return the weights that are validated and shipped: the method's, or their mean once
        averaging has begun; low-rank updates are multiplied into their matrices.
        """
        return plain_state(self.method.model, self._raw())

    def _raw(self) -> dict[str, Tensor]:
        weights = self.method.inference_state_dict()
        return weights if self.averaged is None else weights | self.averaged

    def adapters(self) -> dict[str, Tensor]:
        """Return what is trained of these weights, as it is trained; empty where that is all."""
        frozen = self.method.model.frozen
        if not frozen:
            return {}
        return {name: value.detach() for name, value in self._raw().items() if name not in frozen}

    @cached_property
    def frozen_hash(self) -> str | None:
        """The hash of what is not trained, and so never changes; None where all is trained."""
        return frozen_hash(self.method.model)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [
            p
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for p in group["params"]
        ]

    def clear_gradients(self) -> None:
        """Set gradients to zero, or free them, before a step."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=not self.method.keeps_gradients)

    def with_gradients(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers whose parameters have gradients."""
        return [
            o
            for o in self.optimizers.values()
            if any(p.grad is not None for group in o.param_groups for p in group["params"])
        ]

    def clip_gradients(self, longest: float) -> None:
        """Scale the segmentation network's gradient down to this length; discriminators keep
        theirs.
        """
        optimizer = self.optimizers["segmentation"]
        scaler = self.precision.scaler
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if scaler and any(p.grad is not None for p in parameters):
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, longest)

    def gradient_norm(self) -> Tensor:
        """Return the sum of all gradients' norms, a tensor on the device that is finite where they
        are.
        """
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        if not grads:
            return torch.zeros((), device=self.precision.device)
        return torch.stack([norm.float() for norm in torch._foreach_norm(grads)]).sum()

    def broken_weights(self) -> list[str]:
        """Return names of weights and buffers that hold a NaN or an infinity."""
        modules = {"model": self.method.model, **self.method.modules}
        return [
            f"{name}.{key}"
            for name, module in modules.items()
            for key in non_finite(module.state_dict())
        ]

    def go_on_longer(self) -> list[str]:
        """Make a finished or limited run ready to go beyond its end; returns what to say of it.

        Patience begins anew, the length is planned anew, and a mean of the last iterations is
        forgotten: those iterations are no longer the last.
        """
        said = []
        if self.averaged is not None:
            said.append(
                f"the mean of the last {self.averages} iterations' weights is forgotten: averaging"
                " begins anew"
            )
        self.averaged = None
        self.averages = 0
        self.stale = 0
        self.planned = None
        return said

    def state_dict(self) -> dict[str, Any]:
        frozen = frozen_ids(self.method.model)
        return {
            "iteration": self.iteration,
            "validated": self.validated,
            "best": self.best,
            "stale": self.stale,
            "before": self.before,
            "curve": self.curve,
            "averaged": self.averaged,
            "averages": self.averages,
            "planned": self.planned,
            "spent": self.spent,
            "frames": self.frames,
            "precision": self.precision.name,
            "scaler": self.precision.scaler.state_dict() if self.precision.scaler else None,
            "frozen": self.frozen_hash,
            "model": trained_state(self.method.model, frozen),
            "modules": {
                name: trained_state(module, frozen) for name, module in self.method.modules.items()
            },
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.optimizers.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises FgdaError for one that an earlier fgda wrote."""
        if "modules" not in state:
            raise FgdaError(
                "the run was begun by an earlier fgda and cannot be resumed: use --fresh to start"
                " over"
            )
        self.iteration = state["iteration"]
        self.validated = state["validated"]
        self.best = state["best"]
        self.stale = state.get("stale", 0)
        self.before = state.get("before")
        self.curve = [(int(iteration), float(value)) for iteration, value in state.get("curve", [])]
        self.planned = state.get("planned")
        self.spent = state.get("spent", 0.0)
        self.frames = state.get("frames")
        self.averages = state.get("averages", 0)
        averaged = state.get("averaged")
        self.averaged = averaged and {
            name: value.to(self.precision.device) for name, value in averaged.items()
        }
        if state.get("frozen") != self.frozen_hash:
            raise FgdaError(
                "the run keeps what it trains alone, and the encoder's own weights are others now:"
                " put the former ones back (model.weights, --init), or use --fresh to start over"
            )
        frozen = frozen_ids(self.method.model)
        load_trained(self.method.model, state["model"], frozen)
        for name, module in self.method.modules.items():
            load_trained(module, state["modules"][name], frozen)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.precision.scaler and state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
