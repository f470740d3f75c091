"""Work spread over processes that leave Ctrl-C to the parent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from .errors import FgdaError
from .system import end_with_parent, on_signal


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
