"""The paper's method: fine-grained alignment with target entropy minimisation (eq. 7, 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import Weight, losses
from .fada import Fada, FineGrainedSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.segmenter import Output


class FgdaSettings(FineGrainedSettings):
    eta: Weight = Field(
        1.0, description="weight of the target entropy inside the adversarial term (eq. 7)"
    )
    entropy_temperature: float = Field(
        1.0, gt=0, description="temperature of the softmax whose entropy is minimised"
    )


class Fgda(Fada):
    """L = L_seg + lambda_adv (L_adv + eta mean E), both levels weighted alike."""

    Settings = FgdaSettings

    def target_losses(self, target: Output, size: tuple[int, int]) -> dict[str, Tensor]:
        levels = {"entropy": (target.logits, 1.0)}
        if target.aux_logits is not None:
            levels["aux_entropy"] = (target.aux_logits, self.settings.aux_adv_factor)
        s = self.settings
        weight = s.lambda_adv * s.eta
        return {
            name: (
                weight
                * factor
                * losses.entropy_loss(
                    logits,
                    s.entropy_temperature,
                    size,
                    align_corners=self.align_corners,
                )
            )
            for name, (logits, factor) in levels.items()
        }


METHOD = Fgda
