"""Building blocks of heads."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm_relu(
    inputs: int,
    outputs: int,
    kernel: int,
    dilation: int = 1,
    groups: int = 1,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Build a convolution that keeps the size, a norm, and ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(
        inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return nn.Sequential(convolution, norm(outputs), nn.ReLU(inplace=True))


def he_normal(module: nn.Module) -> None:
    """Draw the convolutions that a norm follows from N(0, 2 / fan out), as mmcv's ConvModule does
    (DAFormer, SegFormer, HRDA).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, border on border."""
    return (
        maps
        if maps.shape[-2:] == size
        else F.interpolate(maps, size, mode="bilinear", align_corners=False)
    )


class Embedded(nn.Module):
    """The last four stages, each projected to `width` and resized to the finest of them, joined:
    `[B,4 width,h,w]`.
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels[-4:])

    def forward(self, stages: tuple[Tensor, ...]) -> list[Tensor]:
        inputs = stages[-len(self.projections) :]
        size = inputs[0].shape[-2:]
        return [
            resize(projection(stage), size)
            for projection, stage in zip(self.projections, inputs, strict=True)
        ]
