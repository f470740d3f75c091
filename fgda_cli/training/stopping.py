"""Early ends of a run: by a signal, or by its time limit."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..runtime.system import stop_signals

# stands for a signal; no real one has this number
OUT_OF_TIME = 1000
# validations within a time limit, at most
LOOKS = 8
# largest share of the time that validations take
SCORING = 0.1
# share of the time limit in which the speed is measured
PLANNED_AFTER = 0.04
# first iterations, which are slower than the rest and not measured
WARM_UP = 2


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
    # when the last validation ended
    ended: float = 0.0
    # how long it took
    seconds: float = 0.0
    # seconds that all validations took
    looked: float = 0.0
    # the iteration, and the training time, from which on the speed is measured
    warm: tuple[int, float] | None = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.ended = time.monotonic()
        self.seconds = self.ended - start
        self.looked += self.seconds

    def spent(self) -> float:
        return time.monotonic() - self.started

    def affords_a_look(self) -> bool:
        """Return whether a validation now leaves nine tenths of the time to training."""
        return self.limit is None or time.monotonic() - self.ended >= self.seconds * (
            1 / SCORING - 1
        )

    def is_time_to_look(self) -> bool:
        """Return whether to validate now: often enough to have a choice, seldom enough to train
        meanwhile.
        """
        return (
            self.limit is not None
            and time.monotonic() - self.ended > self.limit / LOOKS
            and self.affords_a_look()
        )

    def iterations_that_fit(self, iteration: int) -> int | None:
        """Return the iteration that training reaches within the limit, by its speed so far; None
        while that is not known.
        """
        trained = time.monotonic() - self.looked
        if self.warm is None:
            self.warm = (iteration + WARM_UP, math.inf)
        if iteration <= self.warm[0]:
            self.warm = (self.warm[0], trained) if iteration == self.warm[0] else self.warm
            return None
        seconds = trained - self.warm[1]
        if seconds < PLANNED_AFTER * self.limit:
            return None
        left = self.limit - self.spent() - self._reserve()
        return iteration + max(0, int((1 - SCORING) * left * (iteration - self.warm[0]) / seconds))

    def _reserve(self) -> float:
        """Return the seconds that the last validation and the files need."""
        return 2.5 * self.seconds + 1

    def is_out_of_time(self) -> bool:
        """Return whether another step might leave no time for the last validation and the files."""
        return self.limit is not None and self.spent() > self.limit - self._reserve()
