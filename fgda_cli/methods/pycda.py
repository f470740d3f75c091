"""PyCDA: self-training on pixels, squares and the whole image, no discriminator ([PYCDA])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Option, Weight, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from .offline import OfflineData


class PycdaSettings(MethodSettings):
    aux_seg: Weight = Field(0.4, description="weight of the auxiliary head's segmentation loss")
    lambda_pixel: Weight = Field(1.0, description="weight of the loss on pixels' pseudo-labels")
    lambda_square: Weight = Field(
        1.0, description="weight of the loss on squares' pseudo-labels, the same for each size"
    )
    lambda_image: Weight = Field(
        1.0, description="weight of the image's class shares against the source's"
    )
    squares: tuple[int, ...] = Field(
        (4, 8), description="sides of the squares over which logits are averaged, pixels"
    )
    confidence: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="class probability above which a pixel or square has a pseudo-label",
    )


class Pycda(Method):
    """L = CE(x_s) + sum over levels of CE(z, argmax p) where max p is sure + mean_k BCE(mean p_k,
    q_k).

    q are the source's class shares. (The public code reads them as a column, so that its loss pulls
    towards uniform shares.)
    """

    Settings = PycdaSettings
    # The shares of sure pixels and classes are of the whole batch.
    supports = EVERY - {Option.ACCUMULATE}

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        prior = torch.nn.Module()
        prior.register_buffer("shares", torch.full((model.num_classes,), 1 / model.num_classes))
        self.modules["prior"] = prior

    def before_training(self, data: OfflineData) -> None:
        self.modules["prior"].shares.copy_(data.samples.class_shares())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch)
        output = self.forward(batch.target, with_aux=False)
        logits = self.upsample(output.logits, batch.target.shape[-2:])
        target = self.target_losses(logits)
        self.backward(sum(target.values()))
        return terms | target

    def target_losses(self, logits: Tensor) -> dict[str, Tensor]:
        """Return weighted losses of the target's logits `[B,K,H,W]` at the images' size, by
        level.
        """
        s = self.settings
        terms = {"pixel": s.lambda_pixel * self.own_labels(logits)}
        for side in s.squares:
            squares = torch.nn.functional.avg_pool2d(
                logits, side, ceil_mode=True, count_include_pad=False
            )
            terms[f"square{side}"] = s.lambda_square * self.own_labels(squares)
        terms["image"] = s.lambda_image * self.image_loss(
            torch.softmax(logits, dim=1).mean(dim=(0, 2, 3))
        )
        return terms

    def own_labels(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy with the cells' own argmax, the mean over the sure cells of all
        processes.

        No class weighs more than another: guesses of a class that is weighed up would feed
        themselves until nothing else is left.
        """
        with torch.no_grad():
            confidence, labels = torch.softmax(logits, dim=1).max(dim=1)
            labels = torch.where(
                confidence > self.settings.confidence, labels, torch.full_like(labels, 255)
            )
        return self.cross_entropy(logits, labels, by_class=False)

    def image_loss(self, shares: Tensor) -> Tensor:
        """Return mean_k BCE(p_k, q_k) of the mean probabilities `[K]` of all processes' images."""
        everywhere = self.mean_of_all(shares)
        prior = self.modules["prior"].shares.to(everywhere.dtype)
        return torch.nn.functional.binary_cross_entropy(everywhere.clamp(0, 1), prior)


METHOD = Pycda
