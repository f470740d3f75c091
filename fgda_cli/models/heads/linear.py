"""One 1x1 convolution: on the last stage, or the end of a head whose features are made by a
neck.
"""

from __future__ import annotations

from torch import Tensor, nn


class LinearHead(nn.Module):
    """Features `[B,C,h,w]` -> logits `[B,K,h,w]` by one 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True, std: float = 0.01):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(channels, num_classes, 1, bias=bias)])
        nn.init.normal_(self.convs[0].weight, 0.0, std)

    def forward(self, features: Tensor) -> Tensor:
        return self.convs[0](features)


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[None, LinearHead]:
    """Build a linear head on the last stage."""
    return None, LinearHead(channels[-1], num_classes)
