"""Encoders, one file a family. A family's file is found by the letters of the encoder's name
(`resnet101` -> resnet.py), or by what stands before a colon (`timm:convnext_tiny` -> timm.py,
`mit:b5` -> mit.py).

A family file defines `build(name, variant, output_stride, width, drop_path) -> nn.Module` whose
forward returns the features of every stage, coarse ones last (two at least), with `channels` and
`strides` a number for each; `input_of(name, variant) -> Input`; `adapt_weights(state, name,
output_stride)`, a foreign file's tensors in the encoder's own names; and where named weights are:
`WEIGHTS`, (name, variant, recipe) -> URL, or `locate(name, weights, folder) -> Path`.

An encoder may have `layer_depths()` (for optim.layer_decay), `head_parameters()` (its parts that
learn at the heads' rate), `checkpoint_activations` (an attribute that training sets; with
`recomputes_norms` False it goes with batch norm that trains).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


def sides(maps: Tensor) -> tuple[int, int]:
    """Return height and width of maps `[B,C,H,W]` as numbers; in a trace (TorchScript) a shape
    holds tensors.
    """
    height, width = maps.shape[-2:]
    return int(height), int(width)


class Input(NamedTuple):
    """Input of an encoder's pretraining: BGR or not, the scale of 0-255, mean and standard
    deviation of each channel.
    """

    bgr: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# the input that most networks were pretrained on
IMAGENET = Input(False, 255.0, (0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NAMED_BY_COLON = ("timm", "mit", "adapter", "dinov2")


def families() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def family(backbone: str) -> ModuleType:
    """Return the family module of a backbone name. Raises KeyError when there is none."""
    stem = backbone.partition(":")[0] if ":" in backbone else re.sub(r"\d.*$", "", backbone)
    if stem not in families() or (stem in NAMED_BY_COLON) != (":" in backbone):
        raise KeyError(backbone)
    return importlib.import_module(f"{__name__}.{stem}")
