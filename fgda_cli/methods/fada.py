"""Fine-grained adversarial alignment ([FADA]; paper eq. 2, 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..models.segmenter import Output


class FineGrainedSettings(MethodSettings):
    lambda_adv: Weight = Field(0.001, description="weight of the adversarial loss")
    aux_adv_factor: Weight = Field(
        0.2, description="ratio of the auxiliary level's adversarial weight to lambda_adv"
    )
    temperature: float = Field(
        1.8, gt=0, description="temperature T of the domain encoding softmax(logits / T)"
    )
    clip: float = Field(0.9, gt=0, le=1, description="upper clamp of the domain encoding")
    discriminator_lr: float = Field(
        1e-4, gt=0, description="learning rate of the discriminator (Adam)"
    )
    discriminator_widths: tuple[int, int] = Field(
        (256, 128), description="channels of the discriminator's two hidden layers"
    )
    seg_temperature: float = Field(
        1.8, gt=0, description="temperature of the source loss during adaptation"
    )


class Fada(Method):
    """One fine-grained discriminator a level; the target's domain logits serve eq. 2 and eq. 3
    alike and are computed once.
    """

    Settings = FineGrainedSettings
    supports = EVERY

    def __init__(self, model, settings, engine=None):
        from ..models.discriminators import FineGrainedDiscriminator

        super().__init__(model, settings, engine)
        levels = {"discriminator": model.feature_channels}
        if model.aux_head is not None and settings.aux_adv_factor > 0:
            levels["aux_discriminator"] = model.aux_channels
        for name, inputs in levels.items():
            self.discriminators[name] = FineGrainedDiscriminator(
                inputs, model.num_classes, settings.discriminator_widths
            )
        self.modules |= self.discriminators

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source, terms = self.source_pass(batch)
        target = self.forward(batch.target)
        terms |= self.target_pass(source, target, batch)
        return terms

    def target_losses(self, target: Output, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return further weighted losses of the target's logits; fgda.py adds the paper's
        entropy.
        """
        return {}

    def target_pass(self, source: Output, target: Output, batch: Batch) -> dict[str, Tensor]:
        """Run the backward pass of the target's losses through the network, and of eq. 2 through
        the discriminators.
        """
        size = batch.target.shape[-2:]
        terms = {}
        grads = []
        for name, discriminator in self.discriminators.items():
            weight = self.settings.lambda_adv * (
                self.settings.aux_adv_factor if name.startswith("aux") else 1.0
            )
            adversarial, discriminating, grad = self.adversarial_pass(
                name, discriminator, source, target=target, batch=batch, weight=weight
            )
            prefix = "aux_" if name.startswith("aux") else ""
            terms |= {f"{prefix}adv": weight * adversarial, f"{prefix}disc": discriminating}
            grads.append((self.level(target, name)[0], grad))
        extra = self.target_losses(target, size)
        roots = [features for features, _ in grads]
        seeds = [grad for _, grad in grads]
        if extra:
            roots = [*roots, self.scale(sum(extra.values()))]
            seeds = [*seeds, None]
        torch.autograd.backward(roots, seeds)
        return terms | extra

    @staticmethod
    def level(output: Output, name: str) -> tuple[Tensor, Tensor]:
        """Return the features and logits that a discriminator sees."""
        if name.startswith("aux"):
            return output.aux_features, output.aux_logits
        return output.features, output.logits

    def adversarial_pass(
        self,
        name: str,
        discriminator: nn.Module,
        source: Output,
        target: Output,
        batch: Batch,
        weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return eq. 3, eq. 2 and eq. 3's gradient in the target features; eq. 2's gradient goes
        into the discriminator's parameters.

        The generator and the discriminator losses share the domain logits. The features are a leaf:
        eq. 3 reaches no weight of D and eq. 2 reaches nothing of F.
        """
        size = batch.target.shape[-2:]
        parameters = list(discriminator.parameters())
        features, logits = self.level(target, name)
        leaf = features.detach().requires_grad_()
        domain_logits = self.domain_logits(discriminator, leaf)
        on_target = self.domain_losses(domain_logits, logits, size)
        adversarial = on_target["source"]
        discriminating = on_target["target"]
        (grad,) = torch.autograd.grad(
            domain_logits, leaf, self.scale(weight * adversarial.grad), retain_graph=True
        )
        domain_logits.backward(self.scale(0.5 * discriminating.grad), inputs=parameters)

        features, logits = self.level(source, name)
        domain_logits = self.domain_logits(discriminator, features.detach())
        size = batch.source.shape[-2:]
        on_source = self.domain_losses(domain_logits, logits, size, domains=("source",))["source"]
        domain_logits.backward(self.scale(0.5 * on_source.grad), inputs=parameters)
        return adversarial.loss, 0.5 * (on_source.loss + discriminating.loss), grad

    def domain_logits(self, discriminator: nn.Module, features: Tensor) -> Tensor:
        with self.autocast():
            return discriminator(features).float()

    def domain_losses(
        self,
        domain_logits: Tensor,
        logits: Tensor,
        size: tuple[int, int],
        domains: tuple[losses.DomainName, ...] = ("source", "target"),
    ) -> dict[losses.DomainName, losses.DomainLoss]:
        return losses.domain_losses(
            domain_logits,
            logits,
            size,
            temperature=self.settings.temperature,
            clip=self.settings.clip,
            domains=domains,
            align_corners=self.align_corners,
        )


METHOD = Fada
