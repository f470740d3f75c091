"""VFM-UDA++'s head: from the coarsest of four stages to the finest, each enlarged by learned 2x2
steps ([VFMUDA++]).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import resize
from .linear import LinearHead

NORM_MOMENTUM = 0.01
STRIDES = (4, 8, 16, 32)


class UpscaleNeck(nn.Module):
    """Stages at strides 4, 8, 16, 32 to `[B,width,h,w]` at stride 4; the steps between are four and
    two times as wide.
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        inputs = channels[-1]
        for number, outputs in enumerate((4 * width, 2 * width, width), 1):
            setattr(self, f"up_conv{number}", nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
            setattr(self, f"reduce_conv{number}", nn.Conv2d(channels[-1 - number], outputs, 1))
            setattr(self, f"smooth_conv{number}", nn.Conv2d(outputs, outputs, 3, padding=1))
            setattr(self, f"norm{number}", nn.BatchNorm2d(outputs, momentum=NORM_MOMENTUM))
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


def build(
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
) -> tuple[UpscaleNeck, LinearHead]:
    """Build the head. Raises ValueError for an encoder without stages at strides 4, 8, 16 and
    32.
    """
    if tuple(strides[-4:]) != STRIDES:
        raise ValueError(
            "the upscale head needs stages at strides 4, 8, 16 and 32, not"
            f" {', '.join(map(str, strides))}"
        )
    return UpscaleNeck(channels, width), LinearHead(width, num_classes, bias=False, std=0.1)
