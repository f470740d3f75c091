"""SegFormer's head: four stages embedded alike, joined, mixed by one 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Embedded, conv_norm_relu, he_normal
from .linear import LinearHead


class SegformerNeck(nn.Module):
    """Stages to `[B,width,h,w]` at the finest of the last four."""

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        self.embed = Embedded(channels, width)
        self.mix = conv_norm_relu(width * len(self.embed.projections), width, 1)
        he_normal(self)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        return self.mix(torch.cat(self.embed(stages), dim=1))


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[SegformerNeck, LinearHead]:
    return SegformerNeck(channels, width), LinearHead(width, num_classes)
