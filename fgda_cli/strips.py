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


class Rows:
    """Row interpolation `[h] -> [H]`, bilinear with align_corners=True: output row y mixes `low[y]` and `low[y] + 1`."""

    def __init__(self, h: int, height: int, like: Tensor):
        step = (h - 1) / (height - 1) if height > 1 else 0.0
        place = torch.arange(height, dtype=torch.float64) * step
        self.low = place.floor().long().clamp(max=max(h - 2, 0))
        self.share = (place - self.low).to(like).view(1, 1, -1, 1)
        self.low = self.low.to(like.device)
        self.most = h

    def span(self, rows: slice) -> slice:
        """The input rows that these output rows need."""
        return slice(int(self.low[rows.start]), min(int(self.low[rows.stop - 1]) + 2, self.most))

    def upsample(self, part: Tensor, span: slice, rows: slice, width: int) -> Tensor:
        """Input rows `[B,C,span,w]` to output rows `[B,C,rows,W]`."""
        low = self.low[rows] - span.start
        high = (low + 1).clamp(max=part.shape[2] - 1)
        mixed = torch.lerp(part[:, :, low], part[:, :, high], self.share[:, :, rows])
        return F.interpolate(mixed, size=(mixed.shape[2], width), mode="bilinear", align_corners=True)


def strips(logits: Tensor, size: tuple[int, int]) -> list[slice]:
    height, width = size
    rows = max(1, STRIP_ELEMENTS // (logits.shape[0] * logits.shape[1] * width))
    return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


def gradients(logits: Tensor, size: tuple[int, int], part: Part, count: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """`count` losses that `part` gives summed over a strip: their sums over all strips, and d loss / d logits of each.

    logits `[B,C,h,w]`, size (H, W) of the output; the gradients have the logits' shape.
    """
    logits = logits.detach()
    sums, grads = [0.0] * count, [torch.zeros_like(logits) for _ in range(count)]
    rows_of = Rows(logits.shape[2], size[0], logits)
    for rows in strips(logits, size):
        span = rows_of.span(rows)
        leaf = logits[:, :, span].requires_grad_()
        with torch.enable_grad():
            losses = part(rows_of.upsample(leaf, span, rows, size[1]), rows).reshape(count)
        for index in range(count):
            (grad,) = torch.autograd.grad(losses[index], leaf, retain_graph=index + 1 < count)
            grads[index][:, :, span] += grad
            sums[index] = sums[index] + losses[index].detach()
    return sums, grads


class _ByStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: tuple[int, int], part: Part) -> Tensor:
        (total,), (grad,) = gradients(logits, size, part)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, seed: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * seed, None, None


def total(logits: Tensor, size: tuple[int, int], part: Part) -> Tensor:
    """The sum of `part` over all output rows, differentiable once in `logits` `[B,C,h,w]`."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        rows_of = Rows(logits.shape[2], size[0], logits)
        spans = [(rows, rows_of.span(rows)) for rows in strips(logits, size)]
        return sum(part(rows_of.upsample(logits[:, :, span], span, rows, size[1]), rows) for rows, span in spans)
    return _ByStrips.apply(logits, size, part)


def upsampled(logits: Tensor, size: tuple[int, int]):
    """`(rows, logits [B,C,rows,W])` of one strip after the other, without gradient."""
    rows_of = Rows(logits.shape[2], size[0], logits)
    for rows in strips(logits, size):
        span = rows_of.span(rows)
        yield rows, rows_of.upsample(logits[:, :, span], span, rows, size[1])
