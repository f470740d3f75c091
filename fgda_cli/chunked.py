"""Losses at full resolution without a full-resolution tensor of logits.

The published losses upsample `[B,C,h,w]` logits to `[B,C,H,W]`, 64 times as much memory at stride
8, and keep several such tensors for the backward pass. Here a few output rows are upsampled at a
time, their loss and gradient are computed while they are in the processor's cache, and only the
sums at low resolution remain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# logits of one chunk: about 1.6 MB in fp32, which a core's cache holds
CHUNK_ELEMENTS = 400_000
# 256 MiB: one pass for an image of the published sizes, and an end to memory for a large batch
GPU_CHUNK_ELEMENTS = 1 << 26

# (logits [B,C,rows,W], output rows) -> summed loss
ChunkLoss = Callable[[Tensor, slice], Tensor]


def interpolation(inputs: int, outputs: int, like: Tensor, align_corners: bool = True) -> Tensor:
    """Return the matrix `[outputs, inputs]` of linear interpolation, as `F.interpolate` computes
    it.
    """
    return _interpolation(inputs, outputs, align_corners, like.dtype, like.device)


@lru_cache(maxsize=64)
def _interpolation(
    inputs: int, outputs: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # the cached matrix must serve training too
    with torch.inference_mode(False):
        pixels = torch.arange(outputs, dtype=torch.float64)
        return _matrix_of(pixels, inputs, outputs, align_corners=align_corners).to(device, dtype)


def _matrix_of(pixels: Tensor, inputs: int, outputs: int, align_corners: bool) -> Tensor:
    return reading_matrix(index_of(pixels, inputs, outputs, align_corners=align_corners), inputs)


def index_of(pixels: Tensor, inputs: int, outputs: int, align_corners: bool) -> Tensor:
    """Return where the pixels (0 to outputs - 1) of a side lie among its `inputs` values (0 to
    inputs - 1). With align_corners, the two ends coincide; without, the borders do, which lie half
    a step beyond the ends.
    """
    if align_corners:
        return pixels * ((inputs - 1) / max(outputs - 1, 1))
    return ((pixels + 0.5) * (inputs / outputs) - 0.5).clamp(0, inputs - 1)


def reading_matrix(position: Tensor, inputs: int) -> Tensor:
    """Return the float64 matrix `[n, inputs]` that interpolates linearly at `n` positions (0 to
    inputs - 1).
    """
    low = position.floor().long().clamp(max=max(inputs - 2, 0))
    matrix = torch.zeros(len(position), inputs, dtype=torch.float64)
    lines = torch.arange(len(position))
    share = position - low
    matrix[lines, low] = 1 - share
    matrix[lines, (low + 1).clamp(max=inputs - 1)] += share
    return matrix


class Upsampled:
    """`[B,C,h,w]` seen at (H, W), bilinear, some rows at a time.

    Two products with interpolation matrices, across once and down by chunks of rows: faster than
    `F.interpolate`, above all backward.
    """

    def __init__(self, maps: Tensor, size: tuple[int, int], align_corners: bool = True):
        self.size = size
        self.across = interpolation(maps.shape[3], size[1], maps, align_corners=align_corners).T
        self.down = interpolation(maps.shape[2], size[0], maps, align_corners=align_corners)
        self.wide = torch.matmul(maps, self.across)  # [B,C,h,W]

    def span(self, rows: slice) -> slice:
        """Return the input rows that these output rows need."""
        h = self.wide.shape[2]
        height = self.size[0]
        # Rows per output row; corner and border alignment differ by less than one input row.
        step = h / height
        return slice(max(int(rows.start * step) - 2, 0), min(int(rows.stop * step) + 3, h))

    def rows(self, rows: slice) -> Tensor:
        """Return some output rows, `[B,C,rows,W]`."""
        span = self.span(rows)
        return self.mix(self.wide[:, :, span], span, rows)

    def mix(self, wide_rows: Tensor, span: slice, rows: slice) -> Tensor:
        """Interpolate wide input rows `[B,C,span,W]` to output rows."""
        return torch.matmul(self.down[rows, span], wide_rows)

    def back(self, grads: Tensor, rows: slice, into: Tensor) -> None:
        """Add the gradient of some output rows `[B,C,rows,W]` to the gradient of the wide input
        rows `[B,C,h,W]`.
        """
        span = self.span(rows)
        into[:, :, span] += torch.matmul(self.down[rows, span].T, grads)

    def narrow(self, wide: Tensor) -> Tensor:
        """Return the gradient of the maps `[B,C,h,w]`, given the gradient of the wide rows."""
        return torch.matmul(wide, self.across.T)

    def chunks(self) -> list[slice]:
        height, width = self.size
        most = CHUNK_ELEMENTS if self.wide.device.type == "cpu" else GPU_CHUNK_ELEMENTS
        rows = max(1, most // (self.wide.shape[0] * self.wide.shape[1] * width))
        return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


class _Chunked(torch.autograd.Function):
    """Loss and gradient chunk by chunk in the forward pass; the backward pass only scales."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, size: tuple[int, int], chunk_loss: ChunkLoss, align_corners: bool
    ) -> Tensor:
        view = Upsampled(logits.detach(), size, align_corners)
        loss = logits.new_zeros(())
        wide = torch.zeros_like(view.wide)
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
        return grad * grad_output, None, None, None


def total(
    logits: Tensor, size: tuple[int, int], chunk_loss: ChunkLoss, align_corners: bool = True
) -> Tensor:
    """Return the sum of `chunk_loss` over all output rows, differentiable once in `logits`
    `[B,C,h,w]`.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Chunked.apply(logits, size, chunk_loss, align_corners)
    view = Upsampled(logits, size, align_corners)
    return sum(chunk_loss(view.rows(rows), rows) for rows in view.chunks())
