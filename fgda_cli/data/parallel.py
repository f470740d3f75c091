"""Work spread over processes that leave Ctrl-C to the parent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ..errors import FgdaError


def _quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def spread(function: Callable, items: Iterable, workers: int, chunk: int = 4) -> Iterator:
    """`function` of each item, in order. When the caller stops early, what has not begun is dropped.

    Raises FgdaError when a worker process is killed (by a person, or for want of memory).
    """
    if workers <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_quiet)
    try:
        yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool:
        raise FgdaError("a worker process was killed (out of memory?): run the same command to go on") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
