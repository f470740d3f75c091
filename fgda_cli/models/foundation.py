"""A frozen foundation model as a teacher of features, and the head through which a student is
compared with it ([VFMUDA++]).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.errors import FgdaError
from .encoders import sides
from .encoders import timm as timm_family
from .heads import LayerNorm2d, resize
from .normalisation import Normalise
from .weights import check_finite, find_weights, flat_state, plain_names, read_tensors

CNN_STRIDE = 32


class Foundation(nn.Module):
    """Images RGB 0-255 `[B,3,H,W]` to features `[B,D,h,w]`: a ViT's patch tokens after its last
    norm, a CNN's last map.

    The image is read at `scale` of its size, in whole patches; class and register tokens are left
    out.
    """

    def __init__(self, net: nn.Module, name: str, scale: float):
        super().__init__()
        self.normalise = Normalise(timm_family.input_of(name, "torchvision"))
        self.net = net
        self.scale = scale
        patches = getattr(net, "patch_embed", None)
        self.step = patches.patch_size[0] if hasattr(net, "num_prefix_tokens") else CNN_STRIDE
        self.channels = net.num_features

    def forward(self, images: Tensor) -> Tensor:
        cells = [max(1, round(side * self.scale / self.step)) for side in sides(images)]
        features = self.net.forward_features(
            resize(self.normalise(images), tuple(side * self.step for side in cells))
        )
        if features.ndim == 4:
            return features
        return features[:, self.net.num_prefix_tokens :].transpose(1, 2).unflatten(2, cells)


def width_of(name: str) -> int:
    """Return the number of channels of a model's features. Raises ValueError for a name that timm
    lacks.
    """
    with torch.device("meta"):
        return timm_family.whole_model(name, None).num_features


def file_of(name: str, weights: str) -> Path:
    """Return the file of a model's `weights`, downloaded once. Raises ValueError for a name that
    timm lacks, else FgdaError.
    """
    return find_weights(f"timm:{timm_family.plain(name)}", "torchvision", weights)


def load_foundation(name: str, weights: str, scale: float, seed: int = 0) -> Foundation:
    """Load a model of timm with its published weights, those of a file, or random ones (`none`),
    which depend on `seed` alone.

    Raises FgdaError for weights that cannot be had, or that do not fit.
    """
    state = None
    if weights != "none":
        path = file_of(name, weights)
        state = plain_names(flat_state(read_tensors(path)))
        check_finite(state, str(path))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Foundation(timm_family.whole_model(name, state), name, scale)
    except ValueError as error:
        raise FgdaError(f"{name} as a foundation model: {error}") from error


class FeatureHead(nn.Module):
    """The student's last stage `[B,C,h,w]` to the foundation's features at (H, W): `[B,D,H,W]`;
    names as published.
    """

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        wide = 4 * channels
        norm = LayerNorm2d(wide, eps=1e-6)
        self.feat_project = nn.Sequential(
            nn.Conv2d(channels, wide, 1), norm, nn.GELU(), nn.Conv2d(wide, outputs, 1)
        )

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(self.feat_project(features), size)


def feature_gap(features: Tensor, reference: Tensor, cosine: float = 0.9) -> Tensor:
    """Return the mean over B, h, w of (1 - cosine) x smooth L1 + cosine x (1 - cosine similarity),
    of `[B,D,h,w]` twice.
    """
    near = F.smooth_l1_loss(features, reference, reduction="none").mean(1)
    angle = 1 - F.cosine_similarity(features, reference, dim=1)
    return torch.mean((1 - cosine) * near + cosine * angle)
