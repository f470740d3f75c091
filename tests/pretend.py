"""A GPU that is not there: tensors that say they lie on a device of their own, computed by the
processor.

What a GPU refuses is refused here (a tensor of the processor among those of the device, `numpy()`
without `cpu()`), and each wait of the host for the device is counted, by the line of ours that
caused it. Numbers are the processor's own: what runs here must end in the same bits as without.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
needs_pretended_gpu = pytest.mark.skipif(
    not AVAILABLE, reason="this torch has no devices made of Python"
)


class Module(getattr(backend_registration, "_DummyBackendModule", object)):
    """Not offered to code that asks for any accelerator: other tests of the process, torch's own
    choices.
    """

    def is_available(self) -> bool:
        return False

    # what torch.autocast asks a device for
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


# by conftest.py: autograd knows only the devices that there are at its first backward pass
if AVAILABLE:
    backend_registration._setup_privateuseone_for_python_backend(
        "pretended", backend_module=Module()
    )
DEVICE = torch.device("pretended" if AVAILABLE else "cpu", 0)
aten = torch.ops.aten
# Kernels whose result's shape, or whose value on the host, hangs on what tensors hold.
WAITING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.histc,
    aten.repeat_interleave,
}
# give numbers, not tensors
ON_HOST = {aten._local_scalar_dense, aten.is_nonzero, aten.equal}
# take indices of the processor, and wait for them
INDEXED = {aten.index, aten.index_put_, aten._index_put_impl_}


class OnDevice(Tensor):
    """A tensor of the pretended GPU; `values` holds its numbers."""

    values: Tensor
    # what the device does not have
    refused: torch.dtype | None = None
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        if values.dtype == cls.refused:
            raise TypeError(f"the device has no {values.dtype}")
        how = {
            "strides": values.stride(),
            "storage_offset": values.storage_offset(),
            "dtype": values.dtype,
            "device": DEVICE,
        }
        made = Tensor._make_wrapper_subclass(cls, values.shape, **how)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the pretended GPU")

    def __repr__(self) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"


class PretendedGpu(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()

    def wait(self, func) -> None:
        frame = sys._getframe()
        while frame is not None and "/fgda_cli/" not in frame.f_code.co_filename:
            frame = frame.f_back
        where = (
            "a test"
            if frame is None
            else f"{frame.f_code.co_filename.rsplit('/fgda_cli/', 1)[1]}:{frame.f_lineno}"
        )
        self.waits[f"{where} {func}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        if packet is aten._to_copy:
            return self.moved(func, args[0], kwargs)
        if packet is aten.copy_:
            return self.written(*args, **kwargs)
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        goes_here = is_here(kwargs.get("device"))
        if not goes_here and not any(isinstance(tensor, OnDevice) for tensor in tensors):
            return func(*args, **kwargs)
        strangers = [
            tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.ndim > 0
        ]
        if strangers and packet not in INDEXED:
            raise RuntimeError(
                f"{func}: a tensor of the processor {tuple(strangers[0].shape)} among those of"
                " the GPU"
            )
        masks = [
            tensor for tensor in tensors_in(args[1:2]) if tensor.dtype in (torch.bool, torch.uint8)
        ]
        if packet in WAITING or packet in INDEXED and (masks or strangers):
            self.wait(func)
        if goes_here:
            kwargs["device"] = torch.device("cpu")
        found = func(*plain(args), **plain(kwargs))
        if packet in ON_HOST:
            return found
        known = {id(leaf.values): leaf for leaf in written_into(func, args, kwargs)}
        return mapped(
            found,
            Tensor,
            lambda tensor: known[id(tensor)] if id(tensor) in known else OnDevice(tensor),
        )

    def moved(self, func, source: Tensor, kwargs: dict):
        """Between the memories: the host waits for what comes here, and for what leaves it unless
        it asks not to.
        """
        was_here = isinstance(source, OnDevice)
        # where nothing is computed at all
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta":
            return func(plain(source), **kwargs)
        goes_here = was_here if kwargs.get("device") is None else is_here(kwargs["device"])
        if was_here != goes_here and not (goes_here and kwargs.get("non_blocking")):
            self.wait(func)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        found = func(plain(source), **kwargs)
        return OnDevice(found) if goes_here else found

    def written(self, goal: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if isinstance(goal, OnDevice) != isinstance(source, OnDevice) and not non_blocking:
            self.wait(aten.copy_)
        plain(goal).copy_(plain(source))
        return goal


def is_here(device) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def mapped(tree, kind: type, change):
    """Return arguments or results of a kernel, lists and tuples of them too, with each of a kind
    changed. Its calls are too many for torch's own trees.
    """
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)([mapped(part, kind, change) for part in tree])
    if isinstance(tree, dict):
        return {name: mapped(part, kind, change) for name, part in tree.items()}
    return tree


def tensors_in(tree) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(part)


def plain(tree):
    return mapped(tree, OnDevice, lambda tensor: tensor.values)


@cache
def changed_by(func) -> list[tuple[int, str]]:
    """The places and names of the arguments that a kernel writes into; -1 for keywords alone."""
    return [
        (-1 if argument.kwarg_only else number, argument.name)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def written_into(func, args, kwargs) -> list[OnDevice]:
    """The arguments that a kernel changes and may return: as the objects that they are."""
    return [
        tensor
        for place, name in changed_by(func)
        for tensor in tensors_in(kwargs.get(name) if place < 0 else args[place : place + 1])
        if isinstance(tensor, OnDevice)
    ]


def _without_gradients(mode=True):
    """Stand for torch.inference_mode, as a decorator, as a call and as inference_mode(False)."""
    return torch.no_grad(mode) if callable(mode) else torch.set_grad_enabled(not mode)


@contextmanager
def pretended_gpu(refused: torch.dtype | None = None) -> Iterator[PretendedGpu]:
    """Inside, `DEVICE` is a device like another, without a type of numbers that is `refused`."""
    before = torch._C._only_lift_cpu_tensors()
    # else torch.tensor(…, device=DEVICE) passes the mode by
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        # Wrapped tensors know no inference mode.
        with (
            mock.patch("torch.inference_mode", _without_gradients),
            mock.patch.object(OnDevice, "refused", refused),
            PretendedGpu() as gpu,
        ):
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
