"""AdaptSegNet: a binary discriminator on the class probabilities, one a level ([ADAPT])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..models.segmenter import Output


class BinarySettings(MethodSettings):
    lambda_main: Weight = Field(0.001, description="adversarial weight of the main level")
    lambda_aux: Weight = Field(0.0002, description="adversarial weight of the auxiliary level")
    discriminator_lr: float = Field(
        1e-4, gt=0, description="learning rate of the discriminator (Adam)"
    )
    discriminator_width: int = Field(
        64, ge=1, description="channels of the discriminator's first layer"
    )


class AdaptSegNet(Method):
    """The discriminator tells source (0) from target (1) by `maps(logits)`; the network makes the
    target look as 0.
    """

    Settings = BinarySettings
    supports = EVERY
    levels = ("discriminator", "aux_discriminator")

    def __init__(self, model, settings, engine=None):
        from ..models.discriminators import BinaryDiscriminator

        super().__init__(model, settings, engine)
        for name in self.levels:
            if model.aux_head is not None or not name.startswith("aux"):
                self.discriminators[name] = BinaryDiscriminator(
                    model.num_classes, settings.discriminator_width
                )
        self.modules |= self.discriminators

    def maps(self, logits: Tensor) -> Tensor:
        """Return the discriminator's input `[B,K,H,W]`."""
        return torch.softmax(logits, dim=1)

    def discriminator_input(self, name: str, output: Output, size: tuple[int, int]) -> Tensor:
        """Return the discriminator's input for an image of (H, W)."""
        return self.maps(
            self.upsample(output.aux_logits if name.startswith("aux") else output.logits, size)
        )

    def adversarial_weight(self, name: str) -> float:
        return self.settings.lambda_aux if name.startswith("aux") else self.settings.lambda_main

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source, terms = self.source_pass(batch)
        target = self.forward(batch.target)
        roots = []
        grads = []
        for name, discriminator in self.discriminators.items():
            maps, grad, adversarial_terms = self.adversarial_pass(
                name, discriminator, source, target=target, batch=batch
            )
            roots.append(maps)
            grads.append(grad)
            terms |= adversarial_terms
        torch.autograd.backward(roots, grads)
        return terms

    def adversarial_pass(
        self, name: str, discriminator: nn.Module, source: Output, target: Output, batch: Batch
    ):
        """Run the discriminator's backward pass; return the target's maps, the adversarial gradient
        in them, and the loss terms.

        The target's domain logits are computed once: the maps are a leaf in between, so that the
        network's loss reaches no weight of D and D's loss reaches nothing of the network.
        """
        maps = self.discriminator_input(name, target, batch.target.shape[-2:])
        leaf = maps.detach().requires_grad_()
        domain_logits = self.domain_logits(discriminator, leaf)
        adversarial = self.adversarial_weight(name) * losses.binary_domain_loss(
            domain_logits, "source"
        )
        (grad,) = torch.autograd.grad(self.scale(adversarial), leaf, retain_graph=True)
        on_target = 0.5 * losses.binary_domain_loss(domain_logits, "target")
        self.scale(on_target).backward(inputs=list(discriminator.parameters()))
        with torch.no_grad():
            source_maps = self.discriminator_input(name, source, batch.source.shape[-2:]).detach()
        on_source = 0.5 * losses.binary_domain_loss(
            self.domain_logits(discriminator, source_maps), "source"
        )
        self.backward(on_source)
        prefix = name.removesuffix("discriminator")
        return (
            maps,
            grad,
            {
                f"{prefix}adv": adversarial.detach(),
                f"{prefix}disc": (on_source + on_target).detach(),
            },
        )

    def domain_logits(self, discriminator: nn.Module, maps: Tensor) -> Tensor:
        with self.autocast():
            return discriminator(maps).float()


METHOD = AdaptSegNet
