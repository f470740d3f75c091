"""Multi-scale deformable attention ([DeformableDETR] eq. 3): a query reads a few points of several
maps, where it asks to.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (h, w) of each level
Sizes = list[tuple[int, int]]


def sample(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Return `[B,Q,M*D]`: for each query and head the weighted sum of bilinear samples; 0 beyond a
    map's border.

    value `[B,N,M,D]`, the levels' tokens one after another, row by row; locations `[B,Q,M,L,P,2]`,
    (x, y) in 0 to 1; weights
    `[B,Q,M,L*P]`. A level at a time, so that the samples of all levels never lie in memory twice.
    """
    count, _, heads, width = value.shape
    queries = locations.shape[1]
    levels = len(sizes)
    points = locations.shape[4]
    grid = (
        (2 * locations - 1)
        .permute(0, 2, 3, 1, 4, 5)
        .reshape(count * heads, levels, queries, points, 2)
    )
    weights = weights.view(count, queries, heads, levels, points).permute(0, 2, 3, 1, 4)
    weights = weights.reshape(count * heads, levels, 1, queries, points)
    sampled = 0.0
    tokens = value.split([h * w for h, w in sizes], dim=1)
    for level, ((h, w), level_tokens) in enumerate(zip(sizes, tokens, strict=True)):
        maps = level_tokens.permute(0, 2, 3, 1).reshape(count * heads, width, h, w)
        samples = F.grid_sample(
            maps, grid[:, level], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        sampled = sampled + (samples * weights[:, level]).sum(-1)  # [B*M,D,Q]
    return sampled.view(count, heads * width, queries).transpose(1, 2)


def centres(sizes: Sizes, like: Tensor) -> Tensor:
    """Return the centres (x, y) in 0 to 1 of the cells of all maps, row by row, `[Q,2]`."""
    points = []
    for h, w in sizes:
        y, x = (
            (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
            for side in (h, w)
        )
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).reshape(-1, 2))
    return torch.cat(points)


def cells(sizes: Sizes, like: Tensor) -> Tensor:
    """Return the number of cells (across, down) of each map, `[L,1,2]`.

    Filled on the device: a list that is sent there would make the host wait for a GPU.
    """
    counts = [like.new_full((1,), side) for h, w in sizes for side in (w, h)]
    return torch.cat(counts).view(-1, 1, 2)


def in_fp32(device: torch.device) -> AbstractContextManager:
    """Turn autocast off inside; the meta device knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class DeformableAttention(nn.Module):
    """Queries `[B,Q,C]` and the levels' tokens `[B,N,C]` to `[B,Q,C]`; a head is `ratio` C / heads
    wide.

    Computed in fp32 under autocast: 16 bits cannot name a place among 140 cells.
    """

    def __init__(self, channels: int, levels: int, heads: int, points: int = 4, ratio: float = 0.5):
        super().__init__()
        inner = int(channels * ratio)
        self.levels = levels
        self.heads = heads
        self.points = points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, inner)
        self.output_proj = nn.Linear(inner, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Let head m look in direction 2 pi m / M, its points 1, 2, … cells away, all with equal
        weights.
        """
        angles = torch.arange(self.heads, dtype=torch.float64) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float64)
        bias = direction[:, None, None] * steps[None, None, :, None]
        self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).reshape(-1).float())
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, tokens: Tensor, sizes: Sizes, reference: Tensor) -> Tensor:
        """Attend from queries at `reference` `[Q,2]`, (x, y) in 0 to 1, the same in all levels."""
        with in_fp32(queries.device):
            queries, tokens = (
                x if x.dtype == torch.float64 else x.float() for x in (queries, tokens)
            )
            count, length, _ = queries.shape
            value = self.value_proj(tokens).view(count, tokens.shape[1], self.heads, -1)
            shape = (count, length, self.heads, self.levels, self.points)
            offsets = self.sampling_offsets(queries).view(*shape, 2) / cells(sizes, queries)
            weights = (
                self.attention_weights(queries).view(count, length, self.heads, -1).softmax(-1)
            )
            locations = reference[:, None, None, None] + offsets
            return self.output_proj(sample(value, sizes, locations, weights=weights))
