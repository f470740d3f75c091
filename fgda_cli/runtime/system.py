"""Functions of some operating systems, each with a substitute for the others. Loads no torch."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from .errors import FgdaError


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity if the system tells it,
    else all of the machine.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def io_threads(asked: int | None = None) -> int:
    """Return the number of threads that read images ahead and write results: as asked, else chosen
    by the cores. A GPU computes faster than two of them decode; more than six would hold many large
    images.
    """
    return asked or max(2, min(6, usable_cores() // 3))


def keep_freed_memory() -> bool:
    """Let the C library (glibc) keep freed memory, and return whether it can; for processes of the
    command line alone.

    By default every tensor above 32 MB, and many below, is mapped anew and unmapped again: the
    kernel clears its pages each time, which on a virtual machine costs as much as the convolution
    that fills them (benchmarks/step.py).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # the option's number in malloc.h
    trim_threshold = -1
    mmap_max = -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    return True


def stop_signals() -> tuple[int, ...]:
    """Return the signals that ask a process to stop, as far as this system has them (Windows lacks
    some).
    """
    names = ["SIGINT", "SIGTERM"]
    # Under nohup, which ignores it, a run outlives its terminal.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        names.append("SIGHUP")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def on_signal(name: str, handler: Callable[[int, Any], Any] | int) -> None:
    """Install a handler where the signal exists and this thread may (the main one)."""
    number = getattr(signal, name, None)
    if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
        return
    try:
        signal.signal(number, handler)
    # Only the main thread may set it; a notebook or a server calls from another.
    except ValueError:
        pass


def end_with_parent() -> None:
    """Wait until the parent process is gone, then end this one: a worker of a killed parent would
    wait for work forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os._exit(1)


def median_seconds(work: Callable[[int], object], count: int) -> float:
    """Return the median duration of `count` calls of `work`, which is given their number."""
    import statistics

    times = []
    for number in range(count):
        started = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _worker() -> None:
    on_signal("SIGINT", signal.SIG_IGN)
    on_signal("SIGTERM", signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()


def in_processes(function: Callable, items: Iterable, workers: int, chunk: int = 4) -> Iterator:
    """Yield `function` of each item, in order. When the caller stops early, items that have not
    begun are dropped.

    Raises FgdaError when a worker process is killed (by a person, or for want of memory).
    """
    if workers <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_worker)
    try:
        yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool:
        raise FgdaError(
            "a worker process was killed (out of memory?): run the same command to go on"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
