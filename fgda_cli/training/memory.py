"""Peak memory of a training step, computed before there is any data: the step runs on the meta
device, where tensors have sizes and no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..methods.base import Method
from ..models import checkpoint
from ..models.tuning import tune
from ..runtime.devices import Precision
from ..settings import Preset, Stage
from .speed import prepared_state, random_batch, step_once


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


META = torch.device("meta")
# bytes of a GPU that the driver's context and cuDNN's kernels take
OVERHEAD = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes of living tensors in fp32."""

    # the network's parameters and buffers
    model: int
    # teacher, discriminators, reference networks
    others: int
    gradients: int
    optimizers: int
    # largest sum of what a step keeps for its backward passes, bytes
    activations: int
    peak: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def gpu_memory(device: torch.device | None = None) -> int | None:
    """Return the bytes that a GPU has (the first one by default); None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(device or torch.device("cuda", 0)).total_memory


def too_large(preset: Preset, stage: Stage, name: str, device: torch.device) -> str | None:
    """Return what to say of a stage that will hardly fit its GPU; None where it fits."""
    there = gpu_memory(device)
    if there is None:
        return None
    needs = memory_of_step(preset, stage, name).peak + OVERHEAD
    if needs <= there:
        return None
    return (
        f"a step takes about {needs / 2**30:.0f} GB in fp32, the GPU has {there / 2**30:.0f} GB: a"
        " smaller crop, accumulate, model.checkpoint_activations or model.tune: lora take less"
        " (fgda doctor --preset)"
    )


def memory_of_stages(preset: Preset, num_classes: int = 19) -> dict[str, Memory]:
    """Return the peak memory of source training and of adaptation, by stage; of adaptation alone
    where it starts from the encoder.
    """
    stages = [("adapt", preset.method.name)]
    if preset.adapt.start == "pretrain":
        stages.insert(0, ("pretrain", "source-only"))
    return {
        stage: memory_of_step(preset, getattr(preset, stage), name, num_classes=num_classes)
        for stage, name in stages
    }


def memory_of_step(
    preset: Preset,
    stage: Stage,
    name: str,
    num_classes: int = 19,
    device: torch.device = META,
) -> Memory:
    """Return the memory of a method's steps with their optimisers.

    On another device than meta the step is computed. Work before training (translations, modes of
    patches) and validations are not counted.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device), _attention_as_a_kernel(device):
        model = checkpoint.build_model(preset.model, num_classes)
        tune(model, preset.model, check_only=True)
        precision = Precision("fp32", device, None)
        state = prepared_state(preset, stage, name, model=model, precision=precision)
        method = state.method
        _with_references(method, preset, device)
        with torch.device("cpu"):
            batch = random_batch(preset, stage, name, num_classes=num_classes).to(device)
        live = LiveMemory().hold(model)
        of_model = live.live
        live.hold(*method.modules.values(), *method.references.values())
        others = live.live - of_model
        # the device's mode would reach the draws that are the processor's
        with torch.device("cpu"), live:
            for number in range(2):
                step_once(state, batch, number, length=2)
    trained = {id(p): p for p in state.parameters() if p.requires_grad}
    gradients = sum(p.numel() * p.element_size() for p in trained.values())
    optimizers = sum(
        value.numel() * value.element_size()
        for optimizer in state.optimizers.values()
        for of_parameter in optimizer.state.values()
        for value in of_parameter.values()
        if isinstance(value, Tensor)
    )
    rest = of_model + others + gradients + optimizers
    return Memory(of_model, others, gradients, optimizers, max(0, live.peak - rest), live.peak)


def _with_references(method: Method, preset: Preset, device: torch.device) -> None:
    """Give a method the frozen networks that it would load before training."""
    settings = method.settings
    if getattr(settings, "lambda_fd", 0) and preset.model.weights != "none":
        method.references["imagenet"] = (
            checkpoint.build_model(preset.model, 1).backbone.eval().requires_grad_(False)
        )
        method.things = torch.ones(method.model.num_classes, dtype=torch.bool, device=device)
    give_random_foundation(method, device)


def give_random_foundation(method: Method, device: torch.device) -> None:
    """Give a method that distils its foundation model, with random weights."""
    if "feature_head" in method.modules:
        from ..models.foundation import load_foundation

        s = method.settings
        foundation = load_foundation(s.distil_model, "none", s.distil_scale).to(device)
        method.references["foundation"] = foundation.eval().requires_grad_(False)


class _Attention(torch.autograd.Function):
    """What a fused attention kernel keeps: its inputs, its output, and a number for each query."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        numbers = query.new_empty(query.shape[:-1])
        ctx.save_for_backward(query, key, value, output, numbers)
        return output

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _attention_as_a_kernel(device: torch.device) -> Iterator[None]:
    """Let attention on the meta device keep what a fused kernel keeps; torch has none there, and
    would keep the weights of all pairs.
    """
    own = F.scaled_dot_product_attention
    if device.type != "meta":
        yield
        return

    def fused(query: Tensor, key: Tensor, value: Tensor, *others, **how) -> Tensor:
        return _Attention.apply(query, key, value)

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own
