"""The processes of one run: `torchrun` starts several, each with its part of every batch; else
there is one.

Methods run several backward passes and take gradients with `autograd.grad`, which
DistributedDataParallel's hooks on single backward passes do not see: gradients are averaged here,
once an iteration, after the method's step. Numbers of the host (flags, decisions) travel by gloo
between the hosts: a GPU is not waited for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .errors import FgdaError, UsageError
from .lazy import LazyModule

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = LazyModule("torch")
dist = LazyModule("torch.distributed")

# gradients averaged in one message: 32 MB
BUCKET_ELEMENTS = 8_000_000


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among `size`; with one process every method returns what it was
    given.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, items: list) -> list:
        """Return every size-th of `items`, beginning at this process's own."""
        return items[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values.float()) / self.size if self.size > 1 else values

    def mean_terms(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average named scalars in one message: one process's NaN becomes everybody's."""
        if self.size == 1:
            return terms
        return dict(
            zip(
                terms,
                self.mean(torch.stack([term.detach() for term in terms.values()])).unbind(),
                strict=True,
            )
        )

    def largest(self, number: int) -> int:
        if self.size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if self.size == 1:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        while grads:
            bucket = []
            count = 0
            while grads and (not bucket or count + grads[0].numel() <= BUCKET_ELEMENTS):
                count += grads[0].numel()
                bucket.append(grads.pop(0))
            flat = self.mean(torch.cat([grad.flatten() for grad in bucket]))
            for grad, values in zip(
                bucket, flat.split([grad.numel() for grad in bucket]), strict=True
            ):
                grad.copy_(values.view_as(grad))

    def first_decides(self, action: Callable[[], int]) -> int:
        """Let process 0 act and tell the number it found; when it fails, all end. Raises what it
        raises, else FgdaError.
        """
        if self.size == 1:
            return action()
        failure = None
        answer = -1
        if self.is_first:
            try:
                answer = action()
            except BaseException as error:  # noqa: BLE001 - the others must hear of it before it goes on up
                failure = error
        told = torch.tensor(answer)
        dist.broadcast(told, 0)
        if failure is not None:
            raise failure
        if int(told) < 0:
            raise FgdaError("stopped, because process 0 could not go on")
        return int(told)

    def first_says(self, number: int | bool) -> int:
        """Return the number that process 0 gives, whatever the others do: of clocks and counters
        that it alone keeps.
        """
        return self.first_decides(lambda: int(number))

    def gather(self, value: Any) -> list[Any]:
        """Return each process's JSON-able value, in order of rank."""
        if self.size == 1:
            return [value]
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        longest = self.largest(len(text))
        # spaces: JSON does not mind them
        padded = torch.full((longest,), 32, dtype=torch.uint8)
        padded[: len(text)] = text
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return [json.loads(bytes(part.tolist()).decode()) for part in gathered]


def ranks() -> tuple[int, int, int]:
    """Return rank, size and local rank from torchrun's environment; (0, 1, 0) without it."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    rank, size, local = given.values()
    if not (rank and size):
        return 0, 1, 0
    try:
        numbers = (int(rank), int(size), int(local or 0))
    except ValueError:
        numbers = (-1, -1, -1)
    address = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if not 0 <= numbers[0] < numbers[1] or (numbers[1] > 1 and address):
        shown = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        lacking = f", without {' and '.join(address)}" if address else ""
        raise UsageError(
            f"the environment says {shown}{lacking}, which torchrun would not set so\nunset RANK"
            " and WORLD_SIZE for one process, or start several with torchrun (docs/nodes.md)"
        )
    return numbers


def join(device: Any) -> ProcessGroup:
    """Return this process's ProcessGroup; with several processes, wait until all are there."""
    process_group = ProcessGroup(*ranks())
    if process_group.size > 1 and not dist.is_initialized():
        import atexit

        # Its functions take the group of the moment of their import as a default argument. Imported
        # later (torch._dynamo does), they would keep it until the interpreter is gone and its
        # threads cannot be joined: SIGABRT at the end.
        import torch.distributed.nn.functional  # noqa: F401

        if device.type == "cuda":
            torch.cuda.set_device(device)
        # The others wait while the first makes what a method needs before training, for hours with
        # a translation.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=7)
        )
        atexit.register(leave)
    return process_group


def leave() -> None:
    """End the group. Older torch (seen in 2.4) joins gloo's threads with the interpreter locked,
    and waits forever for a thread that still holds the last message's tensor; so the threads get
    time to release it.
    """
    time.sleep(0.1)
    dist.destroy_process_group()
