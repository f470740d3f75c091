"""CLAN: category-level adversarial weights from two disagreeing heads ([CLAN])."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pydantic import Field

from .adaptsegnet import AdaptSegNet, BinarySettings
from .base import Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..models.segmenter import Output


class ClanSettings(BinarySettings):
    lambda_local: Weight = Field(40.0, description="of the heads' disagreement in the adversarial weight")
    epsilon: Weight = Field(0.4, description="added to the adversarial weight")
    lambda_weight: Weight = Field(0.01, description="of the divergence of the two heads' weights")


class Clan(AdaptSegNet):
    """C1 is the model's head, C2 this method's own; the discriminator judges the softmax of their sum.

    Heads are linear, so C1 + C2 is one head with summed weights: that is what is shipped and evaluated.
    """

    Settings = ClanSettings
    levels = ("discriminator",)  # CLAN plays on layer4 alone

    def __init__(self, model, settings):
        super().__init__(model, settings)
        second = copy.deepcopy(model.head)
        # The pretrained head is shared between the two, with a little noise that lets them part.
        with torch.no_grad():
            for parameter in (*model.head.parameters(), *second.parameters()):
                parameter.mul_(0.5)
            for conv in second.convs:
                conv.weight.add_(torch.randn_like(conv.weight) * 0.1 * conv.weight.std())
        self.modules["second_head"] = second

    def segmentation_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        groups = super().segmentation_groups(lr, head_lr_factor)
        groups[1]["params"] = [*groups[1]["params"], *self.modules["second_head"].parameters()]
        return groups

    def second(self, output: Output) -> Tensor:
        """Logits of C2, `[B,K,h,w]`."""
        with self.autocast():
            return self.modules["second_head"](output.features).float()

    def forward(self, images: Tensor, is_target: bool = True) -> Output:
        """The output whose logits are those of C1 + C2."""
        output = super().forward(images, is_target)
        return output._replace(logits=output.logits + self.second(output))

    def pixel_weight(self, output: Output, size: tuple[int, int]) -> Tensor:
        """lambda_local (1 - cos(p1, p2)) + epsilon at the discriminator's resolution, detached."""
        with torch.no_grad():
            second = self.second(output)
            heads = (output.logits - second, second)
            first, second = (torch.softmax(losses.upsample(logits, size), dim=1) for logits in heads)
            return self.settings.lambda_local * losses.disagreement(first, second) + self.settings.epsilon

    def step(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().step(batch)
        divergence = losses.weight_divergence(self.flat(self.model.head), self.flat(self.modules["second_head"]))
        terms["divergence"] = self.settings.lambda_weight * divergence
        self.backward(terms["divergence"])
        return terms

    @staticmethod
    def flat(head) -> Tensor:
        return torch.cat([conv.weight.flatten() for conv in head.convs])

    def inference_state_dict(self) -> dict[str, Tensor]:
        second = {f"head.{name}": value for name, value in self.modules["second_head"].state_dict().items()}
        state = self.model.state_dict()
        return {name: value + second[name] if name in second else value for name, value in state.items()}
