"""A head on every stage: projected to one width, resized, fused by one block that normalises."""

from __future__ import annotations

from functools import partial
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv_norm_relu
from .linear import LinearHead

# of the fused map, where the encoder has a stage so fine
STRIDE = 8


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a group norm, which needs no batch and whose statistics belong to no domain."""
    return nn.GroupNorm(gcd(32, channels), channels)


pointwise = partial(conv_norm_relu, kernel=1, norm=group_norm)


class FusedNeck(nn.Module):
    """Stages `[B,C_i,h_i,w_i]` -> fused features `[B,width,h,w]` at stride 8, or the finest stride
    above.

    Each stage is projected to `width`; finer ones are averaged down, coarser ones enlarged; a
    depthwise-separable ASPP (a 1x1 and a 3x3 a dilation, as [DAFormer] fuses) mixes them. Unlike
    the summed 3x3 of `aspp`, every sum is normalised.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        width: int,
        dilations: tuple[int, ...],
    ):
        super().__init__()
        fine = [index for index, stride in enumerate(strides) if stride >= STRIDE] or [
            len(strides) - 1
        ]
        self.reference = fine[0]
        self.projections = nn.ModuleList(pointwise(count, width) for count in channels)
        joined = width * len(channels)
        self.branches = nn.ModuleList([pointwise(joined, width)])
        for dilation in dilations:
            depthwise = nn.Conv2d(
                joined, joined, 3, padding=dilation, dilation=dilation, groups=joined, bias=False
            )
            self.branches.append(nn.Sequential(depthwise, pointwise(joined, width)))
        self.mix = pointwise(width * len(self.branches), width)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        size = stages[self.reference].shape[-2:]
        resized = [
            self._resize(projection, stage, size)
            for projection, stage in zip(self.projections, stages, strict=True)
        ]
        joined = torch.cat(resized, dim=1)
        return self.mix(torch.cat([branch(joined) for branch in self.branches], dim=1))

    @staticmethod
    def _resize(projection: nn.Module, stage: Tensor, size: tuple[int, int]) -> Tensor:
        if stage.shape[-2] > size[0]:
            return projection(F.adaptive_avg_pool2d(stage, size))
        projected = projection(stage)
        return (
            projected
            if projected.shape[-2:] == size
            else F.interpolate(projected, size, mode="bilinear", align_corners=True)
        )


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[FusedNeck, LinearHead]:
    return FusedNeck(channels, strides, width, dilations=dilations), LinearHead(width, num_classes)
