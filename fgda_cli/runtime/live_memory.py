"""How many bytes of tensors live at once, as a GPU's allocator would count them."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Count the storages that come and go inside: `live` bytes now, `peak` at most.

    Works on the meta device too, where nothing is computed and nothing is held. Scratch space that
    a kernel takes for itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.live = 0
        self.peak = 0
        self.sizes: dict[int, int] = {}

    def hold(self, *modules: nn.Module) -> LiveMemory:
        """Count what exists already: parameters, buffers and gradients of these modules."""
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self.take(tensor)
                if tensor.grad is not None:
                    self.take(tensor.grad)
        return self

    def take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += self.sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.take(leaf)
        return result
