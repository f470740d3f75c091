"""VGG-19 as a judge of likeness: images by its features, not by their pixels ([DISE])."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.errors import FgdaError
from .weights import check_finite, download, plain_names, read_tensors, weight_folder

WEIGHTS = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
WIDTHS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512,))  # of the convolutions between two poolings
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(nn.Module):
    """Images RGB 0-255 `[B,3,H,W]` -> features `[B,C,h,w]` after relu1_1, 2_1, 3_1, 4_1 and 5_1, fine ones first."""

    def __init__(self):
        super().__init__()
        self.stages, inputs = nn.ModuleList(), 3
        for widths in WIDTHS:
            sizes = (inputs, *widths)
            self.stages.append(nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, widths, strict=False)))
            inputs = widths[-1]
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = (images - self.mean) / self.std, []
        for number, stage in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if number else x
            for place, convolution in enumerate(stage):
                x = F.relu(convolution(x))
                if place == 0:
                    found.append(x)
        return found


def vgg19_file() -> Path:
    """Torchvision's ImageNet weights, downloaded once. Raises FgdaError that says which file goes where."""
    path = weight_folder() / WEIGHTS.rsplit("/", 1)[1]
    if not path.is_file():
        download(WEIGHTS, path)
    return path


def load_vgg19() -> Vgg19:
    """Raises FgdaError for weights that cannot be had, or that do not fit."""
    path, network = vgg19_file(), Vgg19()
    numbers, layer = {}, 0  # theirs count convolutions, activations and poolings in one sequence
    for stage, widths in enumerate(WIDTHS):
        layer += 1 if stage else 0
        for place in range(len(widths)):
            numbers[f"features.{layer}"] = f"stages.{stage}.{place}"
            layer += 2
    state = {}
    for key, value in plain_names(read_tensors(path)).items():
        name, _, part = key.rpartition(".")
        if name in numbers:
            state[f"{numbers[name]}.{part}"] = value
    check_finite(state, str(path))
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise FgdaError(f"{path} does not fit VGG-19: fetch {WEIGHTS} again") from None
    return network
