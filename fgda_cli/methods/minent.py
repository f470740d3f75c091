"""Direct entropy minimisation on the target (MinEnt of [ADVENT]; paper eq. 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Weight, losses

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch


class MinEntSettings(MethodSettings):
    lambda_ent: Weight = Field(0.001, description="weight of the target entropy")
    lambda_ent_aux: Weight = Field(
        0.0002, description="weight of the auxiliary head's target entropy"
    )


class MinEnt(Method):
    """L_seg + lambda_ent mean E(x_t), E by eq. 4."""

    Settings = MinEntSettings
    supports = EVERY

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch)
        target = self.forward(batch.target)
        size = batch.target.shape[-2:]
        extra = {
            "entropy": (
                self.settings.lambda_ent
                * losses.entropy_loss(target.logits, size=size, align_corners=self.align_corners)
            )
        }
        if target.aux_logits is not None:
            aux = losses.entropy_loss(
                target.aux_logits, size=size, align_corners=self.align_corners
            )
            extra["aux_entropy"] = self.settings.lambda_ent_aux * aux
        self.backward(sum(extra.values()))
        return terms | extra


METHOD = MinEnt
