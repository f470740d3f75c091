"""VGG-19 as a judge of likeness: images by its features, not by their pixels ([DISE])."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import vgg19

from ..runtime.errors import FgdaError
from .encoders import IMAGENET
from .normalisation import Normalise
from .weights import check_finite, download, plain_names, read_tensors, weight_folder

WEIGHTS = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
# indices of the layers relu1_1, 2_1, 3_1, 4_1, 5_1
SEEN = (1, 6, 11, 20, 29)


class Vgg19(nn.Module):
    """Images RGB 0-255 `[B,3,H,W]` -> features `[B,C,h,w]` of the layers SEEN, fine ones first."""

    def __init__(self):
        super().__init__()
        # weights are put in; its classifier is never made
        with torch.device("meta"):
            self.features = vgg19(weights=None).features[: SEEN[-1] + 1]
        self.normalise = Normalise(IMAGENET)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.normalise(images)
        features = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in SEEN:
                features.append(x)
        return features


def vgg19_file() -> Path:
    """Return torchvision's ImageNet weights, downloaded once. Raises FgdaError that says which file
    goes where.
    """
    path = weight_folder() / WEIGHTS.rsplit("/", 1)[1]
    if not path.is_file():
        download(WEIGHTS, path)
    return path


def load_vgg19() -> Vgg19:
    """Load the network. Raises FgdaError for weights that cannot be had, or that do not fit."""
    path = vgg19_file()
    network = Vgg19()
    wanted = network.features.state_dict().keys()
    named = {
        key.removeprefix("features."): value
        for key, value in plain_names(read_tensors(path)).items()
    }
    state = {key: named[key] for key in wanted if key in named}
    check_finite(state, str(path))
    try:
        network.features.load_state_dict(state, assign=True)
    except RuntimeError:
        raise FgdaError(f"{path} does not fit VGG-19: fetch {WEIGHTS} again") from None
    return network
