"""Heads: features of the encoder's stages to logits, one file a kind.

A kind's file defines `build(num_classes, channels, strides, width, dilations) -> (neck, head)` and,
where its auxiliary level is not DeepLab-V2's, `build_aux(num_classes, channels, dilations) ->
head`. The neck makes `[B,width,h,w]` features of all stages (None: the last is taken as it is); a
head makes logits of features by convolutions, `head.convs`, whose outputs are summed.
"""

from __future__ import annotations

import importlib

from torch import nn

from . import aspp


def build(
    kind: str,
    num_classes: int,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    width: int,
    dilations: tuple[int, ...],
    multi_level: bool,
) -> tuple[nn.Module | None, nn.Module, nn.Module | None]:
    """Build neck, head, and the auxiliary head on the stage before the last."""
    module = importlib.import_module(f"{__name__}.{kind}")
    neck, head = module.build(num_classes, channels, strides, width, dilations)
    build_aux = getattr(module, "build_aux", aspp.build_aux)
    return neck, head, build_aux(num_classes, channels[-2], dilations) if multi_level else None
