"""Messages and progress on stderr while work goes on; results go to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from .text import visible


def tell(text: str) -> None:
    """Print a line on standard error. Where that is closed, full or broken the line is lost, and
    the work goes on.
    """
    with suppress(OSError, ValueError):
        print(visible(text), file=sys.stderr, flush=True)


# advance(count=1, note="", total=None): a total replaces the one so far
Advance = Callable[..., None]
# seconds between progress lines when stderr is no terminal
PLAIN_EVERY = 5.0


@dataclass(frozen=True)
class Reporter:
    """Print messages and progress; `quiet` leaves only results, warnings and errors."""

    quiet: bool = False
    color: bool = True
    # decisions made for the user, for log.txt and --json; None: they are not kept
    decisions: list[str] | None = None
    # every warning, for log.txt
    warned: list[str] = field(default_factory=list)
    # False: for a check whose warnings come again when the work begins, and for processes beside
    # the first
    warns: bool = True

    def console(self, stderr: bool = True):
        """Return a console that shows texts as they are: names hold no markup, and their control
        characters are escaped.
        """
        from rich.console import Console

        class Plain(Console):
            def render_str(self, text: str, **how):
                return super().render_str(
                    visible(text), **(how | {"markup": False, "emoji": False})
                )

        return Plain(
            stderr=stderr, no_color=not self.color, highlight=False, markup=False, emoji=False
        )

    def say(self, text: str) -> None:
        if not self.quiet:
            tell(text)

    def decide(self, text: str) -> None:
        """Report once, in one line, what was decided for the user, and keep it."""
        if self.decisions is None:
            self.say(text)
        elif text not in self.decisions:
            self.decisions.append(text)
            self.say(text)

    def warn(self, text: str, of_own_share: bool = False) -> None:
        """Print a warning; with `of_own_share`, about a file that this process alone has met, from
        any process.
        """
        if self.warns or of_own_share:
            self.warned.append(text)
            tell(f"fgda: warning: {text}")

    @contextmanager
    def progress(self, label: str, total: int | None, done: int = 0) -> Iterator[Advance]:
        """Yield `advance(count, note, total)`: a bar on a terminal, else a line every few seconds.
        Total None has no end.
        """
        if self.quiet or not (sys.stderr.isatty() or self.console().is_jupyter):
            yield _Plain(label, total, done, quiet=self.quiet)
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console(), transient=True) as bar:
            task = bar.add_task(label, total=total, completed=done, note="")
            yield lambda count=1, note="", total=None: bar.update(
                task, advance=count, total=total, **({"note": note} if note else {})
            )

    def track(self, items: Iterable, label: str, total: int) -> Iterator:
        with self.progress(label, total) as advance:
            for item in items:
                yield item
                advance(1)


class _Plain:
    """Progress as plain lines, for files and pipes."""

    def __init__(self, label: str, total: int | None, done: int, quiet: bool):
        self.label = label
        self.total = total
        self.done = done
        self.first = done
        self.quiet = quiet
        self.start = self.last = time.monotonic()

    def __call__(self, count: int = 1, note: str = "", total: int | None = None) -> None:
        self.done += count
        self.total = total or self.total
        now = time.monotonic()
        if self.quiet or (
            now - self.last < PLAIN_EVERY and (self.total is None or self.done < self.total)
        ):
            return
        self.last = now
        if self.total is None:
            tell(f"{self.label}: {self.done}" + (f", {note}" if note else ""))
            return
        rate = (self.done - self.first) / max(now - self.start, 1e-9)
        eta = (self.total - self.done) / rate if rate else 0
        text = f"{self.label}: {self.done}/{self.total}, ETA {int(eta) // 60}:{int(eta) % 60:02d}"
        tell(text + (f", {note}" if note else ""))
