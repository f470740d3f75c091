"""Self-training without a source: a slow teacher's most confident labels of each class, and
predictions that stay varied ([SHOT]).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Option, Weight, torch, transfer
from .pieces.self_training import SelfTraining, SelfTrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch


class SfstSettings(SelfTrainingSettings):
    portion: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of each class's pixels that is used, the teacher's most confident ones",
    )
    lambda_div: Weight = Field(
        0.1,
        description="weight of the diversity term: 1 - entropy of the mean prediction over log K",
    )


class Sfst(SelfTraining):
    """L = lambda_st CE(jittered x_t, teacher's labels) + lambda_div (1 - H(mean p) / log K)."""

    Settings = SfstSettings
    # The diversity is that of the whole batch.
    supports = EVERY - {Option.ACCUMULATE}
    uses_source = False
    guarded = True

    def step(self, batch: Batch) -> dict[str, Tensor]:
        probs, guess = self.teach(batch.target, batch.target.shape[-2:])
        weight = self.most_confident(probs, guess) * self.trust(guess) * self.inside(batch)
        output = self.forward(self.augment(batch.target), with_aux=False)
        loss = self.settings.lambda_st * self.output_loss(output, guess, weight, by_class=False)
        terms = {"self_training": loss}
        if self.settings.lambda_div:
            terms["diversity"] = self.settings.lambda_div * self.uniformity(output.logits)
        self.backward(sum(terms.values()))
        return terms

    def most_confident(self, probs: Tensor, guess: Tensor) -> Tensor:
        """Return `[B,H,W]`: 1 for the `portion` of each class's pixels of which the teacher is
        most confident, image by image.
        """
        classes = guess.flatten(1)
        limits = _class_quantiles(
            probs.flatten(1), classes, self.model.num_classes, share=1 - self.settings.portion
        )
        return (probs >= limits.gather(1, classes).view_as(probs)).to(probs.dtype)

    def uniformity(self, logits: Tensor) -> Tensor:
        """Return 1 - H(p) / log K of the mean prediction p over the pixels of all processes'
        images.
        """
        mean = self.mean_of_all(torch.softmax(logits, 1).mean(dim=(0, 2, 3)))
        entropy = -(mean * mean.clamp(min=1e-12).log()).sum()
        return 1 - entropy / math.log(max(logits.shape[1], 2))


def _class_quantiles(probs: Tensor, classes: Tensor, count: int, share: float) -> Tensor:
    """The probability below which `share` of each class's pixels lie, `[B,count]` of `[B,N]` twice;
    any number for no pixels.

    One sort of class + probability / 2 in float64 (exact), and no count that the host would have to
    hear.
    """
    wide = transfer.widest(probs.device)
    order = (classes + probs.to(wide) / 2).sort(dim=1).values
    pixels = torch.zeros(len(probs), count, dtype=torch.int64, device=probs.device)
    pixels.scatter_add_(1, classes, torch.ones_like(classes))
    # each class's pixels lie behind those of the classes before it
    first = pixels.cumsum(1) - pixels
    rank = torch.minimum((share * pixels.to(wide)).long(), (pixels - 1).clamp(min=0))
    # an image that ends with a class without pixels has none at its place
    index = (first + rank).clamp(max=probs.shape[1] - 1)
    numbers = torch.arange(count, device=probs.device)
    return ((order.gather(1, index) - numbers) * 2).to(probs.dtype)


METHOD = Sfst
