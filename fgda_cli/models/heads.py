"""Heads: features of the encoder's stages to logits.

A neck makes `[B,width,h,w]` features of all stages; a head makes logits of features by
convolutions, `head.convs`, whose outputs are summed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoders import sides

# The necks' own numbers: cells a side over which PSPNet averages the last stage; the scales of the
# last four stages over the stride of a plain ViT (stages that are a pyramid stay as they are); the
# stride of the fused map, if the encoder has a stage so fine.
POOLS = (1, 2, 3, 6)
DPT_SCALES = (4, 2, 1, 0.5)
FUSED_STRIDE = 8
UPSCALE_STRIDES = (4, 8, 16, 32)
UPSCALE_NORM_MOMENTUM = 0.01
# heads whose last convolution starts as in mmsegmentation, with a bias of 0
FROM_MMSEG = ("daformer", "segformer")


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


class LinearHead(nn.Module):
    """Features `[B,C,h,w]` -> logits `[B,K,h,w]` by one 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True, std: float = 0.01):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(channels, num_classes, 1, bias=bias)])
        nn.init.normal_(self.convs[0].weight, 0.0, std)

    def forward(self, features: Tensor) -> Tensor:
        return self.convs[0](features)


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


class PyramidNeck(nn.Module):
    """PSPNet's pyramid pooling, as [PYCDA] has it.

    The last stage `[B,C,h,w]`, and its means over 1, 2x2, 3x3 and 6x6 cells, to `[B,width,h,w]`.
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


class PyramidAuxHead(nn.Module):
    """PSPNet's auxiliary head: a 3x3 convolution to half of the channels, batch norm, ReLU, and the
    logits.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.mix = conv_norm_relu(channels, max(1, channels // 2), 3)
        self.last = LinearHead(max(1, channels // 2), num_classes)

    def forward(self, stage: Tensor) -> Tensor:
        return self.last(self.mix(stage))


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
        # the finest stage that is not finer than needed, else the last
        coarse = (index for index, stride in enumerate(strides) if stride >= FUSED_STRIDE)
        self.reference = next(coarse, len(strides) - 1)
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


class DaformerNeck(nn.Module):
    """Four stages embedded alike, mixed by a depthwise-separable ASPP ([DAFormer] §3.2).

    Stages to `[B,width,h,w]` at the finest of the last four: a 1x1 branch, and a separable 3x3 a
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


class SegformerNeck(nn.Module):
    """SegFormer: four stages embedded alike, joined, mixed by one 1x1 convolution.

    Stages to `[B,width,h,w]` at the finest of the last four.
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        self.embed = Embedded(channels, width)
        self.mix = conv_norm_relu(width * len(self.embed.projections), width, 1)
        he_normal(self)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        return self.mix(torch.cat(self.embed(stages), dim=1))


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
    """For plain ViTs, whose stages are all of one stride: made into a pyramid, then fused from
    coarse to fine (DPT).

    Stages to `[B,width,h,w]` at four times the resolution of a ViT's patches, or at the finest
    of the last four stages.
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], width: int):
        super().__init__()
        count = min(4, len(channels))
        self.scales = DPT_SCALES[-count:] if len(set(strides[-count:])) == 1 else (1,) * count
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


class UpscaleNeck(nn.Module):
    """VFM-UDA++'s neck: from the coarsest stage to the finest, each enlarged by learned 2x2
    steps ([VFMUDA++]).

    Stages at strides 4, 8, 16, 32 to `[B,width,h,w]` at stride 4; the steps between are four and
    two times as wide.
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        inputs = channels[-1]
        for number, outputs in enumerate((4 * width, 2 * width, width), 1):
            setattr(self, f"up_conv{number}", nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
            setattr(self, f"reduce_conv{number}", nn.Conv2d(channels[-1 - number], outputs, 1))
            setattr(self, f"smooth_conv{number}", nn.Conv2d(outputs, outputs, 3, padding=1))
            setattr(self, f"norm{number}", nn.BatchNorm2d(outputs, momentum=UPSCALE_NORM_MOMENTUM))
            inputs = outputs
        self.smooth_conv4 = nn.Conv2d(width, width, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                fan = "fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in"
                nn.init.kaiming_uniform_(layer.weight, mode=fan, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        f1, f2, f3, x = stages[-4:]
        for number, finer in enumerate((f3, f2, f1), 1):
            up, reduce, smooth, norm = (
                getattr(self, f"{part}{number}")
                for part in ("up_conv", "reduce_conv", "smooth_conv", "norm")
            )
            x = F.relu(norm(smooth(resize(up(x), finer.shape[-2:]) + reduce(finer))))
        return self.smooth_conv4(x)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of `[B,C,h,w]`."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


class TransposedNeck(nn.Sequential):
    """VFM-UDA's neck: the last stage `[B,C,h,w]`, enlarged twice by learned 2x2 steps to
    `[B,C/4,4h,4w]` ([VFMUDA]).
    """

    def __init__(self, channels: int):
        half = channels // 2
        width = channels // 4
        norm = partial(LayerNorm2d, eps=1e-6)
        super().__init__(
            nn.ConvTranspose2d(channels, half, 2, stride=2, bias=False),
            norm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, width, 2, stride=2, bias=False),
            norm(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
        )

    def forward(self, stages: tuple[Tensor, ...]) -> Tensor:
        return super().forward(stages[-1])


def build(
    kind: str,
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
    multi_level: bool,
) -> tuple[nn.Module | None, nn.Module, nn.Module | None]:
    """Build the neck (None: the head reads the last stage), the head, and the auxiliary head on the
    stage before the last. Raises ValueError for stages that the head cannot read.
    """
    # Random weights are drawn in this order: neck, head, auxiliary head.
    neck = None
    if kind == "pyramid":
        neck = PyramidNeck(channels[-1], width)
    elif kind == "fused":
        neck = FusedNeck(channels, strides, width, dilations=dilations)
    elif kind == "daformer":
        neck = DaformerNeck(channels, width, dilations)
    elif kind == "segformer":
        neck = SegformerNeck(channels, width)
    elif kind == "dpt":
        neck = DptNeck(channels, strides, width)
    elif kind == "upscale":
        if tuple(strides[-4:]) != UPSCALE_STRIDES:
            raise ValueError(
                "the upscale head needs stages at strides 4, 8, 16 and 32, not"
                f" {', '.join(map(str, strides))}"
            )
        neck = UpscaleNeck(channels, width)
    elif kind == "transposed":
        if width != channels[-1] // 4:
            raise ValueError(
                f"the transposed head is a quarter as wide as the encoder: set model.head_width to"
                f" {channels[-1] // 4}"
            )
        neck = TransposedNeck(channels[-1])

    if kind == "aspp":
        head = AsppHead(channels[-1], num_classes, dilations)
    elif kind in ("upscale", "transposed"):
        head = LinearHead(width, num_classes, bias=False, std=0.1)
    else:
        head = LinearHead(channels[-1] if neck is None else width, num_classes)
    if kind in FROM_MMSEG:
        nn.init.zeros_(head.convs[0].bias)

    if not multi_level:
        return neck, head, None
    if kind == "pyramid":
        return neck, head, PyramidAuxHead(channels[-2], num_classes)
    return neck, head, AsppHead(channels[-2], num_classes, dilations)
