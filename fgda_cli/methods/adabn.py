"""AdaBN: the target's batch norm statistics in the trained network, and nothing else ([ADABN],
[SCHNEIDER]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Option, losses, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from .offline import OfflineData


class AdaBnSettings(MethodSettings):
    target_share: float = Field(
        1.0, ge=0, le=1, description="share of the target's statistics; the rest stays the source's"
    )

    def idle(self) -> dict[str, tuple[str, str]]:
        return dict.fromkeys(
            ("aux_seg", "seg_temperature", "lambda_labelled"),
            ("name", "this method reads no label"),
        )


class AdaBn(Method):
    """Trains no weight and reads no source: its one iteration reports the entropy with the new
    statistics.
    """

    Settings = AdaBnSettings
    # It trains no weight.
    supports = EVERY - {Option.LABELLED, Option.ACCUMULATE, Option.TUNED}
    uses_source = False
    fixed_norms = True
    iterations = 1

    def before_training(self, data: OfflineData) -> None:
        if not self.model.mix_statistics(data.samples.target_batches(), self.settings.target_share):
            data.reporter.decide("adabn changes nothing: this network has no batch norm")

    def step(self, batch: Batch) -> dict[str, Tensor]:
        self.model.eval()
        with torch.no_grad():
            return {"entropy": losses.entropy_loss(self.forward(batch.target).logits)}


METHOD = AdaBn
