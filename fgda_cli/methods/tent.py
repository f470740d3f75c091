"""TENT: entropy minimisation in the scales and shifts of norm layers alone, without a source
([TENT]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..runtime.errors import UsageError
from .base import EVERY, Method, MethodSettings, Option, losses, torch
from .optimizers import Recipe, Scheduled, adam

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..data.store import AnyDataset
    from ..models.segmenter import Segmenter
    from .offline import OfflineData


class TentSettings(MethodSettings):
    target_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the target's batch norm statistics; the rest stays the source's",
    )
    norm_lr: float = Field(
        1e-3, gt=0, description="Adam's rate of the norm layers' scales and shifts"
    )


class Tent(Method):
    """L = mean E(x_t) (eq. 4) with the target's batch norm statistics; all but the norm layers'
    affine stays.

    Differs from [TENT]: the statistics are of all target images, not of each batch, and stay in the
    network that is shipped.
    """

    Settings = TentSettings
    # tent trains norm layers, which a tuned encoder keeps
    supports = EVERY - {Option.TUNED}
    uses_source = False
    fixed_norms = True
    # a collapsed network is the global optimum of entropy alone
    guarded = True

    @classmethod
    def check(
        cls, settings: TentSettings, model: Segmenter, source: AnyDataset | None, target: AnyDataset
    ) -> None:
        affine(model)

    def before_training(self, data: OfflineData) -> None:
        self.model.mix_statistics(data.samples.target_batches(), self.settings.target_share)
        # whatever the stage says: norms stay in evaluation mode
        self.model.set_batch_norm("frozen")
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in affine(self.model):
            parameter.requires_grad_(True)

    def optimizers(self, recipe: Recipe) -> dict[str, Scheduled]:
        optimizer = adam(affine(self.model), lr=self.settings.norm_lr, betas=(0.9, 0.999))
        return {"segmentation": Scheduled(optimizer, recipe.schedule)}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        output = self.forward(batch.target, with_aux=False)
        entropy = losses.entropy_loss(
            output.logits, size=batch.target.shape[-2:], align_corners=self.align_corners
        )
        self.backward(entropy)
        return {"entropy": entropy}


def affine(model: Segmenter) -> list[nn.Parameter]:
    """Return the scales and shifts of batch, layer and group norms. Raises UsageError for a network
    that has none.
    """
    kinds = (torch.nn.BatchNorm2d, torch.nn.LayerNorm, torch.nn.GroupNorm)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    parameters = [
        parameter
        for layer in layers
        for parameter in (layer.weight, layer.bias)
        if parameter is not None
    ]
    if not parameters:
        raise UsageError(
            "method tent needs norm layers with scales and shifts: this network has none"
        )
    return parameters


METHOD = Tent
