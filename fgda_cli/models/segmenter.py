"""DeepLab-V2: a dilated backbone, one ASPP head on layer4 and, multi-level, one on layer3 ([ADAPT], [Z22] §4.2)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.distributed import ProcessGroup
from . import encoders as backbones
from . import normalisation as shared_norm

# What each variant's ImageNet weights were trained with: RGB or BGR, scale, mean, standard deviation.
NORMALISATION = {
    "torchvision": (False, 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (True, 1.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0)),
}


class Output(NamedTuple):
    """What a forward returns, all at the backbone's stride."""

    logits: Tensor  # [B,K,h,w]
    aux_logits: Tensor | None  # [B,K,h,w] from layer3, multi-level only
    features: Tensor  # [B,C4,h,w] of layer4, the discriminator's input
    aux_features: Tensor  # [B,C3,h,w] of layer3


class Normalise(nn.Module):
    """RGB 0-255 `[B,3,H,W]` (uint8 or float) to the backbone's input; constants travel in the checkpoint."""

    def __init__(self, variant: str):
        super().__init__()
        bgr, scale, mean, std = NORMALISATION[variant]
        self.register_buffer("bgr", torch.tensor(bgr))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * scale)
        self.flip = bgr

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.flip else images
        return (images.to(self.mean.dtype) - self.mean) / self.std


class AsppHead(nn.Module):
    """Four parallel dilated 3x3 convolutions whose outputs are summed: `[B,C,h,w]` -> `[B,K,h,w]`.

    Computed as one product of all taps' weights with the features, whose K maps a tap are then shifted and added: K is
    too small, and the dilations too large, for processors' convolution kernels (a third of a product's speed).
    """

    def __init__(self, channels: int, num_classes: int, dilations: tuple[int, ...] = (6, 12, 18, 24)):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, num_classes, 3, padding=d, dilation=d) for d in dilations)
        for conv in self.convs:
            nn.init.normal_(conv.weight, 0.0, 0.01)

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        taps, shifts = [], []
        for conv in self.convs:
            step = conv.dilation[0]
            for row, column in itertools.product(range(3), range(3)):
                down, right = (1 - row) * step, (1 - column) * step
                if abs(down) < height and abs(right) < width:  # others look beyond the border alone
                    taps.append(conv.weight[:, :, row, column])
                    shifts.append((right, -right, down, -down))
        maps = F.conv2d(features, torch.cat(taps)[:, :, None, None]).chunk(len(taps), dim=1)
        exact = torch.promote_types(features.dtype, torch.float32)  # sums of many terms in at least fp32
        logits = sum(conv.bias for conv in self.convs).to(exact).view(1, -1, 1, 1)
        for tap, shift in zip(maps, shifts, strict=True):
            logits = logits + F.pad(tap.to(exact), shift)
        return logits


class DeepLabV2(nn.Module):
    """The segmentation network; input RGB 0-255 `[B,3,H,W]`, normalisation included."""

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        variant: str = "torchvision",
        output_stride: int = 8,
        width: int = 64,
        multi_level: bool = True,
        dilations: tuple[int, ...] = (6, 12, 18, 24),
    ):
        super().__init__()
        self.normalise = Normalise(variant)
        self.backbone = backbones.family(backbone).build(backbone, variant, output_stride, width)
        aux_channels, channels = self.backbone.channels
        self.head = AsppHead(channels, num_classes, dilations)
        self.aux_head = AsppHead(aux_channels, num_classes, dilations) if multi_level else None
        self.num_classes, self.frozen_batch_norm = num_classes, False
        self.input_size: tuple[int, int] | None = None  # width, height the network was evaluated at

    def forward(self, images: Tensor) -> Output:
        layer3, layer4 = self.backbone(self.normalise(images))
        aux_logits = self.aux_head(layer3) if self.aux_head is not None and self.training else None
        return Output(self.head(layer4), aux_logits, layer4, layer3)

    def freeze_batch_norm(self) -> None:
        """Keep running statistics and affine parameters as they are, in training mode too ([Z22] §4.2)."""
        self.frozen_batch_norm = True
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        self.train(self.training)

    @contextmanager
    def untracked_statistics(self) -> Iterator[None]:
        """Inside, forwards in training mode normalise by the batch but leave the running statistics as they are."""
        layers = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        try:
            for layer in layers:
                layer.momentum = 0.0
            yield
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum

    def share_batch_norm(self, process_group: ProcessGroup) -> None:
        """Let batch norm in training mode see the images of all processes."""
        shared_norm.share_batch_norm(self, process_group)

    def own_statistics(self) -> AbstractContextManager[None]:
        """Inside, batch norm sees this process's images alone."""
        return shared_norm.unshared(self)

    def train(self, mode: bool = True) -> DeepLabV2:
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def parameter_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        """Optimiser groups: the backbone at `lr`, the heads at `lr * head_lr_factor`; frozen parameters left out."""
        heads = [self.head] + ([self.aux_head] if self.aux_head is not None else [])
        body = [p for p in self.backbone.parameters() if p.requires_grad]
        head = [p for module in heads for p in module.parameters() if p.requires_grad]
        return [{"params": body, "lr": lr}, {"params": head, "lr": lr * head_lr_factor}]
