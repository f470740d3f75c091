"""The DeepLab-V2 head."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AsppHead(nn.Module):
    """Four parallel dilated 3x3 convolutions whose outputs are summed: `[B,C,h,w]` -> `[B,K,h,w]`.

    Computed as one product of all taps' weights with the features, whose K maps a tap are then
    shifted and added: K is too small, and the dilations too large, for processors' convolution
    kernels (a third of a product's speed). A GPU adds a convolution's nine shifted maps in one
    kernel (`F.fold`), where a processor is faster one by one.
    """

    def __init__(
        self, channels: int, num_classes: int, dilations: tuple[int, ...] = (6, 12, 18, 24)
    ):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=d, dilation=d) for d in dilations
        )
        for conv in self.convs:
            nn.init.normal_(conv.weight, 0.0, 0.01)

    def forward(self, features: Tensor) -> Tensor:
        return self.by_taps(features) if features.device.type == "cpu" else self.by_folds(features)

    def by_folds(self, features: Tensor) -> Tensor:
        # [4 K 9, C]
        taps = torch.cat(
            [conv.weight.flip(2, 3).movedim(1, -1).flatten(0, 2) for conv in self.convs]
        )
        maps = F.conv2d(features, taps[:, :, None, None])
        logits = self.bias(features)
        for conv, part in zip(
            self.convs, maps.to(logits.dtype).chunk(len(self.convs), dim=1), strict=True
        ):
            step = conv.dilation[0]
            logits = logits + F.fold(
                part.flatten(2), features.shape[-2:], 3, dilation=step, padding=step
            )
        return logits

    def by_taps(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        taps = []
        shifts = []
        for conv in self.convs:
            step = conv.dilation[0]
            for row, column in itertools.product(range(3), range(3)):
                down = (1 - row) * step
                right = (1 - column) * step
                # others look beyond the border alone
                if abs(down) < height and abs(right) < width:
                    taps.append(conv.weight[:, :, row, column])
                    shifts.append((right, -right, down, -down))
        maps = F.conv2d(features, torch.cat(taps)[:, :, None, None]).chunk(len(taps), dim=1)
        logits = self.bias(features)
        for tap, shift in zip(maps, shifts, strict=True):
            logits = logits + F.pad(tap.to(logits.dtype), shift)
        return logits

    def bias(self, features: Tensor) -> Tensor:
        """Return the sum of all convolutions' biases, `[1,K,1,1]`, in fp32 at least, because many
        terms are added to it.
        """
        exact = torch.promote_types(features.dtype, torch.float32)
        return sum(conv.bias for conv in self.convs).to(exact).view(1, -1, 1, 1)


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[None, AsppHead]:
    return None, AsppHead(channels[-1], num_classes, dilations)


def build_aux(num_classes: int, channels: int, dilations: tuple[int, ...]) -> AsppHead:
    return AsppHead(channels, num_classes, dilations)
