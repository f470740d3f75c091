"""Between host and device without either waiting for the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# without float64: a Mac's GPU
NARROW = ("mps",)


def widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 where the device has nothing wider."""
    return torch.float32 if device.type in NARROW else torch.float64


def send(values: Tensor, like: Tensor | torch.device) -> Tensor:
    """Copy to the device (and dtype) of `like`; to CUDA through pinned memory, so that the host
    goes on at once.
    """
    device, dtype = (
        (like, values.dtype) if isinstance(like, torch.device) else (like.device, like.dtype)
    )
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, dtype, non_blocking=may_go_on(device))


def may_go_on(device: torch.device) -> bool:
    """Return whether the host may go on while a copy to the device runs: not on a Mac, where a
    temporary may be freed, and filled anew, before it was read.
    """
    return device.type != "mps"


class Readings:
    """Numbers that steps leave on the device, with what the host knows of them (`note`).

    On a processor they are read at once, elsewhere one call later: while the host reads the last
    step's, the device computes.
    """

    def __init__(self):
        self.pending: tuple[Any, Tensor, torch.cuda.Event | None] | None = None

    def put(self, note: Any, numbers: Sequence[Tensor]) -> tuple[Any, list[float]] | None:
        """Add numbers, and return the newest that can be read without waiting for them; None before
        there are any.
        """
        values = torch.stack([number.detach().float() for number in numbers])
        if values.device.type == "cpu":
            return note, values.tolist()
        before = self.rest()
        event = None
        # copied as soon as they are computed, or the copy would wait for the next step
        if values.device.type == "cuda":
            stream = torch.cuda.current_stream(values.device)
            event = torch.cuda.Event()
            values = values.to("cpu", non_blocking=True)
            event.record(stream)
        self.pending = (note, values, event)
        return before

    def rest(self) -> tuple[Any, list[float]] | None:
        """Wait for the numbers that have not been read yet, and return them."""
        if self.pending is None:
            return None
        note, values, event = self.pending
        self.pending = None
        if event is not None:
            event.synchronize()
        return note, values.cpu().tolist()
