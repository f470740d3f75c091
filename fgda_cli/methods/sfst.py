"""Self-training without a source: a slow teacher's surest labels of each class, and predictions that stay varied ([SHOT])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .base import Weight, torch
from .pieces.self_training import SelfTraining, SelfTrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch


class SfstSettings(SelfTrainingSettings):
    portion: float = Field(0.5, gt=0, le=1, description="of the pixels of each class that count, the teacher's surest")
    lambda_div: Weight = Field(0.1, description="weight of the diversity term: 1 - entropy of the mean prediction over log K")


class Sfst(SelfTraining):
    """L = lambda_st CE(jittered x_t, teacher's labels) + lambda_div (1 - H(mean p) / log K)."""

    Settings = SfstSettings
    uses_source = False
    guarded = True

    def step(self, batch: Batch) -> dict[str, Tensor]:
        probs, guess = self.teach(batch.target, batch.target.shape[-2:])
        weight = self.surest(probs, guess) * self.trust(guess)
        output = self.forward(self.augment(batch.target))
        loss = self.settings.lambda_st * self.output_loss(output, guess, weight)
        terms = {"self_training": loss}
        if self.settings.lambda_div:
            terms["diversity"] = self.settings.lambda_div * self.uniformity(output.logits)
        self.backward(sum(terms.values()))
        return terms

    def surest(self, probs: Tensor, guess: Tensor) -> Tensor:
        """`[B,H,W]`: 1 for the `portion` of each class's pixels that the teacher is surest of, image by image."""
        keep = torch.zeros_like(probs)
        for image, labels, kept in zip(probs, guess, keep, strict=True):
            for k in labels.unique():
                mine = labels == k
                kept[mine] = (image[mine] >= _quantile(image[mine], 1 - self.settings.portion)).to(probs.dtype)
        return keep

    def uniformity(self, logits: Tensor) -> Tensor:
        """1 - H(p) / log K of the mean prediction p over the pixels of all processes' images."""
        mean = self.mean_of_all(torch.softmax(logits, 1).mean(dim=(0, 2, 3)))
        entropy = -(mean * mean.clamp(min=1e-12).log()).sum()
        return 1 - entropy / torch.log(torch.tensor(float(logits.shape[1]), device=logits.device))


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value below which `share` of them lie (torch.quantile takes 16 million values at most)."""
    return values.flatten().kthvalue(min(len(values), int(share * len(values)) + 1)).values
