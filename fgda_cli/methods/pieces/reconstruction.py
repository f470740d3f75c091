"""Networks that take images apart into structure and texture and put them together again ([DISE]).

No bias before a norm, which takes it off again: Adam would let it drift on rounding errors.
"""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.discriminators import BinaryDiscriminator


class LayerNorm(nn.Module):
    """Over C, H and W of each image, by the unbiased deviation; scale (first uniform in [0, 1]) and
    shift by channel.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        by_image = x.flatten(1)
        mean = by_image.mean(dim=1).view(-1, 1, 1, 1)
        deviation = by_image.std(dim=1).view(-1, 1, 1, 1)
        scale = self.scale.view(1, -1, 1, 1)
        shift = self.shift.view(1, -1, 1, 1)
        return (x - mean) / (deviation + 1e-5) * scale + shift


class TextureEncoder(nn.Module):
    """The encoder's first stage `[B,C,h,w]` -> 8 numbers an image `[B,8]`. Group norm, where the
    original has batch norm.
    """

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        sizes = (channels, width, 2 * width, 4 * width, 4 * width, 4 * width)
        for number, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            kernel = 7 if number == 0 else 3
            norm = nn.GroupNorm(gcd(32, outputs), outputs)
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False),
                norm,
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(sizes[-1], 8, 1)

    def forward(self, stage: Tensor) -> Tensor:
        return self.last(self.layers(stage).mean(dim=(2, 3), keepdim=True))[..., 0, 0]


class Block(nn.Module):
    """x + LN(conv(ReLU(LN(conv(x)))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Decoder(nn.Module):
    """Structure (the last stage `[B,C,h,w]`), texture `[B,8]` and the domain's bit to an image
    `[B,3,H,W]` in [-1, 1].
    """

    def __init__(self, channels: int, width: int = 256):
        super().__init__()
        mapping: list[nn.Module] = []
        for outputs in (8, 8, 8, width):
            mapping += [nn.Linear(8, outputs), nn.ReLU(inplace=True)]
        self.texture = nn.Sequential(*mapping)
        self.enter = nn.Conv2d(channels + width + 1, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        sizes = (width, width // 2, width // 4, width // 8)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(inputs, inputs, 4, stride=2, padding=1, bias=False)
            for inputs in sizes[:3]
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.InstanceNorm2d(inputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(inputs, outputs, 3, padding=1),
            )
            for inputs, outputs in zip(sizes, sizes[1:], strict=False)
        )
        self.leave = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(
        self, structure: Tensor, texture: Tensor, is_target: bool, size: tuple[int, int]
    ) -> Tensor:
        height, width = structure.shape[-2:]
        # texture and domain are the same in every place
        tiled = self.texture(texture)[:, :, None, None].expand(-1, -1, height, width)
        bit = torch.full_like(tiled[:, :1], float(is_target))
        x = self.blocks(self.enter(torch.cat([structure, tiled, bit], dim=1)))
        # networks that pool with ceil_mode have one row and column more than an eighth of the image
        beyond = tuple(
            int(8 * side > wanted) for side, wanted in zip((height, width), size, strict=True)
        )
        for number, (up, smooth) in enumerate(zip(self.ups, self.smooth, strict=True)):
            # what is beyond is cut off at once, by padding more
            padding = tuple(1 + more for more in beyond) if number == 0 else 1
            x = smooth(F.conv_transpose2d(x, up.weight, stride=2, padding=padding))
        image = torch.tanh(self.leave(x))
        if image.shape[-2:] == size:
            return image
        return F.interpolate(image, size, mode="bilinear", align_corners=False)


class ImageDiscriminator(nn.Module):
    """Images `[B,3,H,W]` -> scores `[B,1,H/16,W/16]`."""

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 6, stride=2, padding=2),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for factor in (1, 2, 4):
            layers += [
                nn.Conv2d(factor * width, 2 * factor * width, 4, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(2 * factor * width),
            ]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class OutputDiscriminator(BinaryDiscriminator):
    """Class maps `[B,K,H,W]` -> domain logits `[B,1,H/16+1,W/16+1]`; the source is 1."""

    def __init__(self, num_classes: int, width: int = 64):
        super().__init__(num_classes, width, last=(1, 2))
