"""DACS: cross-domain mixed sampling ([DACS]): source loss and an EMA teacher's labels on mixed
images, no adversary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY
from .pieces.self_training import SelfTraining, SelfTrainingSettings

if TYPE_CHECKING:
    from torch import Tensor


class DacsSettings(SelfTrainingSettings):
    ema: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="upper end of the teacher's EMA factor, which is 1 - 1/(it + 1) at first",
    )


class Dacs(SelfTraining):
    """L = CE(x_s) + mean w CE(mixed)."""

    Settings = DacsSettings
    supports = EVERY
    sees_target_alone = False

    def sure_share(self, probs: Tensor) -> Tensor:
        """Return one weight for the batch of all processes: the share of its pixels that are
        sure.
        """
        return self.batch_share(probs).expand(len(probs), 1, 1)


METHOD = Dacs
