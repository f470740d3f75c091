"""The errors a user sees as one line; `exit_code` is what the process ends with."""

from __future__ import annotations


class FgdaError(Exception):
    """The work failed: unreadable data, a NaN loss, no such weights."""

    exit_code = 1


class UsageError(FgdaError):
    """The command line or the preset is wrong."""

    exit_code = 2


class Stopped(FgdaError):
    """SIGINT or SIGTERM ended the work after it was brought to a resumable state."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum


class Terminated(BaseException):
    """SIGTERM or SIGHUP ended the work wherever it was.

    As KeyboardInterrupt it is no Exception: it comes in the middle of anything, and whoever catches
    what is wrong with a file would take the signal for that, and go on with the next one.
    """

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signum
