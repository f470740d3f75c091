"""Significance-aware information bottleneck before a feature adversary: our reconstruction of
[SIBAN], which has no public code.

Known are the idea and the figures; everything here follows the variational discriminator bottleneck
and is our choice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from ..runtime.random import StepStream
from .adaptsegnet import AdaptSegNet
from .base import EVERY, MethodSettings, Option, Weight, torch, transfer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch
    from ..models.segmenter import Output


class SibanSettings(MethodSettings):
    channels: int = Field(
        512, ge=1, description="channels of the bottleneck, at most those of the features"
    )
    information: float = Field(
        0.5, ge=0, description="nats a channel may carry, times its significance"
    )
    beta: float = Field(1e-3, ge=0, description="first weight of the bottleneck's loss")
    beta_rate: float = Field(
        1e-3, ge=0, description="how fast that weight follows what exceeds the information"
    )
    lambda_main: Weight = Field(0.001, description="adversarial weight")
    discriminator_lr: float = Field(
        1e-4, gt=0, description="learning rate of the discriminator (Adam)"
    )
    discriminator_widths: tuple[int, int] = Field(
        (256, 128), description="channels of the discriminator's two hidden layers"
    )


class Siban(AdaptSegNet):
    """Heads and discriminator see z = mu + sigma eps; L_IB = beta mean_c max(0, KL_c - I a_c), mean
    over the domains.

    mu is linear, so head(mu(features)) is one head: that is what is shipped.
    """

    Settings = SibanSettings
    # What is shipped is this method's own head; its multiplier follows the whole batch.
    supports = EVERY - {Option.DETAIL, Option.LABELLED, Option.ACCUMULATE}
    levels = ()

    def __init__(self, model, settings, engine=None):
        from ..models.discriminators import FeatureDiscriminator

        super().__init__(model, settings, engine)
        self.width = min(settings.channels, model.feature_channels)
        self.discriminators["discriminator"] = FeatureDiscriminator(
            self.width, settings.discriminator_widths
        )
        spread = torch.nn.Conv2d(model.feature_channels, self.width, 1)
        torch.nn.init.zeros_(spread.weight)
        # sigma 0.05: little noise at first
        torch.nn.init.constant_(spread.bias, -3.0)
        squeeze = max(1, self.width // 16)
        significance = torch.nn.Sequential(
            torch.nn.Linear(self.width, squeeze),
            torch.nn.ReLU(),
            torch.nn.Linear(squeeze, self.width),
            torch.nn.Sigmoid(),
        )
        mean, head = self.split_head(model)
        multiplier = torch.nn.Module()
        multiplier.register_buffer("beta", torch.tensor(settings.beta))
        self.modules |= self.discriminators
        self.modules |= {
            "mean": mean,
            "spread": spread,
            "significance": significance,
            "head": head,
            "multiplier": multiplier,
        }
        self.iteration = 0
        self.excess = []

    def split_head(self, model):
        """Split the trained head into its inputs' main directions and a head on these, whose
        product is as near to it as possible.
        """
        head = copy.deepcopy(model.head)
        mean = torch.nn.Conv2d(
            model.feature_channels, self.width, 1, bias=False, dtype=head.convs[0].weight.dtype
        )
        with torch.no_grad():
            # what the head reads of its C input channels, a row a class and place of a kernel
            kernels = [conv.weight.movedim(1, -1).flatten(0, -2) for conv in head.convs]
            rows = torch.cat(kernels).to(transfer.widest(mean.weight.device))
            # orthonormal, the most used first
            directions = torch.linalg.svd(rows, full_matrices=True).Vh[: self.width]
            directions = directions.to(mean.weight.dtype)
            mean.weight.copy_(directions[:, :, None, None])
            for conv in head.convs:
                projected = torch.einsum("kcij,zc->kzij", conv.weight, directions)
                conv.weight = torch.nn.Parameter(projected)
                conv.in_channels = self.width
        return mean, head

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        self.iteration = iteration

    def end_iteration(self, iteration: int) -> None:
        """Update beta by how much the channels exceed the information that they may carry."""
        beta = self.modules["multiplier"].beta
        excess = torch.stack(self.excess).mean()
        beta.copy_(next_beta(beta, excess, self.settings.beta_rate))

    def head_parameters(self) -> list[nn.Parameter]:
        return [
            p
            for name in ("mean", "spread", "significance", "head")
            for p in self.modules[name].parameters()
        ]

    def squeeze(self, output: Output, stream: int) -> tuple[Output, Tensor]:
        """Return the output with z for features and the logits of z, and the weighted L_IB; noise
        is drawn by (seed, iteration, position).
        """
        with self.autocast():
            mean = self.modules["mean"](output.features).float()
            spread = self.modules["spread"](output.features).float()
            sigma = torch.nn.functional.softplus(spread)
            draws = self.draws(StepStream.BOTTLENECK + stream, self.iteration, len(mean))
            # drawn on the processor, so that every device trains with the same noise
            noise = torch.stack([torch.randn(mean.shape[1:], generator=draw) for draw in draws])
            z = mean + sigma * transfer.send(noise, mean)
            logits = self.modules["head"](z).float()
        return output._replace(logits=logits, features=z), self.bottleneck(mean, sigma)

    def bottleneck(self, mean: Tensor, sigma: Tensor) -> Tensor:
        """Return beta mean_c max(0, KL_c - I a_c); a is a gate on the pooled means, 1 on average
        over the channels.
        """
        gates = self.modules["significance"](mean.mean(dim=(2, 3)))
        # by channel, [C]
        gate = self.mean_of_all(gates.mean(dim=0))
        carried = self.mean_of_all(divergence(mean, sigma).mean(dim=(0, 2, 3)))
        allowed = self.settings.information * gate / gate.mean()
        excess = carried - allowed
        self.excess.append(excess.detach().mean())
        return self.modules["multiplier"].beta * excess.clamp(min=0).mean()

    def discriminator_input(self, name: str, output: Output, size: tuple[int, int]) -> Tensor:
        return output.features

    def step(self, batch: Batch) -> dict[str, Tensor]:
        self.excess = []
        source, bottleneck = self.squeeze(self.forward(batch.source, is_target=False), 0)
        terms = self.segmentation_losses(source, batch.labels) | {"bottleneck": 0.5 * bottleneck}
        self.backward(sum(terms.values()))
        target, bottleneck = self.squeeze(self.forward(batch.target), 1)
        z, grad, adversarial = self.adversarial_pass(
            "discriminator",
            self.discriminators["discriminator"],
            source,
            target=target,
            batch=batch,
        )
        terms["target_bottleneck"] = 0.5 * bottleneck
        torch.autograd.backward([z, self.scale(terms["target_bottleneck"])], [grad, None])
        return terms | adversarial

    def inference_state_dict(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        directions = self.modules["mean"].weight[:, :, 0, 0]
        for name, value in self.modules["head"].state_dict().items():
            state[f"head.{name}"] = (
                torch.einsum("kzij,zc->kcij", value, directions) if value.ndim == 4 else value
            )
        return state


def divergence(mean: Tensor, sigma: Tensor) -> Tensor:
    """Return the KL divergence of N(mean, sigma^2) from N(0, 1), by element: (mean^2 + sigma^2 - ln
    sigma^2 - 1) / 2.
    """
    return 0.5 * (mean.square() + sigma.square() - 2 * sigma.log() - 1)


def next_beta(beta: Tensor, excess: Tensor, rate: float) -> Tensor:
    """Return max(0, beta + rate x excess), the multiplier of the limit on information."""
    return (beta + rate * excess.to(beta)).clamp(min=0)


METHOD = Siban
