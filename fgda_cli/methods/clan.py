"""CLAN: category-level adversarial weights from two disagreeing heads ([CLAN])."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from .adaptsegnet import AdaptSegNet, BinarySettings
from .base import EVERY, Option, Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..models.segmenter import Output


class ClanSettings(BinarySettings):
    lambda_local: Weight = Field(
        40.0, description="weight of the heads' disagreement in a pixel's adversarial weight"
    )
    epsilon: Weight = Field(0.4, description="added to the adversarial weight")
    lambda_weight: Weight = Field(
        0.01, description="weight of the divergence of the two heads, which counts twice"
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="focal gamma of each head's source loss; 0 is cross-entropy"
    )
    warmup_share: float = Field(
        0.05, ge=0, le=1, description="share of the run before pixels are weighted"
    )
    damping: bool = Field(
        True, description="adversarial and divergence weights fall linearly to 0 over the run"
    )


class Clan(AdaptSegNet):
    """C1 is the model's head, C2 this method's own; the discriminator judges the softmax of their
    sum at full size.

    Heads are linear, so C1 + C2 is one head with summed weights: that is what is shipped and
    evaluated.
    """

    Settings = ClanSettings
    # What is shipped is the sum of two heads: a step through the model's alone would not train it.
    supports = EVERY - {Option.DETAIL, Option.LABELLED}
    # CLAN plays on the last stage alone
    levels = ("discriminator",)

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        second = copy.deepcopy(model.head)
        # The pretrained head is shared between the two, with a little noise that lets them part.
        with torch.no_grad():
            for parameter in (*model.head.parameters(), *second.parameters()):
                parameter.mul_(0.5)
            for conv in second.convs:
                conv.weight.add_(torch.randn_like(conv.weight) * 0.1 * conv.weight.std())
        self.modules["second_head"] = second
        self.progress = 0.0  # of the run, 0 to 1

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        self.progress = iteration / total

    @property
    def damping(self) -> float:
        """Return the factor of the adversarial weight and of the divergence weight."""
        return 1 - self.progress if self.settings.damping else 1.0

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.modules["second_head"].parameters()]

    def both(self, images: Tensor, is_target: bool = True) -> tuple[Output, Tensor]:
        """Return the model's output, whose logits are C1's, and C2's logits `[B,K,h,w]`."""
        output = self.forward(images, is_target)
        with self.autocast():
            return output, self.modules["second_head"](output.features).float()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source, source_second = self.both(batch.source, is_target=False)
        gamma = self.settings.focal_gamma
        terms = {
            "seg": self.cross_entropy(source.logits, batch.labels, focal_gamma=gamma),
            "seg_second": self.cross_entropy(source_second, batch.labels, focal_gamma=gamma),
        }
        if source.aux_logits is not None:
            terms["seg_aux"] = self.settings.aux_seg * self.cross_entropy(
                source.aux_logits, batch.labels, focal_gamma=gamma
            )
        self.backward(sum(terms.values()))
        terms |= self.adversarial_pass((source.logits + source_second).detach(), batch)
        divergence = losses.weight_divergence(
            self.flat(self.model.head), self.flat(self.modules["second_head"])
        )
        terms["divergence"] = 2 * self.settings.lambda_weight * self.damping * divergence
        self.backward(terms["divergence"])
        return terms

    def adversarial_pass(self, source_logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Run the backward pass of the target's weighted adversarial loss, through the heads and
        their disagreement, and of the discriminator's losses.

        The class maps are a leaf in between, so that the network's loss reaches no weight of D, and
        D's none of the network.
        """
        size = batch.target.shape[-2:]
        target, second = self.both(batch.target)
        first, second = (self.upsample(logits, size) for logits in (target.logits, second))
        maps = torch.softmax(first + second, dim=1)
        focus = self.pixel_weight(first, second)
        leaf = maps.detach().requires_grad_()
        pixel_weight = focus.detach().requires_grad_(focus.requires_grad)
        judged = self.full_domain_logits(leaf)
        adversarial = (
            self.settings.lambda_main
            * self.damping
            * losses.binary_domain_loss(judged, "source", pixel_weight)
        )
        inputs = [leaf, *([pixel_weight] if pixel_weight.requires_grad else [])]
        grads = torch.autograd.grad(self.scale(adversarial), inputs, retain_graph=True)
        on_target = losses.binary_domain_loss(judged, "target", pixel_weight.detach())
        self.scale(on_target).backward(
            inputs=list(self.discriminators["discriminator"].parameters())
        )
        source_maps = torch.softmax(self.upsample(source_logits, batch.source.shape[-2:]), dim=1)
        on_source = losses.binary_domain_loss(self.full_domain_logits(source_maps), "source")
        self.backward(on_source)
        torch.autograd.backward([maps, *([focus] if pixel_weight.requires_grad else [])], grads)
        return {"adv": adversarial.detach(), "disc": (on_source + on_target).detach()}

    def full_domain_logits(self, maps: Tensor) -> Tensor:
        """Return domain logits `[B,1,H,W]` at the maps' own size."""
        return losses.upsample(
            self.domain_logits(self.discriminators["discriminator"], maps), maps.shape[-2:]
        )

    def pixel_weight(self, first: Tensor, second: Tensor) -> Tensor:
        """Return lambda_local (1 - cos(p1, p2)) + epsilon `[B,1,H,W]`, not detached; 1 during the
        warm-up.
        """
        if self.progress < self.settings.warmup_share:
            return torch.ones_like(first[:, :1])
        probs = (torch.softmax(logits, dim=1) for logits in (first, second))
        return self.settings.lambda_local * losses.disagreement(*probs) + self.settings.epsilon

    @staticmethod
    def flat(head) -> Tensor:
        """Return weights and biases as one vector."""
        return torch.cat([parameter.flatten() for parameter in head.parameters()])

    def inference_state_dict(self) -> dict[str, Tensor]:
        second = {
            f"head.{name}": value
            for name, value in self.modules["second_head"].state_dict().items()
        }
        state = self.model.state_dict()
        return {
            name: value + second[name] if name in second else value for name, value in state.items()
        }


METHOD = Clan
