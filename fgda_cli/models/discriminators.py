"""Discriminators: the fine-grained one of FADA and the paper, the binary one of AdaptSegNet and
ADVENT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FineGrainedDiscriminator(nn.Module):
    """Features `[B,C,h,w]` -> domain logits `[B,2K,h,w]`: first K "source, class k", then K
    "target, class k".

    3x3 convolutions {256, 128, K + K}, LeakyReLU 0.2, stride 1 ([FADA] code, [Z22] §3.1).
    """

    def __init__(self, channels: int, num_classes: int, widths: tuple[int, int] = (256, 128)):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(widths[0], widths[1], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.source = nn.Conv2d(widths[1], num_classes, 3, padding=1)
        self.target = nn.Conv2d(widths[1], num_classes, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.body(features)
        return torch.cat([self.source(hidden), self.target(hidden)], dim=1)


class BinaryDiscriminator(nn.Module):
    """Class maps `[B,K,H,W]` -> domain logits `[B,1,H/32,W/32]`: five 4x4 convolutions of stride 2
    ([ADAPT]).

    `last` is stride and padding of the fifth.
    """

    def __init__(self, num_classes: int, width: int = 64, last: tuple[int, int] = (2, 1)):
        super().__init__()
        channels = (num_classes, width, width * 2, width * 4, width * 8)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, *last))

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class FeatureDiscriminator(nn.Module):
    """Features `[B,C,h,w]` -> domain logits `[B,1,h,w]`: 3x3 convolutions {256, 128, 1}, LeakyReLU
    0.2, stride 1.
    """

    def __init__(self, channels: int, widths: tuple[int, int] = (256, 128)):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(widths[0], widths[1], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(widths[1], 1, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)
