"""ADVENT: adversarial alignment of weighted self-information maps ([ADVENT])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .adaptsegnet import AdaptSegNet
from .base import losses, torch

if TYPE_CHECKING:
    from torch import Tensor


class Advent(AdaptSegNet):
    """AdaptSegNet's game on I = -p log2 p / log2 K instead of p."""

    def maps(self, logits: Tensor) -> Tensor:
        return losses.weighted_self_information(torch.softmax(logits, dim=1))


METHOD = Advent
