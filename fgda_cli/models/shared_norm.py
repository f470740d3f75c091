"""Batch norm over the batches of all processes (torch's SyncBatchNorm has no CPU kernel)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..world import World


class SharedBatchNorm2d(nn.BatchNorm2d):
    """In training it normalises by the moments of every process's images, as one process with all of them would."""

    world = World()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.world.size == 1:
            return super().forward(x)
        values, axes = x.float(), (0, 2, 3)
        mean = self.world.differentiable_mean(values.mean(axes))
        centred = values - mean.view(1, -1, 1, 1)
        variance = self.world.differentiable_mean(centred.square().mean(axes))
        with torch.no_grad():
            count = self.world.size * values.numel() // values.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(model: nn.Module, world: World) -> None:
    """Let every batch norm of the model see all processes' images; parameters and names stay."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                shared = SharedBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
                shared.load_state_dict(layer.state_dict())
                shared.world = world
                setattr(parent, name, shared.train(layer.training))


@contextmanager
def unshared(model: nn.Module) -> Iterator[None]:
    """Inside, batch norm sees this process's images alone."""
    layers = [layer for layer in model.modules() if isinstance(layer, SharedBatchNorm2d)]
    worlds = [layer.world for layer in layers]
    try:
        for layer in layers:
            layer.world = World()
        yield
    finally:
        for layer, world in zip(layers, worlds, strict=True):
            layer.world = world
