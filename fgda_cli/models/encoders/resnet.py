"""Dilated ResNet in the two public variants, with torchvision's parameter names.

`torchvision`: stride in the 3x3 convolution, first block of a dilated layer keeps the previous
dilation, no ceil_mode. `caffe` ([ADAPT], [ADVENT]): stride in the first 1x1, every block of a
dilated layer dilated, max-pool with ceil_mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import IMAGENET, Input

# What each variant's ImageNet weights were trained with.
INPUT = {
    "torchvision": IMAGENET,
    "caffe": Input(True, 1.0, (104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0)),
}
LAYERS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BASIC = ("resnet18", "resnet34")
# By name, variant and recipe. The published runs began at the original recipe ("imagenet");
# torchvision's later one ("imagenet-v2") is better on ImageNet.
WEIGHTS = {
    (
        "resnet18",
        "torchvision",
        "imagenet",
    ): "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    (
        "resnet34",
        "torchvision",
        "imagenet",
    ): "https://download.pytorch.org/models/resnet34-b627a593.pth",
    (
        "resnet50",
        "torchvision",
        "imagenet",
    ): "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    (
        "resnet50",
        "torchvision",
        "imagenet-v2",
    ): "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    (
        "resnet101",
        "torchvision",
        "imagenet",
    ): "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    (
        "resnet101",
        "torchvision",
        "imagenet-v2",
    ): "https://download.pytorch.org/models/resnet101-cd907fc2.pth",
    (
        "resnet101",
        "caffe",
        "imagenet",
    ): "http://vllab.ucmerced.edu/ytsai/CVPR18/DeepLab_resnet_pretrained_init-f81d91e8.pth",
}


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation, bias=False
    )


# scale and shift `[C]` of those that are fixed
Fixed = dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]


def fixed_norms(module: nn.Module) -> Fixed:
    """Return gamma / sqrt(var + eps) and beta - mean gamma / sqrt(var + eps) of a network's fixed
    batch norms, all at once, because a GPU computes 500 small kernels faster than they can be
    launched.
    """
    norms = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm2d) and not layer.training
    ]
    # torch.compile fuses these kernels itself, and torch 2.4 cannot compile parts of one tensor
    if torch.compiler.is_compiling():
        return {
            norm: _constants(
                norm.weight, norm.bias, norm.running_mean, var=norm.running_var, eps=norm.eps
            )
            for norm in norms
        }
    constants: Fixed = {}
    for eps in {norm.eps for norm in norms}:
        alike = [norm for norm in norms if norm.eps == eps]
        sizes = [norm.num_features for norm in alike]
        names = ("weight", "bias", "running_mean", "running_var")
        joined = _constants(
            *(torch.cat([getattr(norm, name) for norm in alike]) for name in names), eps
        )
        constants |= zip(
            alike, zip(*(values.split(sizes) for values in joined), strict=True), strict=True
        )
    return constants


def _constants(
    gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    scale = gamma * (var + eps).rsqrt()
    shift = beta - mean * scale
    device = scale.device.type
    # the meta device knows no autocast
    if device != "meta" and torch.is_autocast_enabled(device):
        # autocast rounds a convolution's bias so
        shift = shift.to(torch.get_autocast_dtype(device))
    return scale, shift


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, fixed: Fixed) -> Tensor:
    """Return norm(conv(x)). Fixed batch norm is folded into the convolution, which saves a pass
    over the activations and their memory.

    W' = W gamma / sqrt(var + eps) stays a function of W, so the gradients are those of the unfolded
    pair.
    """
    if norm not in fixed:
        return norm(conv(x))
    scale, shift = fixed[norm]
    return F.conv2d(
        x,
        conv.weight * scale.view(-1, 1, 1, 1),
        shift,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, variant: str):
        super().__init__()
        self.conv1 = conv(inputs, planes, 3, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride=1, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor, fixed: Fixed) -> Tensor:
        identity = x if self.downsample is None else conv_norm(*self.downsample, x, fixed)
        x = self.relu(conv_norm(self.conv1, self.bn1, x, fixed=fixed))
        return self.relu(conv_norm(self.conv2, self.bn2, x, fixed=fixed).add_(identity))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, variant: str):
        super().__init__()
        first, second = (stride, 1) if variant == "caffe" else (1, stride)
        self.conv1 = conv(inputs, planes, 1, stride=first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride=second, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(planes, planes * 4, 1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes * 4, stride)

    def forward(self, x: Tensor, fixed: Fixed) -> Tensor:
        identity = x if self.downsample is None else conv_norm(*self.downsample, x, fixed)
        x = self.relu(conv_norm(self.conv1, self.bn1, x, fixed=fixed))
        x = self.relu(conv_norm(self.conv2, self.bn2, x, fixed=fixed))
        return self.relu(conv_norm(self.conv3, self.bn3, x, fixed=fixed).add_(identity))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """`[B,3,H,W]` normalised -> features of layer1 to layer4, `[B,C,h,w]`; the last have h = H /
    output_stride.
    """

    def __init__(
        self, name: str, variant: str = "torchvision", output_stride: int = 8, width: int = 64
    ):
        super().__init__()
        block = BasicBlock if name in BASIC else Bottleneck
        self.block = block
        self.variant = variant
        self.inputs = width
        self.dilation = 1
        # keep each block's input alone and compute it again going backward
        self.checkpoint_activations = False
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=variant == "caffe")
        depths = LAYERS[name]
        dilated = {8: (3, 4), 16: (4,), 32: ()}[output_stride]
        for index, depth in enumerate(depths, start=1):
            layer = self._layer(
                width * 2 ** (index - 1), depth, 1 if index == 1 else 2, dilate=index in dilated
            )
            setattr(self, f"layer{index}", layer)
        self.channels = tuple(width * 2**index * block.expansion for index in range(4))
        self.strides = (4, 8, *(min(stride, output_stride) for stride in (16, 32)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _layer(self, planes: int, depth: int, stride: int, dilate: bool) -> nn.Sequential:
        before = self.dilation
        if dilate:
            self.dilation = self.dilation * stride
            stride = 1
        first = self.dilation if self.variant == "caffe" else before
        blocks = []
        for index in range(depth):
            blocks.append(
                self.block(
                    self.inputs,
                    planes,
                    stride if index == 0 else 1,
                    first if index == 0 else self.dilation,
                    self.variant,
                )
            )
            self.inputs = planes * self.block.expansion
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        fixed = fixed_norms(self)
        stages = []
        recomputed = self.checkpoint_activations and torch.is_grad_enabled()
        x = self.maxpool(self.relu(conv_norm(self.conv1, self.bn1, x, fixed=fixed)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = (
                    checkpoint(block, x, fixed, use_reentrant=False, preserve_rng_state=False)
                    if recomputed
                    else block(x, fixed)
                )
            stages.append(x)
        return stages


def build(
    name: str, variant: str, output_stride: int | str, width: int, drop_path: float = 0.0
) -> ResNet:
    """Build the encoder. Raises ValueError for a depth that the family lacks, and for a share of
    skipped blocks.
    """
    if drop_path:
        raise ValueError("model.drop_path belongs to mit: and timm: encoders; these skip no block")
    if name not in LAYERS:
        raise ValueError(
            f"backbone '{name}' is unknown: the family has {', '.join(LAYERS)}, or any timm:NAME"
        )
    return ResNet(name, variant, 32 if output_stride == "native" else output_stride, width=width)


def input_of(name: str, variant: str) -> Input:
    return INPUT[variant]


def adapt_weights(
    state: dict[str, Tensor], name: str, output_stride: int | str
) -> dict[str, Tensor]:
    """Drop what is not the backbone (fc, DeepLab heads) from a foreign state dict."""
    return {
        key: value
        for key, value in state.items()
        if key.split(".")[0] not in ("fc", "layer5", "layer6")
    }


def describe_weights(name: str) -> dict[str, str | None]:
    """Say where the torchvision variant's weights come from, and their licence."""
    recipes = [
        recipe for known, variant, recipe in WEIGHTS if (known, variant) == (name, "torchvision")
    ]
    return {"weights": ", ".join(recipes) or "none", "licence": "bsd-3-clause" if recipes else None}
