"""Reading, computing and writing at the same time, a bounded number of images in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

import torch

from ..runtime.distributed import ProcessGroup
from ..runtime.system import io_threads

T = TypeVar("T")
# images that are looked at together; those of one network size are computed in one or more batches
CHUNK = 8
# bytes of images that wait at one place: beyond, fewer wait
MEMORY = 2**28
# pixels of one batch: small enough for a CPU's caches; a GPU takes more
CPU_PIXELS = 1 << 17
GPU_PIXELS = 1 << 21


def images_per_batch(size: tuple[int, int], device: torch.device) -> int:
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    return min(CHUNK, max(1, pixels // (size[0] * size[1])))


def share(items: list[T], process_group: ProcessGroup) -> list[T]:
    """Return this process's items: whole chunks, so that a batch holds the same images for any
    number of processes.
    """
    chunks = [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]
    return [item for chunk in process_group.part(chunks) for item in chunk]


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield lists of `count` items in order; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, count)):
        yield batch


def chunks_of(pairs: Iterable[tuple]) -> Iterator[list[tuple]]:
    """Yield lists of CHUNK pairs in order, shorter ones where images are so large that they fill
    MEMORY.
    """
    chunk: list[tuple] = []
    for number, pair in enumerate(pairs, 1):
        chunk.append(pair)
        # Ends by count alone keep batches the same for any number of processes.
        if number % CHUNK == 0 or sum(map(bytes_of, chunk)) >= MEMORY:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def bytes_of(value: object) -> int:
    """Return the bytes of the arrays in a value, which may be a tuple or dictionary of them."""
    if isinstance(value, (tuple, list)):
        return sum(map(bytes_of, value))
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    return getattr(value, "nbytes", 0)


def batched_by(key: Callable, items: Iterable[T], most: Callable) -> Iterator[tuple]:
    """Yield `(key, batch)`: neighbours of one key in order, at most `most(key)` of them."""
    batch: list[T] = []
    current = None
    for item in items:
        item_key = key(item)
        if batch and (item_key != current or len(batch) >= most(current)):
            yield current, batch
            batch = []
        current = item_key
        batch.append(item)
    if batch:
        yield current, batch


def read_ahead(read: Callable, items: list, threads: int | None = None) -> Iterator:
    """Yield `(item, read(item))` in order. Threads (None: chosen by the cores) read while the
    network computes; images of MEMORY wait at most, as far as the size of one tells that of the
    next.
    """
    threads = io_threads(threads)
    most = 2 * threads
    pending = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append((item, pool.submit(read, item)))
            while len(pending) > most:
                done, future = pending.popleft()
                result = future.result()
                most = max(1, min(2 * threads, MEMORY // max(1, bytes_of(result))))
                yield done, result
        while pending:
            done, future = pending.popleft()
            yield done, future.result()


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """Yield the same items in order, made by a thread with at most `most` waiting; its errors are
    raised here.
    """
    waiting: Queue = Queue(maxsize=most)
    stopped = Event()
    end = object()

    def put(entry) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            put((end, error))

    worker = Thread(target=make, daemon=True)
    worker.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stopped.set()
        worker.join()


def newest(items: Iterable[T]) -> Iterator[T]:
    """Yield the newest item whenever one is asked for: a thread takes items as they come, and those
    not fetched in time are dropped. What follows a camera may be slower than it, and does not lag.
    """
    waiting: deque = deque(maxlen=1)
    arrived = Event()
    stopped = Event()
    ended: list[BaseException | None] = []

    def take() -> None:
        error = None
        try:
            for item in items:
                waiting.append(item)
                arrived.set()
                if stopped.is_set():
                    return
        except BaseException as raised:  # noqa: BLE001 - raised again where the items are used
            error = raised
        finally:
            ended.append(error)
            arrived.set()

    worker = Thread(target=take, daemon=True)
    worker.start()
    try:
        while True:
            arrived.wait()
            arrived.clear()
            while waiting:
                yield waiting.popleft()
            if ended and not waiting:
                if ended[0] is not None:
                    raise ended[0]
                return
    finally:
        stopped.set()


@contextmanager
def write_behind(threads: int | None = None) -> Iterator[Callable]:
    """Yield `submit(task, *arguments)`: threads (None: chosen by the cores) run the tasks, few
    wait, and their errors are raised here.
    """
    threads = io_threads(threads)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque = deque()

        def submit(task: Callable, *arguments) -> None:
            pending.append(pool.submit(task, *arguments))
            while len(pending) > min(2 * threads, MEMORY // max(1, bytes_of(arguments))):
                pending.popleft().result()

        yield submit
        for future in pending:
            future.result()
