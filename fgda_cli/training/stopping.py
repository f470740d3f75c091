"""Early ends of a run: by a signal, or by its time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..runtime.system import stop_signals

OUT_OF_TIME = 1000  # no signal has this number
LOOKS = 8  # validations within a time limit


class StopRequest:
    """Set by SIGINT or SIGTERM; the loop ends after the running iteration."""

    signum: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(signum, _frame):
        if request.signum is not None:
            raise KeyboardInterrupt
        request.signum = signum

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Clock:
    """A time limit in seconds from `started` (time.monotonic) on; None is no limit."""

    limit: float | None = None
    started: float = 0.0
    ended: float = 0.0  # when the last validation did
    seconds: float = 0.0  # that it took

    @contextmanager
    def looking(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.ended = time.monotonic()
        self.seconds = self.ended - start

    def is_time_to_look(self) -> bool:
        """Return whether to validate now: often enough to have a choice, seldom enough to train meanwhile."""
        return self.limit is not None and time.monotonic() - self.ended > max(self.limit / LOOKS, 4 * self.seconds)

    def is_out_of_time(self) -> bool:
        """Return whether another step might leave no time for the last validation and the files."""
        return self.limit is not None and time.monotonic() > self.started + self.limit - 2.5 * self.seconds - 1
