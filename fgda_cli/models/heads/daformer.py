"""DAFormer's head: four stages embedded alike, mixed by a depthwise-separable ASPP ([DAFormer]
§3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Embedded, conv_norm_relu, he_normal
from .linear import LinearHead


class DaformerNeck(nn.Module):
    """Stages to `[B,width,h,w]` at the finest of the last four: a 1x1 branch, and a separable 3x3 a
    dilation above 1.
    """

    def __init__(self, channels: tuple[int, ...], width: int, dilations: tuple[int, ...]):
        super().__init__()
        self.embed = Embedded(channels, width)
        joined = width * len(self.embed.projections)
        self.branches = nn.ModuleList([conv_norm_relu(joined, width, 1)])
        for dilation in dilations:
            depthwise = conv_norm_relu(joined, joined, 3, dilation=dilation, groups=joined)
            self.branches.append(nn.Sequential(depthwise, conv_norm_relu(joined, width, 1)))
        self.mix = conv_norm_relu(width * len(self.branches), width, 3)
        he_normal(self)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        joined = torch.cat(self.embed(stages), dim=1)
        return self.mix(torch.cat([branch(joined) for branch in self.branches], dim=1))


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[DaformerNeck, LinearHead]:
    return DaformerNeck(channels, width, dilations), LinearHead(width, num_classes)
