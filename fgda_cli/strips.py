"""Losses at full resolution without a full-resolution tensor of logits.

The published losses upsample `[B,C,h,w]` logits to `[B,C,H,W]`, 64 times as much memory at stride 8, and keep several
such tensors for the backward pass. Here a few output rows are upsampled at a time, their loss and gradient are
computed while they are in the processor's cache, and only the sums at low resolution remain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_ELEMENTS = 400_000  # logits of one strip: about 1.6 MB in fp32, which a core's cache holds

Part = Callable[[Tensor, slice], Tensor]  # (logits [B,C,rows,W], output rows) -> summed loss(es), [L] or scalar


class Upsampled:
    """`[B,C,h,w]` seen at (H, W), bilinear with align_corners=True, some rows at a time."""

    def __init__(self, maps: Tensor, size: tuple[int, int]):
        self.maps, self.size = maps, size
        h, height = maps.shape[2], size[0]
        place = torch.arange(height, dtype=torch.float64) * ((h - 1) / (height - 1) if height > 1 else 0.0)
        low = place.floor().long().clamp(max=max(h - 2, 0))
        self.share = (place - low).to(maps).view(1, 1, -1, 1)
        self.low = low.tolist()

    def span(self, rows: slice) -> slice:
        """The input rows that these output rows need: row y mixes `low[y]` and `low[y] + 1`."""
        return slice(self.low[rows.start], min(self.low[rows.stop - 1] + 2, self.maps.shape[2]))

    def rows(self, rows: slice) -> Tensor:
        """`[B,C,rows,W]`."""
        span = self.span(rows)
        return self.mix(self.maps[:, :, span], span, rows)

    def mix(self, part: Tensor, span: slice, rows: slice) -> Tensor:
        """Input rows `[B,C,span,w]` to output rows."""
        low = torch.tensor(self.low[rows], device=part.device) - span.start
        high = (low + 1).clamp(max=part.shape[2] - 1)
        mixed = torch.lerp(part.index_select(2, low), part.index_select(2, high), self.share[:, :, rows])
        return F.interpolate(mixed, size=(mixed.shape[2], self.size[1]), mode="bilinear", align_corners=True)

    def strips(self) -> list[slice]:
        height, width = self.size
        rows = max(1, STRIP_ELEMENTS // (self.maps.shape[0] * self.maps.shape[1] * width))
        return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


def gradients(logits: Tensor, size: tuple[int, int], part: Part, count: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """`count` losses that `part` sums over a strip: their sums over all strips, and d loss / d logits of each.

    logits `[B,C,h,w]`, size (H, W) of the output; the gradients have the logits' shape.
    """
    logits = logits.detach()
    view = Upsampled(logits, size)
    sums, grads = [logits.new_zeros(()) for _ in range(count)], [torch.zeros_like(logits) for _ in range(count)]
    for rows in view.strips():
        span = view.span(rows)
        leaf = logits[:, :, span].requires_grad_()
        with torch.enable_grad():
            losses = part(view.mix(leaf, span, rows), rows).reshape(count).unbind()
        for index in range(count):
            (grad,) = torch.autograd.grad(losses[index], leaf, retain_graph=index + 1 < count)
            grads[index][:, :, span] += grad
            sums[index] += losses[index].detach()
    return sums, grads


class _ByStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: tuple[int, int], part: Part) -> Tensor:
        (total,), (grad,) = gradients(logits, size, part)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, seed: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * seed, None, None


def total(logits: Tensor, size: tuple[int, int], part: Part) -> Tensor:
    """The sum of `part` over all output rows, differentiable once in `logits` `[B,C,h,w]`."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return _ByStrips.apply(logits, size, part)
    view = Upsampled(logits, size)
    return sum(part(view.rows(rows), rows) for rows in view.strips())
