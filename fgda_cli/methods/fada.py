"""Fine-grained adversarial alignment ([FADA]; paper eq. 2, 3)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Weight, losses, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..models.segmenter import Output
    from .offline import OfflineData


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
    class_weighting: Literal["none", "source", "target", "importance"] = Field(
        "none",
        description=(
            "weights of the domain encoding where class shares differ: inverse source or target"
            " share of the class, or for source pixels target over source share (importance);"
            " target shares are estimated without labels"
        ),
    )
    class_weighting_power: float = Field(
        0.5, ge=0, le=1, description="power of the inverse class shares"
    )
    min_confidence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="smallest class probability of pixels that are aligned; 0: all pixels",
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

    def before_training(self, data: OfflineData) -> None:
        """Estimate the target's class shares where a setting needs them; they are saved and resumed
        with the run.
        """
        super().before_training(data)
        if self.needs_shares:
            from .pieces.class_shares import estimate_shares

            source = data.samples.class_shares().to(data.device)
            shares = self.modules["shares"] = torch.nn.Module()
            shares.register_buffer("source", source.float())
            shares.register_buffer("target", torch.zeros_like(shares.source))
            if data.resumed or self.settings.class_weighting == "none":
                # A resumed run has the estimate of its start.
                return
            prior = (
                source if self.class_weights is None else source * self.class_weights[: len(source)]
            )
            batches = (batch.to(data.device) for batch in data.samples.target_batches())
            shares.target.copy_(
                estimate_shares(self.model, batches, prior, images=len(data.samples.target_items))
            )
            names = data.samples.source.classes.names
            shown = ", ".join(
                f"{name} {100 * share:.1f}"
                for name, share in zip(names, shares.target.tolist(), strict=True)
            )
            data.reporter.decide(
                f"class shares of the target, estimated without labels, percent: {shown}"
            )

    @property
    def needs_shares(self) -> bool:
        return bool(self.discriminators) and self.settings.class_weighting != "none"

    @cached_property
    def class_weights_of_domains(self) -> dict[str, Tensor]:
        """Return weights `[K]` of the domain encoding by domain, from the class shares at the run's
        start; empty without weighting.
        """
        if self.settings.class_weighting == "none":
            return {}
        from .pieces.class_shares import domain_weights

        shares = self.modules["shares"]
        return domain_weights(
            self.settings.class_weighting,
            self.settings.class_weighting_power,
            shares.source,
            target=shares.target,
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source, terms = self.source_pass(batch)
        target = self.forward(batch.target)
        terms |= self.target_pass(source, target, batch)
        return terms

    def target_terms(self, target: Output, size: tuple[int, int]) -> dict[str, Tensor]:
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
            adversarial, discriminating, grad = self.adversarial_step(
                name, discriminator, source, target=target, batch=batch, weight=weight
            )
            prefix = "aux_" if name.startswith("aux") else ""
            terms |= {f"{prefix}adv": weight * adversarial, f"{prefix}disc": discriminating}
            grads.append((self.level(target, name)[0], grad))
        extra = self.target_terms(target, size)
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

    def adversarial_step(
        self,
        name: str,
        discriminator: nn.Module,
        source: Output,
        target: Output,
        batch: Batch,
        weight: float,
    ):
        """Return eq. 3's gradient with respect to the target features; eq. 2's gradient goes into
        the discriminator's parameters.

        The generator and the discriminator losses share the domain logits. The features are a leaf:
        eq. 3 reaches no weight of D and eq. 2 reaches nothing of F.
        """
        size = batch.target.shape[-2:]
        parameters = list(discriminator.parameters())
        features, logits = self.level(target, name)
        leaf = features.detach().requires_grad_()
        domain_logits = self.domain_logits(discriminator, leaf)
        (adversarial, on_target), (to_source, to_target) = self.domain_losses(
            domain_logits, logits, size
        )
        (grad,) = torch.autograd.grad(
            domain_logits, leaf, self.scale(weight * to_source), retain_graph=True
        )
        domain_logits.backward(self.scale(0.5 * to_target), inputs=parameters)

        features, logits = self.level(source, name)
        domain_logits = self.domain_logits(discriminator, features.detach())
        (on_source,), (to_source,) = self.domain_losses(
            domain_logits, logits, batch.source.shape[-2:], domains=("source",)
        )
        domain_logits.backward(self.scale(0.5 * to_source), inputs=parameters)
        return adversarial, 0.5 * (on_source + on_target), grad

    def domain_logits(self, discriminator: nn.Module, features: Tensor) -> Tensor:
        with self.autocast():
            return discriminator(features).float()

    def domain_losses(
        self,
        domain_logits: Tensor,
        logits: Tensor,
        size: tuple[int, int],
        domains=("source", "target"),
    ):
        s = self.settings
        weights = self.class_weights_of_domains.get(
            "source" if domains == ("source",) else "target"
        )
        return losses.domain_losses(
            domain_logits,
            logits,
            size,
            temperature=s.temperature,
            clip=s.clip,
            domains=domains,
            align_corners=self.align_corners,
            class_weights=weights,
            min_confidence=s.min_confidence,
        )


METHOD = Fada
