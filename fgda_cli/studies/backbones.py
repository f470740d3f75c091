"""The list of encoders: our resnets, MiT, adapters, and timm models that offer features by
stage.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch

from ..models import encoders
from ..models.encoders import adapter, dinov2, mit, resnet
from ..runtime.errors import FgdaError

# described at a time; each is built, without memory, to read its strides
MOST = 40


def describe_all(pattern: str | None) -> tuple[list[dict[str, Any]], int]:
    """Return rows of the encoders whose name contains or matches `pattern`, and how many more there
    are. Raises FgdaError when none does.
    """
    import timm

    names = [
        *resnet.LAYERS,
        *mit.names(),
        *adapter.names(),
        *dinov2.names(),
        *(f"timm:{name}" for name in timm.list_models()),
    ]
    wanted = pattern or ""
    chosen = [name for name in names if _matches(name, wanted)]
    if not chosen:
        raise FgdaError(f"no encoder's name holds '{pattern}' (without a pattern all are listed)")
    return [describe(name) for name in chosen[:MOST]], max(0, len(chosen) - MOST)


def _matches(name: str, wanted: str) -> bool:
    return (
        fnmatch(name.removeprefix("timm:"), wanted)
        if set(wanted) & set("*?[")
        else wanted.removeprefix("timm:") in name
    )


def describe(name: str) -> dict[str, Any]:
    """Return name, millions of parameters, strides of the stages, source of the weights and
    licence; `problem` when it cannot be used.
    """
    row: dict[str, Any] = {
        "name": name,
        "parameters": None,
        "strides": None,
        "weights": "none",
        "licence": None,
        "problem": None,
    }
    family = encoders.family(name)
    try:
        with torch.device("meta"):
            net = family.build(name, "torchvision", "native", 64)
    except ValueError as error:
        return row | {"problem": str(error)}
    row |= {
        "parameters": round(sum(p.numel() for p in net.parameters()) / 1e6, 1),
        "strides": list(net.strides),
    }
    return row | family.describe_weights(name)
