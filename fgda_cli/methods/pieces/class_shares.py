"""Class shares of the target, estimated without its labels, and the weights of adversarial losses that follow from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ...models.segmenter import Segmenter, evaluating

Weighting = Literal["none", "source", "target", "importance"]
EM_STEPS = 50
MAX_RATIO = 10.0  # an importance weight lies between 1 / this and this


def estimate_shares(model: Segmenter, batches: Iterable[Tensor], prior: Tensor) -> Tensor:
    """Return the shares `[K]` of the classes in images uint8 `[B,3,H,W]`, by expectation maximisation on soft predictions.

    `prior` `[K]`: the class shares that the model's probabilities take for granted. Source: Saerens et al. 2002.
    """
    with evaluating(model), torch.no_grad():
        logits = [model(images).logits.float() for images in batches]
    probs = torch.cat([torch.softmax(one, dim=1).movedim(1, -1).flatten(0, -2) for one in logits]).double()  # [pixels,K]
    return maximise_expectation(probs, prior.to(probs))


def maximise_expectation(probs: Tensor, prior: Tensor) -> Tensor:
    """Return the shares `[K]` that make posteriors `[N,K]` of a model with this prior `[K]` most likely."""
    prior = prior.clamp(min=1e-6) / prior.clamp(min=1e-6).sum()
    shares = prior
    for _ in range(EM_STEPS):
        posteriors = probs * (shares / prior)
        shares = (posteriors / posteriors.sum(dim=1, keepdim=True).clamp(min=1e-12)).mean(dim=0)
    return shares


def domain_weights(kind: Weighting, power: float, source: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return class weights `[K]` by domain, from the shares `[K]` of the source and those estimated of the target.

    source, target: the inverse of that domain's shares to a power, for the pixels of both domains. importance: target over
    source shares, for source pixels alone: the discriminator then sees the classes of both domains equally often. The weights
    of a domain are 1 on average over its pixels.
    """
    if kind == "importance":
        ratio = (target / source.clamp(min=1e-6)).clamp(1 / MAX_RATIO, MAX_RATIO)
        return {"source": (ratio / (source * ratio).sum()).float()}
    inverse = (source if kind == "source" else target).clamp(min=1e-4) ** -power
    return {name: (inverse / (shares * inverse).sum()).float() for name, shares in (("source", source), ("target", target))}
