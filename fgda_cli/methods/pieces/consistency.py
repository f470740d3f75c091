"""Masked images that are to be read like whole ones ([MIC]), and features that stay near ImageNet's
([DAFormer]).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def block_mask(
    size: tuple[int, int], block: int, ratio: float, generator: torch.Generator
) -> Tensor:
    """Return bool `[H,W]`: of the squares of `block` pixels a side, those whose draw is above
    `ratio` stay ([MIC] eq. 3).
    """
    cells = tuple(max(1, round(side / block)) for side in size)
    return stay(torch.rand(cells, generator=generator), size, ratio)


def stay(draws: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """Enlarge the mask of draws `[h,w]` in [0, 1) to (H, W) as published (nearest)."""
    kept = (draws > ratio).float()[None, None]
    return F.interpolate(kept, size, mode="nearest")[0, 0].bool()


def thing_cells(train_ids: Tensor, size: tuple[int, int], things: Tensor, share: float) -> Tensor:
    """Return bool `[B,h,w]`: the cells of which one thing class holds at least `share` of the
    pixels; train_ids are `[B,H,W]`.

    `things` bool `[K]`.
    """
    classes = len(things)
    # 255 falls out
    one_hot = F.one_hot(train_ids.long().clamp(max=classes), classes + 1)[..., :classes]
    shares = F.adaptive_avg_pool2d(one_hot.movedim(-1, 1).float(), size)
    most, winner = shares.max(dim=1)
    return (most >= share) & things[winner]


def distances(features: Tensor, reference: Tensor) -> Tensor:
    """Return the Euclidean distance by cell, `[B,C,h,w]` twice -> `[B,h,w]`; its gradient is 0
    where both are equal.
    """
    squares = (features - reference).square().sum(dim=1)
    far = squares > 0
    return torch.where(
        far, torch.where(far, squares, torch.ones_like(squares)).sqrt(), torch.zeros_like(squares)
    )
