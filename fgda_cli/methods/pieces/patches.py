"""Patches of class maps: histograms of labels, their modes, and the head that tells them
([ADAPTPATCH]).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.classes import IGNORE_INDEX
from ...runtime.transfer import widest


def grid_of(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return how many whole patches an image of (H, W) holds, down and across; at least one
    each.
    """
    return max(1, size[0] // patch[0]), max(1, size[1] // patch[1])


def histograms(labels: Tensor, num_classes: int, patch: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return class shares of a 2x2 grid in each patch of (height, width) pixels, `[B,4K,U,V]`, and
    which patches have labels, `[B,U,V]`.

    labels `[B,H,W]`; ignored pixels are left out; each of the four cells (upper left, upper right,
    lower left, lower right) sums to 1, or to 0 without a labelled pixel. What is left of an image
    beyond whole patches belongs to none.
    """
    down, across = grid_of(labels.shape[-2:], patch)
    known = labels != IGNORE_INDEX
    classes = F.one_hot(torch.where(known, labels, 0).long(), num_classes).movedim(-1, 1)
    one_hot = classes * known[:, None]
    whole = one_hot[..., : down * patch[0], : across * patch[1]]
    # [B,K,2U,2V]
    counts = F.adaptive_avg_pool2d(whole.to(widest(labels.device)), (2 * down, 2 * across))
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1e-12)
    # the four cells of a patch beside its classes: [B,K,U,2,V,2] -> [B,2,2,K,U,V] -> [B,4K,U,V]
    by_cell = shares.view(len(labels), num_classes, down, 2, across, 2).permute(0, 3, 5, 1, 2, 4)
    grid = by_cell.reshape(len(labels), 4 * num_classes, down, across)
    return grid, grid.sum(dim=1) > 0


def k_means(points: Tensor, count: int, generator: torch.Generator, rounds: int = 50) -> Tensor:
    """Return centroids `[count,D]` of points `[N,D]`: Lloyd's algorithm from k-means++ starts;
    fewer points repeat.
    """
    centroids = points[torch.randint(len(points), (1,), generator=generator)]
    for _ in range(count - 1):
        nearest = torch.cdist(points, centroids).amin(dim=1).square()
        chance = nearest if float(nearest.sum()) > 0 else torch.ones_like(nearest)
        centroids = torch.cat(
            [centroids, points[torch.multinomial(chance, 1, generator=generator)]]
        )
    for _ in range(rounds):
        owner = torch.cdist(points, centroids).argmin(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, owner, points)
        members = torch.bincount(owner, minlength=count)[:, None]
        moved = torch.where(members > 0, sums / members.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


class PatchHead(nn.Module):
    """Class maps `[B,K,h,w]` -> mode logits `[B,M,U,V]`, one cell a patch: averaged, then two 1x1
    convolutions (our choice).
    """

    def __init__(self, num_classes: int, modes: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(num_classes, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, modes, 1)
        )

    def forward(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return self.layers(F.adaptive_avg_pool2d(maps, size))


class PatchDiscriminator(nn.Module):
    """Mode probabilities `[B,M,U,V]` -> domain logits `[B,1,U,V]`: fully connected M, 256, 512, 1,
    patch by patch.
    """

    def __init__(self, modes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(modes, 256, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(256, 512, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(512, 1, 1),
        )

    def forward(self, probs: Tensor) -> Tensor:
        return self.layers(probs)
