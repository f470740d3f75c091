"""Encoders, one file a family. A family's file is found by the letters of the encoder's name (`resnet101` -> resnet.py).

A family file defines `build(name, variant, output_stride, width) -> nn.Module` whose forward returns the features of every
stage, coarse ones last (two at least), with `channels` a number for each; `WEIGHTS`, a dict of (name, variant, recipe) -> URL
of its ImageNet weights; and `adapt_weights(state)`, foreign key names to ours.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import ModuleType


def families() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def family(backbone: str) -> ModuleType:
    """The family module of a backbone name. Raises KeyError when there is none."""
    stem = re.sub(r"\d.*$", "", backbone)
    if stem not in families():
        raise KeyError(backbone)
    return importlib.import_module(f"{__name__}.{stem}")
