"""FDA: the source in the target's low frequencies, and a robust entropy of the target ([FDA])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import Method, MethodSettings, Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch


class FdaSettings(MethodSettings):
    beta: float = Field(0.01, gt=0, le=0.5, description="share of the image's smaller side whose frequencies are swapped")
    lambda_ent: Weight = Field(0.005, description="weight of the target's entropy")
    power: float = Field(2.0, gt=0, le=10, description="of the squared entropy (Charbonnier)")


class Fda(Method):
    """L = CE(x_s in the target's style) + lambda mean (E^2 + 1e-8)^power, E at the logits' resolution."""

    Settings = FdaSettings

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch._replace(source=self.in_target_style(batch)))
        target = self.forward(batch.target)
        terms["entropy"] = self.settings.lambda_ent * losses.charbonnier_entropy(target.logits, self.settings.power)
        self.backward(terms["entropy"])
        return terms

    def in_target_style(self, batch: Batch) -> Tensor:
        """Raw values 0-255 as float, not clipped. Each source image takes the amplitude of the target image beside it."""
        from .pieces.fourier import low_frequencies_of

        source, target = batch.source.float(), batch.target.float()
        if source.shape[-2:] != target.shape[-2:]:  # published: equal sizes; the same share of frequencies is swapped here
            how = {"mode": "bilinear", "align_corners": False, "antialias": True}
            target = torch.nn.functional.interpolate(target, source.shape[-2:], **how)
        return low_frequencies_of(source, target, self.settings.beta)
