"""Losses at full resolution without a full-resolution tensor of logits.

The published losses upsample `[B,C,h,w]` logits to `[B,C,H,W]`, 64 times as much memory at stride 8, and keep several
such tensors for the backward pass. Here a few output rows are upsampled at a time, their loss and gradient are
computed while they are in the processor's cache, and only the sums at low resolution remain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 400_000  # logits of one chunk: about 1.6 MB in fp32, which a core's cache holds

ChunkLoss = Callable[[Tensor, slice], Tensor]  # (logits [B,C,rows,W], output rows) -> summed loss


def interpolation(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """The matrix `[outputs, inputs]` of linear interpolation with align_corners=True."""
    return _interpolation(inputs, outputs, like.dtype, like.device)


@lru_cache(maxsize=64)
def _interpolation(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    position = torch.arange(outputs, dtype=torch.float64) * ((inputs - 1) / (outputs - 1) if outputs > 1 else 0.0)
    return reading_matrix(position, inputs).to(device, dtype)


def reading_matrix(position: Tensor, inputs: int) -> Tensor:
    """The float64 matrix `[n, inputs]` that reads off, linearly, the values at `n` positions (0 to inputs - 1)."""
    low = position.floor().long().clamp(max=max(inputs - 2, 0))
    matrix = torch.zeros(len(position), inputs, dtype=torch.float64)
    lines, share = torch.arange(len(position)), position - low
    matrix[lines, low] = 1 - share
    matrix[lines, (low + 1).clamp(max=inputs - 1)] += share
    return matrix


class Upsampled:
    """`[B,C,h,w]` seen at (H, W), bilinear with align_corners=True, some rows at a time.

    Two products with interpolation matrices, across once and down by chunks of rows: faster than `F.interpolate`, above all
    backward.
    """

    def __init__(self, maps: Tensor, size: tuple[int, int]):
        self.size = size
        self.across = interpolation(maps.shape[3], size[1], maps).T
        self.down = interpolation(maps.shape[2], size[0], maps)
        self.wide = torch.matmul(maps, self.across)  # [B,C,h,W]

    def span(self, rows: slice) -> slice:
        """The input rows that these output rows need."""
        h, height = self.wide.shape[2], self.size[0]
        step = (h - 1) / (height - 1) if height > 1 else 0.0
        return slice(max(int(rows.start * step) - 1, 0), min(int((rows.stop - 1) * step) + 3, h))

    def rows(self, rows: slice) -> Tensor:
        """`[B,C,rows,W]`."""
        span = self.span(rows)
        return self.mix(self.wide[:, :, span], span, rows)

    def mix(self, part: Tensor, span: slice, rows: slice) -> Tensor:
        """Wide input rows `[B,C,span,W]` to output rows."""
        return torch.matmul(self.down[rows, span], part)

    def back(self, grads: Tensor, rows: slice, into: Tensor) -> None:
        """Adds the gradient of some output rows `[B,C,rows,W]` to that of the wide input rows `[B,C,h,W]`."""
        span = self.span(rows)
        into[:, :, span] += torch.matmul(self.down[rows, span].T, grads)

    def narrow(self, wide: Tensor) -> Tensor:
        """The gradient of the maps `[B,C,h,w]` from that of the wide rows."""
        return torch.matmul(wide, self.across.T)

    def chunks(self) -> list[slice]:
        height, width = self.size
        rows = max(1, CHUNK_ELEMENTS // (self.wide.shape[0] * self.wide.shape[1] * width))
        return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


class _Chunked(torch.autograd.Function):
    """Loss and gradient chunk by chunk in the forward pass; the backward pass only scales."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: tuple[int, int], chunk_loss: ChunkLoss) -> Tensor:
        view = Upsampled(logits.detach(), size)
        loss, wide = logits.new_zeros(()), torch.zeros_like(view.wide)
        for rows in view.chunks():
            span = view.span(rows)
            leaf = view.wide[:, :, span].requires_grad_()
            with torch.enable_grad():
                value = chunk_loss(view.mix(leaf, span, rows), rows)
            (grad,) = torch.autograd.grad(value, leaf)
            wide[:, :, span] += grad
            loss += value.detach()
        ctx.save_for_backward(view.narrow(wide))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * grad_output, None, None


def total(logits: Tensor, size: tuple[int, int], chunk_loss: ChunkLoss) -> Tensor:
    """The sum of `chunk_loss` over all output rows, differentiable once in `logits` `[B,C,h,w]`."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Chunked.apply(logits, size, chunk_loss)
    view = Upsampled(logits, size)
    return sum(chunk_loss(view.rows(rows), rows) for rows in view.chunks())
