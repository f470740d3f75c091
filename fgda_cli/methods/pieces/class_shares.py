"""Class shares of the target, estimated without its labels, and the weights of adversarial losses
that follow from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ...models.segmenter import Segmenter, evaluating

Weighting = Literal["none", "source", "target", "importance"]
EM_STEPS = 50
# 80 MB with 19 classes
PIXELS = 2**19
# an importance weight lies between 1 / this and this
MAX_RATIO = 10.0


def estimate_shares(
    model: Segmenter, batches: Iterable[Tensor], prior: Tensor, images: int
) -> Tensor:
    """Return the shares `[K]` of the classes in that many images uint8 `[B,3,H,W]`, by expectation
    maximisation on soft predictions of PIXELS pixels at most, evenly spread.

    `prior` `[K]`: the class shares that the model's probabilities take for granted. Source: Saerens
    et al. 2002.
    """
    probs = []
    with evaluating(model), torch.no_grad():
        for batch in batches:
            # [B,pixels,K]
            of_batch = (
                torch.softmax(model(batch).logits.float(), dim=1).movedim(1, -1).flatten(1, 2)
            )
            count = min(of_batch.shape[1], max(1, PIXELS // images))
            kept = (
                torch.linspace(0, of_batch.shape[1] - 1, count, device=of_batch.device)
                .round()
                .long()
            )
            probs.append(of_batch[:, kept].flatten(0, 1).cpu())
    return maximise_expectation(torch.cat(probs).double(), prior.double().cpu())


def maximise_expectation(probs: Tensor, prior: Tensor) -> Tensor:
    """Return the shares `[K]` that make posteriors `[N,K]` of a model with this prior `[K]` most
    likely.
    """
    prior = prior.clamp(min=1e-6) / prior.clamp(min=1e-6).sum()
    shares = prior
    for _ in range(EM_STEPS):
        posteriors = probs * (shares / prior)
        shares = (posteriors / posteriors.sum(dim=1, keepdim=True).clamp(min=1e-12)).mean(dim=0)
    return shares


def domain_weights(
    kind: Weighting, power: float, source: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Return class weights `[K]` by domain, from the shares `[K]` of the source and those estimated
    of the target.

    source, target: the inverse of that domain's shares to a power, for the pixels of both domains.
    importance: target over source shares, for source pixels alone: the discriminator then sees the
    classes of both domains equally often. The weights of a domain are 1 on average over its pixels.
    """
    if kind == "importance":
        ratio = (target / source.clamp(min=1e-6)).clamp(1 / MAX_RATIO, MAX_RATIO)
        return {"source": (ratio / (source * ratio).sum()).float()}
    inverse = (source if kind == "source" else target).clamp(min=1e-4) ** -power
    return {
        name: (inverse / (shares * inverse).sum()).float()
        for name, shares in (("source", source), ("target", target))
    }
