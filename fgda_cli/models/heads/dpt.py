"""A head for plain ViTs, whose stages are all of one stride: made into a pyramid, then fused from
coarse to fine (DPT).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import sides
from .blocks import resize
from .linear import LinearHead

# of the last four stages, over the stride of a ViT; stages that are a pyramid stay as they are
SCALES = (4, 2, 1, 0.5)


class Residual(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), without norms."""

    def __init__(self, width: int):
        super().__init__()
        self.convs = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


class DptNeck(nn.Module):
    """Stages to `[B,width,h,w]` at four times the resolution of a ViT's patches, or at the finest
    of the last four stages.
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], width: int):
        super().__init__()
        count = min(4, len(channels))
        self.scales = SCALES[-count:] if len(set(strides[-count:])) == 1 else (1,) * count
        self.projections = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False) for inputs in channels[-count:]
        )
        self.side = nn.ModuleList(Residual(width) for _ in range(count))
        self.down = nn.ModuleList(Residual(width) for _ in range(count))

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        levels = []
        for projection, stage, scale in zip(
            self.projections, stages[-len(self.scales) :], self.scales, strict=True
        ):
            size = tuple(max(1, round(side * scale)) for side in sides(stage))
            levels.append(
                projection(F.adaptive_avg_pool2d(stage, size) if scale < 1 else resize(stage, size))
            )
        x = None
        for number in reversed(range(len(levels))):
            level = self.side[number](levels[number])
            x = self.down[number](level if x is None else level + resize(x, level.shape[-2:]))
        return x


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[DptNeck, LinearHead]:
    return DptNeck(channels, strides, width), LinearHead(width, num_classes)
