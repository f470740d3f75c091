"""Backbones, one file a family. A family's file is found by the letters of the backbone's name (`resnet101` -> resnet.py).

A family file defines `build(name, variant, output_stride, width) -> nn.Module` whose forward returns
`(layer3 features, layer4 features)` and which has `channels = (C3, C4)`; and `WEIGHTS`, a dict of
(name, variant) -> URL of its ImageNet weights.
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
