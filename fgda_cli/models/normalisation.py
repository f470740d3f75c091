"""What normalises: images before the encoder, and batch norm, also over the batches of all
processes (torch's SyncBatchNorm has no CPU kernel)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.distributed import ProcessGroup
from .encoders import Input


class Normalise(nn.Module):
    """RGB 0-255 `[B,3,H,W]` (uint8 or float) to the encoder's input; constants travel in the
    checkpoint.
    """

    def __init__(self, wanted: Input):
        super().__init__()
        bgr, scale, mean, std = wanted
        self.register_buffer("bgr", torch.tensor(bgr))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * scale)
        self.flip = bgr

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.flip else images
        return (images.to(self.mean.dtype) - self.mean) / self.std


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


@torch.no_grad()
def mix_statistics(model: nn.Module, batches: Iterable[Tensor], share: float) -> bool:
    """Set running statistics to (1 - share) x their own + share x those of `batches`, mean and
    variance ([SCHNEIDER] eq. 3).

    Each layer normalises by the mix of its own and the batch's while the later ones are measured,
    as it will afterwards. Every call of a layer counts by its images: a network of two resolutions
    calls it for the whole image and for each window. Return False, and compute nothing, where there
    is no batch norm.
    """
    layers = batch_norms(model)
    training = model.training
    if not layers:
        return False
    own = {layer: (layer.running_mean.clone(), layer.running_var.clone()) for layer in layers}
    sums = {
        layer: [torch.zeros_like(values, dtype=torch.float64) for values in own[layer]]
        for layer in layers
    }
    # images that each layer was called with
    counts = dict.fromkeys(layers, 0)

    def measure(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        values = inputs[0].float()
        moments = (values.mean((0, 2, 3)), values.var((0, 2, 3)))
        counts[layer] += len(values)
        for total, moment, before, running in zip(
            sums[layer], moments, own[layer], (layer.running_mean, layer.running_var), strict=True
        ):
            total += len(values) * moment.double()
            running.copy_(torch.lerp(before, moment, share))
        # in eval mode the layer normalises by these running statistics
        layer.eval()

    def listen(layer: nn.BatchNorm2d, *_: Any) -> None:
        # a fixed layer may be folded into the convolution before it, and is not called then
        layer.train()

    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    hooks += [layer.register_forward_hook(listen) for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.train()
        for batch in batches:
            model(batch.to(layers[0].running_mean.device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
        for layer in layers:
            count = counts[layer]
            for running, before, total in zip(
                (layer.running_mean, layer.running_var), own[layer], sums[layer], strict=True
            ):
                running.copy_(
                    torch.lerp(
                        before, (total / max(count, 1)).to(before.dtype), share if count else 0.0
                    )
                )
    return True


class _MeanOverProcesses(torch.autograd.Function):
    """The mean of every process's values, whose gradient reaches all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, process_group: ProcessGroup) -> Tensor:
        ctx.process_group = process_group
        return process_group.mean(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        return ctx.process_group.mean(grad), None


class _Shared:
    """Batch norm that normalises in training by the moments of every process's images, as one
    process with all of them would.

    Mixed into the class of a batch norm that exists already, timm's with a built-in activation
    among them.
    """

    process_group = ProcessGroup()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.process_group.size == 1:
            return super().forward(x)
        values = x.float()
        axes = (0, 2, 3)
        mean = _MeanOverProcesses.apply(values.mean(axes), self.process_group)
        # from the mean of all, as in one process: means of squares would lose digits
        centred = values - mean.view(1, -1, 1, 1)
        variance = _MeanOverProcesses.apply(centred.square().mean(axes), self.process_group)
        with torch.no_grad():
            count = self.process_group.size * values.numel() // values.shape[1]
            # the running variance is the unbiased one, as torch keeps it
            unbiased = variance * (count / max(count - 1, 1))
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        y = (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)
        return self.act(self.drop(y)) if hasattr(self, "act") else y


@cache
def _shared_class(norm_class: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    return type(f"Shared{norm_class.__name__}", (_Shared, norm_class), {})


def share_batch_norm(model: nn.Module, process_group: ProcessGroup) -> None:
    """Let every batch norm of the model see all processes' images; parameters and names stay."""
    for layer in batch_norms(model):
        layer.__class__ = _shared_class(type(layer))
        layer.process_group = process_group


@contextmanager
def unshared(model: nn.Module) -> Iterator[None]:
    """Let batch norm see this process's images alone inside."""
    layers = [layer for layer in model.modules() if isinstance(layer, _Shared)]
    worlds = [layer.process_group for layer in layers]
    try:
        for layer in layers:
            layer.process_group = ProcessGroup()
        yield
    finally:
        for layer, process_group in zip(layers, worlds, strict=True):
            layer.process_group = process_group
