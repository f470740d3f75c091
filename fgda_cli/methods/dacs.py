"""DACS: cross-domain mixed sampling ([DACS]): source loss and an EMA teacher's labels on mixed
images, no adversary.
"""

from __future__ import annotations

from pydantic import Field

from .base import EVERY
from .pieces.self_training import SelfTraining, SelfTrainingSettings


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
    sure_share = SelfTraining.sure_share_of_all


METHOD = Dacs
