"""Pyramid pooling on the last stage (PSPNet, as [PYCDA] has it)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_norm_relu, resize
from .linear import LinearHead

# cells a side over which the stage is averaged
POOLS = (1, 2, 3, 6)


class PyramidNeck(nn.Module):
    """The last stage `[B,C,h,w]`, and its means over 1, 2x2, 3x3 and 6x6 cells, to
    `[B,width,h,w]`.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.levels = nn.ModuleList(conv_norm_relu(channels, width, 1) for _ in POOLS)
        self.mix = conv_norm_relu(channels + len(POOLS) * width, width, 3)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        stage = stages[-1]
        size = stages[-1].shape[-2:]
        pooled = (
            level(F.adaptive_avg_pool2d(stage, cells))
            for level, cells in zip(self.levels, POOLS, strict=True)
        )
        enlarged = [resize(cells, size) for cells in pooled]
        return self.mix(torch.cat([stage, *enlarged], dim=1))


class AuxHead(nn.Module):
    """A 3x3 convolution to half of the channels, batch norm, ReLU, and the logits."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.mix = conv_norm_relu(channels, max(1, channels // 2), 3)
        self.last = LinearHead(max(1, channels // 2), num_classes)

    def forward(self, stage: Tensor) -> Tensor:
        return self.last(self.mix(stage))


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[PyramidNeck, LinearHead]:
    return PyramidNeck(channels[-1], width), LinearHead(width, num_classes)


def build_aux(num_classes: int, channels: int, dilations: tuple[int, ...]) -> AuxHead:
    return AuxHead(channels, num_classes)
