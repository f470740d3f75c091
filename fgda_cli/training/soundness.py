"""Checks that end a run at once: losses, gradients or weights that are NaN or infinite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..runtime.errors import FgdaError
from ..runtime.transfer import Readings
from .state import TrainState


@dataclass
class Soundness:
    """Checks of a run whose resumable checkpoint is `last`; on a GPU, losses are read one iteration
    late.
    """

    last: Path
    # pretrain or adapt, whose learning rate the message names
    stage: str
    readings: Readings = field(default_factory=Readings)
    # the latest one that was read, as shown beside the progress
    loss: str = ""

    def take(self, iteration: int, norm: Tensor, terms: dict[str, Tensor]) -> None:
        """Check an iteration's gradient norm and loss terms (scalars). Raises FgdaError."""
        self._check(self.readings.put((iteration, tuple(terms)), [norm, *terms.values()]))

    def check_weights(self, state: TrainState) -> None:
        """Check the losses that are not read yet, and all weights. Raises FgdaError."""
        self._check(self.readings.rest())
        broken = state.broken_weights()
        if broken:
            self._give_up(
                f"{len(broken)} tensors hold NaN or infinity at iteration {state.iteration}, e.g."
                f" {broken[0]}"
            )

    def _check(self, reading: tuple[Any, list[float]] | None) -> None:
        if reading is None:
            return
        (iteration, names), (norm, *values) = reading
        bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if bad or not math.isfinite(norm):
            what = f"loss '{bad[0]}' is" if bad else "gradients are"
            self._give_up(f"{what} not finite at iteration {iteration}")
        terms = dict(zip(names, values, strict=True))
        self.loss = f"loss {terms.get('seg', values[0]):.3f}"

    def _give_up(self, what: str) -> None:
        """Raise FgdaError: nothing of this iteration is kept, the last good checkpoint stays, and
        the way to go on is named.
        """
        lower = f"--set {self.stage}.lr=LOWER"
        if not self.last.is_file():
            raise FgdaError(
                f"{what}; no checkpoint was written yet\nstart over with --fresh {lower}, or"
                " --precision fp32"
            )
        go_on = (
            f", or go on from it: --init {self.last} --out NEW {lower}"
            if self.stage == "adapt"
            else ""
        )
        raise FgdaError(
            f"{what}; the last good checkpoint is {self.last}\nstart over with --fresh"
            f" {lower}{go_on}"
        )
